"""A GGUF in, a GGUF of another type out."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf

from pyllamacpp.errors import FileError, FormatError, InvalidArgumentError
from pyllamacpp.kernels import default_thread_count
from pyllamacpp_convert.gguf_file import GgufModel, read_gguf
from pyllamacpp_convert.importance import Importance, read_importance
from pyllamacpp_convert.metadata import Value
from pyllamacpp_convert.mixture import (
    FILE_TYPES,
    FLOAT_TYPES,
    Fallback,
    choose_types,
    file_type_named,
    is_quantizable,
)
from pyllamacpp_convert.pipeline import (
    Job,
    ProgressCallback,
    band_bytes,
    encode_first_band,
    write_gguf,
)
from pyllamacpp_convert.writer import TensorSpec

# Bands that the pipeline holds for each thread: those that wait and those in work.
_BANDS_PER_THREAD = 4

# What the parts of a split file say of themselves, and what the writer decides for itself.
_NOT_COPIED = ("split.no", "split.count", "split.tensors.count", "general.alignment")

_ADVICE = (
    "quantizing twice loses more than once: give the f16 or f32 file, or --allow-requantize "
    "(from Python: allow_requantize=True)"
)


@dataclass(frozen=True)
class QuantizePlan:
    """What would be written: a job for each tensor, in the order of the source.

    fallbacks: tensors of which the rows do not fit the type that was wanted. n_copied: quantized
    tensors that have their type already. without_importance: matrices that the importance matrix
    does not name, though there is one.
    """

    source: GgufModel
    file_type: str
    metadata: dict[str, Value]
    jobs: list[Job]
    fallbacks: list[Fallback]
    n_copied: int
    without_importance: list[str]
    imatrix: Path | None

    @property
    def n_params(self) -> int:
        """Weights in all."""
        return sum(math.prod(job.spec.shape) for job in self.jobs)

    @property
    def n_bytes_before(self) -> int:
        """Bytes of the tensors in the source."""
        return sum(tensor.n_bytes for tensor in self.source.tensors.values())

    @property
    def n_bytes(self) -> int:
        """Bytes of the tensors to be written."""
        return sum(job.spec.n_bytes for job in self.jobs)

    def memory(self, n_threads: int) -> int:
        """About how many bytes of memory the run takes, beside Python."""
        largest = max((band_bytes(job) for job in self.jobs), default=0)
        return _BANDS_PER_THREAD * n_threads * largest

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


def plan_quantization(
    source: str | os.PathLike[str],
    file_type: str,
    *,
    pure: bool = False,
    imatrix: str | os.PathLike[str] | None = None,
    tensor_types: Sequence[tuple[str, str]] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    allow_requantize: bool = False,
) -> QuantizePlan:
    """Reads headers only; arguments and errors as those of `quantize_gguf`."""
    file_type = file_type_named(file_type)
    model = read_gguf(Path(source))
    importance = read_importance(Path(imatrix)) if imatrix is not None else None
    n_heads = _needed(model, "attention.head_count")
    dtypes, fallbacks = choose_types(
        file_type,
        [(name, tensor.shape) for name, tensor in model.tensors.items()],
        n_layers=_needed(model, "block_count"),
        n_heads=n_heads,
        n_kv_heads=model.number(f"{_architecture(model)}.attention.head_count_kv") or n_heads,
        pure=pure,
        tensor_types=tensor_types,
        output_type=output_type,
        embedding_type=embedding_type,
        has_importance=importance is not None,
    )
    jobs, copied, without = [], 0, []
    for name, tensor in model.tensors.items():
        dtype = dtypes[name]
        if tensor.dtype == dtype:
            copied += dtype not in FLOAT_TYPES
        elif not allow_requantize and not {tensor.dtype, dtype} & {*FLOAT_TYPES}:
            raise InvalidArgumentError(
                f"{tensor.path}: {name} is {tensor.dtype} already and would become {dtype}; "
                f"{_ADVICE}"
            )
        columns = None
        if importance is not None and dtype not in FLOAT_TYPES:
            columns = importance.of(name, tensor.shape[-1])
            if columns is None and is_quantizable(name, tensor.shape):
                without.append(name)
        jobs.append(Job(TensorSpec(name, tensor.shape, dtype), tensor, columns))
    metadata = _metadata(model, file_type, importance)
    return QuantizePlan(
        model,
        file_type,
        metadata,
        jobs,
        fallbacks,
        copied,
        without,
        importance.path if importance else None,
    )


def quantize_gguf(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    file_type: str,
    *,
    pure: bool = False,
    imatrix: str | os.PathLike[str] | None = None,
    tensor_types: Sequence[tuple[str, str]] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    allow_requantize: bool = False,
    n_threads: int | None = None,
    force: bool = False,
    verify: bool = False,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> QuantizePlan:
    """Writes the model of a GGUF file with the types of `file_type`; returns what was written.

    Memory holds a few bands of rows, whatever the size of the model. `target` appears when it is
    complete and was read back.

    Args:
        source: A GGUF file, or the first of a split model.
        file_type: A key of `mixture.FILE_TYPES`, such as "q4_k_m".
        pure: Every matrix in the base type, no mixture.
        imatrix: A file of `pyllamacpp imatrix` or llama-imatrix: columns that matter more get less
            error.
        tensor_types: (regex, type): matrices whose name matches get the type.
        output_type: Of the output matrix.
        embedding_type: Of the embedding.
        allow_requantize: Quantize what is quantized already.
        n_threads: By default what this machine or container has.
        force: Replace `target`.
        verify: Compare every tensor with its source afterwards.
        resume: Go on with an interrupted run of the same source and options.
        progress: Told how far it is.

    Raises:
        InvalidArgumentError: A type or regex is wrong, `target` is there, or a tensor is quantized
            already.
        FileError: A file cannot be read or written.
        FormatError: `source` is damaged, or a weight is not finite.
    """
    source, target = Path(source), Path(target)
    plan = plan_quantization(
        source,
        file_type,
        pure=pure,
        imatrix=imatrix,
        tensor_types=tensor_types,
        output_type=output_type,
        embedding_type=embedding_type,
        allow_requantize=allow_requantize,
    )
    refuse_target(plan.source.files, target, force=force)
    write_plan(plan, target, n_threads=n_threads, verify=verify, resume=resume, progress=progress)
    return plan


def refuse_target(files: Sequence[Path], target: Path, *, force: bool) -> None:
    """Raises InvalidArgumentError or FileError when `target` is there or cannot be there."""
    for file in files:
        if target.exists() and target.samefile(file):
            raise InvalidArgumentError(f"{target} is the file that is read; write another")
    if target.is_dir():
        raise FileError(f"{target} is a folder; name the file to write")
    if target.exists() and not force:
        raise InvalidArgumentError(f"{target} is there already; remove it, or use --force")
    if not target.parent.is_dir():
        raise FileError(f"{target.parent} is not a folder")


def write_plan(
    plan: QuantizePlan,
    target: Path,
    *,
    n_threads: int | None = None,
    verify: bool = False,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> None:
    """Writes what `plan_quantization` planned."""
    files = [*plan.source.files, *filter(None, [plan.imatrix])]
    write_gguf(
        target,
        plan.metadata,
        plan.jobs,
        n_threads=n_threads or default_thread_count(),
        identity={
            "sources": [_identity(file) for file in files],
            "types": {job.spec.name: job.spec.dtype for job in plan.jobs},
        },
        verify=verify,
        resume=resume,
        progress=progress,
    )


def _identity(file: Path) -> list[str | int]:
    found = file.stat()
    return [str(file.resolve()), found.st_size, found.st_mtime_ns]


def _architecture(model: GgufModel) -> str:
    found = model.metadata.get("general.architecture")
    if found is None or not isinstance(found.value, str):
        raise FormatError(f"{model.files[0]} states no general.architecture: it is no model")
    return found.value


def _needed(model: GgufModel, key: str) -> int:
    name = f"{_architecture(model)}.{key}"
    found = model.number(name)
    if not found:
        raise FormatError(f"{model.files[0]} states no {name}: it is no language model")
    return found


def _metadata(model: GgufModel, file_type: str, importance: Importance | None) -> dict[str, Value]:
    metadata: dict[str, Value] = {
        key: value
        for key, value in model.metadata.items()
        # The gguf package writes no empty arrays.
        if key not in _NOT_COPIED and value.value != []
    }
    metadata["general.architecture"] = _architecture(model)
    metadata["general.file_type"] = FILE_TYPES[file_type].number
    metadata["general.quantization_version"] = gguf.GGML_QUANT_VERSION
    if importance is not None:
        metadata["quantize.imatrix.file"] = importance.path.name
        if importance.datasets:
            metadata["quantize.imatrix.dataset"] = ", ".join(importance.datasets)
        metadata["quantize.imatrix.entries_count"] = len(importance.columns)
        metadata["quantize.imatrix.chunks_count"] = importance.n_chunks
    return metadata
