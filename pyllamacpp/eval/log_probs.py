"""Files of log-probabilities, and how far another model's are from them.

A file is what one run of `perplexity` predicted at every scored position; docs/formats.md has the
layout. Two bytes per token of the vocabulary and position: float16 keeps a log-probability of -2
to 0.001, of -20 to 0.008, which changes a divergence by some 1e-7.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import os
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from ..errors import FileError, FormatError, InvalidArgumentError

MAGIC = b"PYLLPROB"
_VERSION = 1
_LONGEST_HEADER = 1 << 16

LogProbs = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """What was predicted: two files compare only where all of this is the same.

    tokens_sha256: of the token ids of all windows as little-endian int32.
    """

    n_vocab: int
    n_ctx: int
    n_windows: int
    tokens_sha256: str

    @classmethod
    def of(cls, tokens: Sequence[int], n_ctx: int, n_vocab: int) -> Scored:
        """The description of `tokens`, cut into whole windows of n_ctx."""
        n_windows = len(tokens) // n_ctx
        ids = np.asarray(tokens[: n_windows * n_ctx], "<i4")
        return cls(n_vocab, n_ctx, n_windows, hashlib.sha256(ids.tobytes()).hexdigest())

    @property
    def n_rows(self) -> int:
        """Scored positions of all windows."""
        return self.n_windows * (self.n_ctx - 1 - self.n_ctx // 2)


class LogProbWriter:
    """Writes a file row by row; it gets its name when the last row is there.

    Leaving the `with` block earlier removes what was written. Raises FileError.
    """

    def __init__(self, path: str | os.PathLike[str], scored: Scored) -> None:
        self._path = Path(path)
        self._part = self._path.with_name(self._path.name + ".part")
        self._left = scored.n_rows
        header = json.dumps({"version": _VERSION, **asdict(scored)}).encode()
        try:
            self._file = self._part.open("wb")
            self._file.write(MAGIC + struct.pack("<I", len(header)) + header)
        except OSError as error:
            raise FileError(f"cannot write {self._part}: {error.strerror}") from error

    def add(self, rows: LogProbs, _targets: Sequence[int] = ()) -> None:
        """Appends rows [n, n_vocab] of log-probabilities."""
        try:
            self._file.write(rows.astype("<f2").tobytes())
        except OSError as error:
            raise FileError(f"cannot write {self._part}: {error.strerror}") from error
        self._left -= len(rows)

    def __enter__(self) -> LogProbWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the file and, if it is whole, names it."""
        self._file.close()
        if self._left == 0:
            self._part.replace(self._path)
        else:
            self._part.unlink()


class LogProbReader:
    """Reads a file from its first row to its last; a context manager that closes it.

    Raises FileError, and FormatError for a file that is not one of these or not whole.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        try:
            self._file = self._path.open("rb")
            size = self._path.stat().st_size
        except OSError as error:
            raise FileError(f"cannot read {self._path}: {error.strerror}") from error
        try:
            self.scored = self._read_header()
            expected = self._file.tell() + self.scored.n_rows * self.scored.n_vocab * 2
            if size != expected:
                raise FormatError(f"{self._path} has {size} bytes, expected {expected}")
        except BaseException:
            self._file.close()
            raise

    def _read_header(self) -> Scored:
        start = self._file.read(len(MAGIC) + 4)
        if len(start) < len(MAGIC) + 4 or not start.startswith(MAGIC):
            raise FormatError(f"{self._path} is not a file of --save-logits")
        (length,) = struct.unpack("<I", start[len(MAGIC) :])
        try:
            if length > _LONGEST_HEADER:
                raise ValueError
            fields = json.loads(self._file.read(length))
            if fields.pop("version") != _VERSION:
                raise ValueError
            scored = Scored(**fields)
            for size in (scored.n_vocab, scored.n_ctx, scored.n_windows):
                if operator.index(size) not in range(1, 1 << 31):
                    raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise FormatError(f"{self._path} has a header this version cannot read") from error
        return scored

    def check(self, scored: Scored) -> None:
        """Raises InvalidArgumentError unless the file predicts just `scored`."""
        for name, what in (
            ("n_vocab", "a vocabulary of {} tokens"),
            ("n_ctx", "windows of {} tokens"),
            ("n_windows", "{} windows"),
        ):
            theirs, ours = getattr(self.scored, name), getattr(scored, name)
            if theirs != ours:
                raise InvalidArgumentError(
                    f"{self._path} was made with {what.format(theirs)}, this run has {ours}"
                )
        if self.scored.tokens_sha256 != scored.tokens_sha256:
            raise InvalidArgumentError(f"{self._path} was made from another text or tokenizer")

    def read(self, n: int) -> LogProbs:
        """The next n rows, normalized: [n, n_vocab]."""
        raw = self._file.read(n * self.scored.n_vocab * 2)
        if len(raw) != n * self.scored.n_vocab * 2:
            raise FormatError(f"{self._path} ended early: it changed while it was read")
        rows = np.frombuffer(raw, "<f2").astype(np.float64).reshape(n, -1)
        normalized: LogProbs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
        return normalized

    def __enter__(self) -> LogProbReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@dataclass(frozen=True)
class Divergence:
    """KL divergence in nats of a model's predictions from those in a file, over all positions.

    error: the standard error of mean. base_ppl: the perplexity of the file's own predictions.
    top1_agreement: the share of positions with the same most probable token.
    """

    mean: float
    error: float
    median: float
    percentile_99: float
    most: float
    top1_agreement: float
    base_ppl: float


class DivergenceMeter:
    """Compares a run, row by row in the order of the file, with a file."""

    def __init__(self, base: LogProbReader) -> None:
        self._base = base
        self._divergences: list[npt.NDArray[np.float64]] = []
        self._losses: list[npt.NDArray[np.float64]] = []
        self._agreed = 0

    def add(self, log_probs: LogProbs, targets: Sequence[int]) -> None:
        """Rows [n, n_vocab] of the run, and the n tokens that really follow."""
        base = self._base.read(len(targets))
        self._divergences.append((np.exp(base) * (base - log_probs)).sum(axis=1))
        self._losses.append(-base[np.arange(len(targets)), list(targets)])
        self._agreed += int((base.argmax(axis=1) == log_probs.argmax(axis=1)).sum())

    def result(self) -> Divergence:
        """The figures over all rows added."""
        every = np.concatenate(self._divergences)
        error = float(every.std(ddof=1)) / math.sqrt(every.size) if every.size > 1 else 0.0
        median, percentile_99 = np.quantile(every, [0.5, 0.99])
        return Divergence(
            mean=float(every.mean()),
            error=error,
            median=float(median),
            percentile_99=float(percentile_99),
            most=float(every.max()),
            top1_agreement=self._agreed / every.size,
            base_ppl=math.exp(float(np.concatenate(self._losses).mean())),
        )
