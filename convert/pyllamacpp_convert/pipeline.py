"""Tensors in, one GGUF out: read, convert and quantize at the same time, a band of rows at a time.

One thread reads the sources in order while others convert, quantize and write what was read, so
that memory holds a few bands whatever the size of the model. Beside `OUT.part` lies a journal of
sources, options and bands done, by which an interrupted run goes on.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import gguf
import numpy as np

from pyllamacpp.errors import FileError, FormatError, InvalidArgumentError
from pyllamacpp.kernels import Floats, bytes_of, dequantize, quantize
from pyllamacpp_convert.source import Rows, Stored
from pyllamacpp_convert.writer import GgufStreamWriter, TensorSpec, Typed, Value, part_of

# Weights of a band: some MB, enough for disks and few enough for caches.
_BAND = 1 << 20
_JOURNAL_SECONDS = 10.0

# Relative rms error of normally distributed weights in each type, measured. A block with one large
# weight can have four times that; a wrong scale or layout has more.
_EXPECTED_ERROR = {
    "f32": 0.0,
    "f16": 0.0003,
    "bf16": 0.002,
    "q8_0": 0.0055,
    "q6_k": 0.017,
    "q5_1": 0.034,
    "q5_0": 0.04,
    "q5_k": 0.035,
    "q4_1": 0.07,
    "q4_k": 0.07,
    "q4_0": 0.081,
    "iq4_nl": 0.074,
    "iq4_xs": 0.074,
    "q3_k": 0.144,
    "q2_k": 0.26,
}


class Addend(Protocol):
    """What is added to a tensor's weights before they are stored."""

    def add_to(self, floats: Floats, first: int) -> Floats:
        """The sum with rows [first, first + len(floats)): [rows, columns], float32.

        A row's bits do not depend on which others are asked for with it.
        """
        ...


@dataclass(frozen=True)
class Job:
    """A tensor to write, where it comes from, how much each column counts [columns], and what is
    added to the source's weights.
    """

    spec: TensorSpec
    source: Rows
    importance: Floats | None = None
    addend: Addend | None = None


class Progress(NamedTuple):
    """How far a stage ("checksums", "convert" or "verify") is: bytes read of all it will read."""

    stage: str
    done: int
    total: int


ProgressCallback: TypeAlias = Callable[[Progress], None]


class _Band(NamedTuple):
    job: Job
    first: int
    last: int


def write_gguf(
    path: Path,
    metadata: Mapping[str, Value],
    jobs: Sequence[Job],
    *,
    n_threads: int,
    identity: Mapping[str, Any],
    split_max_bytes: int | None = None,
    verify: bool = False,
    resume: bool = False,
    progress: ProgressCallback | None = None,
) -> list[Path]:
    """Writes the tensors in the order of `jobs`; returns the files, several if it was split.

    identity: what the result depends on, as JSON values; a run resumes only one with the same.
    verify: afterwards every tensor is read back and compared with its source; otherwise the first
    and last row of each.

    Raises FormatError when a weight is not finite or something does not read back as written, and
    leaves nothing then. FileError (a full disk), or an interrupt, leaves `OUT.part` and its journal
    for `resume`; nothing has the final name before all is done.
    """
    journal = _Journal(path, identity)
    done = journal.resumed() if resume else 0
    total = sum(_stored_bytes(job.source) for job in jobs)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(GgufStreamWriter(name, part, specs, resume=done > 0))
            for name, part, specs in _parts(path, metadata, jobs, split_max_bytes)
        ]
        _require_space(path, sum(writer.n_bytes for writer in writers), done > 0)
        writer_of = {name: writer for writer in writers for name in writer.names}
        try:
            journal.write(done)
            read = 0
            bands = list(_bands(jobs))
            for n, band in enumerate(_process(bands, done, writer_of, n_threads)):
                read += (band.last - band.first) * _row_bytes(band.job.source)
                if n >= done and journal.is_due():
                    for writer in writers:
                        writer.flush()
                    journal.write(n + 1)
                if progress is not None:
                    progress(Progress("convert", read, total))
            read = 0
            for job in _read_back_all(jobs, writer_of, n_threads, whole=verify):
                read += _stored_bytes(job.source)
                if verify and progress is not None:
                    progress(Progress("verify", read, total))
            for writer in writers:
                writer.finish()
        except (FormatError, InvalidArgumentError):
            for writer in writers:
                writer.abandon()
            journal.remove()
            raise
    journal.remove()
    return [writer.path for writer in writers]


