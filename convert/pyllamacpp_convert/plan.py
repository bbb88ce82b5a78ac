"""What a run will write, known before any weight is read."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf

from pyllamacpp.errors import FileError, InvalidArgumentError
from pyllamacpp.kernels import default_thread_count
from pyllamacpp_convert.importance import Importance
from pyllamacpp_convert.metadata import Value
from pyllamacpp_convert.mixture import FILE_TYPES, Fallback
from pyllamacpp_convert.pipeline import (
    Job,
    ProgressCallback,
    band_bytes,
    encode_first_band,
    write_gguf,
)

# Bands that the pipeline holds for each thread: those that wait and those in work.
_BANDS_PER_THREAD = 4
_MOST_THREADS = 1024


@dataclass(frozen=True)
class Plan:
    """A file's metadata and tensors, each with its source.

    sources: every file that is read. fallbacks: tensors of which the rows do not fit the type that
    was wanted. without_importance: matrices that the importance matrix does not name, though there
    is one. notes: a sentence each, for the user.
    """

    sources: Sequence[Path]
    file_type: str
    metadata: dict[str, Value]
    jobs: Sequence[Job]
    fallbacks: Sequence[Fallback]
    without_importance: Sequence[str]
    notes: Sequence[str]

    @property
    def n_weights(self) -> int:
        """Weights in all."""
        return sum(math.prod(job.spec.shape) for job in self.jobs)

    @property
    def n_bytes(self) -> int:
        """Bytes of the tensors to be written."""
        return sum(job.spec.n_bytes for job in self.jobs)

    @property
    def bits_per_weight(self) -> float:
        """Of the tensors to be written."""
        return 8 * self.n_bytes / self.n_weights

    def memory(self, n_threads: int) -> int:
        """About how many bytes of memory the run takes, beside Python."""
        return _BANDS_PER_THREAD * n_threads * max(band_bytes(job) for job in self.jobs)

    def seconds(self, n_threads: int) -> float:
        """About how long the run takes, by one band of the largest tensor of each type."""
        largest: dict[str, Job] = {}
        weights: Counter[str] = Counter()
        for job in self.jobs:
            weights[job.spec.dtype] += math.prod(job.spec.shape)
            known = largest.setdefault(job.spec.dtype, job)
            if math.prod(job.spec.shape) > math.prod(known.spec.shape):
                largest[job.spec.dtype] = job
        total = 0.0
        for dtype, job in largest.items():
            began = time.perf_counter()
            n = encode_first_band(job)
            total += (time.perf_counter() - began) * weights[dtype] / n
        return total / n_threads

    def identity(self) -> dict[str, object]:
        """What the result depends on: a run resumes only one that had the same."""
        states = [(path.resolve(), path.stat()) for path in self.sources]
        return {
            "sources": [[str(path), s.st_size, s.st_mtime_ns] for path, s in states],
            "types": {job.spec.name: job.spec.dtype for job in self.jobs},
        }


def quantization_metadata(file_type: str, importance: Importance | None) -> dict[str, Value]:
    """The keys that say how a file's weights are stored."""
    metadata: dict[str, Value] = {
        "general.file_type": FILE_TYPES[file_type].number,
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
    }
    if importance is not None:
        metadata["quantize.imatrix.file"] = importance.path.name
        if importance.datasets:
            metadata["quantize.imatrix.dataset"] = ", ".join(importance.datasets)
        metadata["quantize.imatrix.entries_count"] = len(importance.columns)
        metadata["quantize.imatrix.chunks_count"] = importance.n_chunks
    return metadata


def refuse_target(sources: Sequence[Path], target: Path, *, force: bool) -> None:
    """Raises InvalidArgumentError or FileError when `target` is there or cannot be there."""
    for file in sources:
        if target.exists() and target.samefile(file):
            raise InvalidArgumentError(f"{target} is the file that is read; write another")
    if target.is_dir():
        raise FileError(f"{target} is a folder; name the file to write")
    if target.exists() and not force:
        raise InvalidArgumentError(f"{target} is there already; remove it, or use --force")
    if not target.parent.is_dir():
        raise FileError(f"{target.parent} is not a folder")


def write_plan(
    plan: Plan,
    target: Path,
    *,
    n_threads: int | None = None,
    split_max_bytes: int | None = None,
    verify: bool = False,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> list[Path]:
    """Writes what was planned; arguments, result and errors as those of `convert`."""
    threads = default_thread_count() if n_threads is None else n_threads
    if not 1 <= threads <= _MOST_THREADS:
        raise InvalidArgumentError(f"n_threads is {threads}, expected 1 to {_MOST_THREADS}")
    if split_max_bytes is not None and split_max_bytes < 1:
        raise InvalidArgumentError(f"split_max_bytes is {split_max_bytes}, expected at least 1")
    return write_gguf(
        target,
        plan.metadata,
        plan.jobs,
        n_threads=threads,
        identity=plan.identity() | {"split": split_max_bytes},
        split_max_bytes=split_max_bytes,
        verify=verify,
        resume=resume,
        progress=progress,
    )