def band_bytes(job: Job) -> int:
    """Bytes that one band of the tensor takes at most on its way, as floats."""
    columns = job.spec.shape[-1]
    return 4 * columns * min(job.spec.n_rows, max(1, _BAND // columns))


def encode_first_band(job: Job) -> int:
    """Reads, converts and quantizes one band of the tensor, for its time; returns its weights."""
    band = next(_bands([job]))
    stored = job.source.read(band.first, band.last)
    _encode(band, stored)
    return (band.last - band.first) * job.spec.shape[-1]


def _stored_bytes(source: Rows) -> int:
    return math.prod(source.shape[:-1]) * _row_bytes(source)


def _row_bytes(source: Rows) -> int:
    return bytes_of(source.dtype, source.shape[-1])


def _bands(jobs: Sequence[Job]) -> Iterator[_Band]:
    for job in jobs:
        step = max(1, _BAND // job.spec.shape[-1])
        for first in range(0, job.spec.n_rows, step):
            yield _Band(job, first, min(first + step, job.spec.n_rows))


def _process(
    bands: Sequence[_Band],
    done: int,
    writer_of: Mapping[str, GgufStreamWriter],
    n_threads: int,
) -> Iterator[_Band]:
    """Yields each band in order once it is written; the first `done` were before."""
    yield from bands[:done]

    def write(band: _Band, stored: Stored) -> _Band:
        name = band.job.spec.name
        writer_of[name].write(name, band.first, _encode(band, stored))
        return band

    waiting: deque[Future[_Band]] = deque()
    pool = ThreadPoolExecutor(n_threads, "convert")
    try:
        for band in bands[done:]:
            stored = band.job.source.read(band.first, band.last)
            waiting.append(pool.submit(write, band, stored))
            if len(waiting) > 2 * n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _encode(band: _Band, stored: Stored) -> memoryview:
    """The bytes of a band in the tensor's type."""
    job, source = band.job, band.job.source
    # Only the floats show whether scales are finite.
    floats = _floats(source, stored) if stored.dtype == np.uint8 else None
    if not _all_finite(stored if floats is None else floats):
        row, column = np.argwhere(~np.isfinite(_floats(source, stored)))[0]
        raise FormatError(
            f"{job.spec.name}: row {band.first + row}, column {column} is not a finite number: "
            "the checkpoint is damaged; fetch it again"
        )
    if job.spec.dtype == source.dtype and job.addend is None:
        return np.ascontiguousarray(stored).data.cast("B")
    if floats is None:
        floats = _floats(source, stored)
    if job.addend is not None:
        floats = job.addend.add_to(floats, band.first)
        if not _all_finite(floats):
            raise FormatError(f"{job.spec.name}: the sum with what is added is not finite")
    return quantize(job.spec.dtype, floats, job.importance).data.cast("B")


def _all_finite(stored: Stored) -> bool:
    if stored.dtype == np.float32:
        return bool(np.isfinite(stored).all())
    # Halves (and bfloat16) grow as integers do, the sign apart; from here on they are not finite.
    infinity = 0x7F80 if stored.dtype == np.uint16 else 0x7C00
    positive, negative = stored.view(np.int16).max(), stored.view(np.uint16).max()
    return bool(positive < infinity and negative < infinity + 0x8000)


def _floats(source: Rows, stored: Stored) -> Floats:
    if source.dtype == "f32":
        return stored
    shape = (len(stored), source.shape[-1])
    return dequantize(source.dtype, stored, shape[0] * shape[1]).reshape(shape)


def _read_back_all(
    jobs: Sequence[Job],
    writer_of: Mapping[str, GgufStreamWriter],
    n_threads: int,
    *,
    whole: bool,
) -> Iterator[Job]:
    """Yields each tensor once it is known to be right."""
    pool = ThreadPoolExecutor(n_threads, "verify")
    try:
        checks = [
            pool.submit(_read_back, job, writer_of[job.spec.name], whole=whole) for job in jobs
        ]
        for job, check in zip(jobs, checks, strict=True):
            check.result()
            yield job
    finally:
        pool.shutdown(cancel_futures=True)


def _read_back(job: Job, writer: GgufStreamWriter, *, whole: bool) -> None:
    """Compares what lies in the file with the source."""
    spec = job.spec
    if whole:
        bands = [(band.first, band.last) for band in _bands([job])]
    else:
        bands = [(row, row + 1) for row in sorted({0, spec.n_rows - 1})]
    # With importance some columns are given up for others: either way of counting may be the worse.
    weights = [1.0] if job.importance is None else [1.0, job.importance]
    error, energy = np.zeros(len(weights)), np.zeros(len(weights))
    for first, last in bands:
        expected = _floats(job.source, job.source.read(first, last))
        if job.addend is not None:
            expected = job.addend.add_to(expected, first)
        stored = np.frombuffer(writer.read(spec.name, first, last), np.uint8)
        found = dequantize(spec.dtype, stored, expected.size).reshape(expected.shape)
        for i, weight in enumerate(weights):
            error[i] += np.sum(weight * np.square(found - expected), dtype=np.float64)
            energy[i] += np.sum(weight * np.square(expected), dtype=np.float64)
    relative = min(
        (e / total) ** 0.5 if total else float(e > 0)
        for e, total in zip(error, energy, strict=True)
    )
    most = min(4 * _EXPECTED_ERROR[spec.dtype], 0.8)
    if not relative <= most:
        raise FormatError(
            f"{spec.name} does not read back as it was written: its error is {relative:.3g} of "
            f"its size, expected at most {most:.3g} for {spec.dtype}"
        )


def _parts(
    path: Path, metadata: Mapping[str, Value], jobs: Sequence[Job], most: int | None
) -> Iterator[tuple[Path, Mapping[str, Value], list[TensorSpec]]]:
    """Each file's name, metadata and tensors; a file holds at most `most` bytes of tensors."""
    parts: list[list[TensorSpec]] = [[]]
    size = 0
    for job in jobs:
        size += job.spec.n_bytes
        if most is not None and size > most and parts[-1]:
            parts.append([])
            size = job.spec.n_bytes
        parts[-1].append(job.spec)
    if len(parts) == 1:
        yield path, metadata, parts[0]
        return
    for i, specs in enumerate(parts):
        split = {
            "split.no": Typed(i, gguf.GGUFValueType.UINT16),
            "split.count": Typed(len(parts), gguf.GGUFValueType.UINT16),
            "split.tensors.count": Typed(len(jobs), gguf.GGUFValueType.INT32),
        }
        own = metadata if i == 0 else {"general.architecture": metadata["general.architecture"]}
        stem = path.name.removesuffix(".gguf")
        name = path.with_name(f"{stem}-{i + 1:05}-of-{len(parts):05}.gguf")
        yield name, {**own, **split}, specs


def _require_space(path: Path, n_bytes: int, resumed: bool) -> None:
    free = shutil.disk_usage(path.parent).free
    if not resumed and free < n_bytes:
        raise FileError(
            f"{path} needs {n_bytes / 1e9:.2f} GB and {path.parent} has {free / 1e9:.2f} GB free"
        )


class _Journal:
    """`OUT.part.json`: what a run depends on and how many of its bands are safely written."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        part = part_of(path)
        self._path = part.with_name(part.name + ".json")
        self._identity = json.loads(json.dumps(identity))
        self._next = time.monotonic() + _JOURNAL_SECONDS

    def is_due(self) -> bool:
        return time.monotonic() >= self._next

    def write(self, n_bands: int) -> None:
        scratch = self._path.with_name(self._path.name + ".new")
        try:
            scratch.write_text(json.dumps({"bands": n_bands, **self._identity}, indent=1), "utf-8")
            scratch.replace(self._path)
        except OSError as error:
            raise FileError(f"cannot write {self._path}: {error.strerror or error}") from error
        self._next = time.monotonic() + _JOURNAL_SECONDS

    def resumed(self) -> int:
        """Bands that need not be done again; 0 where no run was interrupted."""
        try:
            left = json.loads(self._path.read_text("utf-8"))
            n_bands = left.pop("bands")
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise FormatError(f"{self._path} is damaged; start over without resuming") from error
        for key in {**self._identity, **left}:
            if self._identity.get(key) != left.get(key):
                raise FormatError(
                    f"cannot resume: {key} is {self._identity.get(key)} and was {left.get(key)}; "
                    "start over without resuming"
                )
        return int(n_bands)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
