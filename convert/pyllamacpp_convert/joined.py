"""Tensors made of other tensors: joined, replicated, permuted; read by ranges as these are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyllamacpp.errors import FormatError
from pyllamacpp.kernels import Floats
from pyllamacpp_convert.source import Rows, Stored


@dataclass(frozen=True)
class Stacked:
    """Pieces one below the other: joined on the first dimension."""

    pieces: Sequence[Rows]

    @property
    def shape(self) -> tuple[int, ...]:
        """The sum of rows, the common columns."""
        return (sum(piece.shape[0] for piece in self.pieces), *self.pieces[0].shape[1:])

    @property
    def dtype(self) -> str:
        """That of the pieces."""
        return self.pieces[0].dtype

    def read(self, first: int, last: int) -> Stored:
        """As `Rows.read`; a band may reach over several pieces."""
        parts, start = [], 0
        for piece in self.pieces:
            begin, end = max(first - start, 0), min(last - start, piece.shape[0])
            if begin < end:
                parts.append(piece.read(begin, end))
            start += piece.shape[0]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True)
class SideBySide:
    """Pieces beside each other: joined on the second dimension."""

    pieces: Sequence[Rows]

    @property
    def shape(self) -> tuple[int, ...]:
        """The common rows, the sum of columns."""
        return (self.pieces[0].shape[0], sum(piece.shape[1] for piece in self.pieces))

    @property
    def dtype(self) -> str:
        """That of the pieces."""
        return self.pieces[0].dtype

    def read(self, first: int, last: int) -> Stored:
        """As `Rows.read`; a band of each piece."""
        return np.concatenate([piece.read(first, last) for piece in self.pieces], axis=1)


@dataclass(frozen=True)
class Replicated:
    """The same tensor several times; what is read is compared. name: for the error."""

    name: str
    pieces: Sequence[Rows]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of each piece."""
        return self.pieces[0].shape

    @property
    def dtype(self) -> str:
        """That of the pieces."""
        return self.pieces[0].dtype

    def read(self, first: int, last: int) -> Stored:
        """As `Rows.read`. Raises FormatError where the pieces differ."""
        rows = self.pieces[0].read(first, last)
        for i, piece in enumerate(self.pieces[1:], 1):
            if rows.tobytes() != piece.read(first, last).tobytes():
                raise FormatError(
                    f"{self.name} differs between shards 0 and {i}, which must have the same: "
                    "the shards are of different models"
                )
        return rows


@dataclass(frozen=True)
class Interleaved:
    """Rows of queries or keys, whose heads have the halves of each rotated pair apart (as Hugging
    Face has them), with the pairs side by side (as Meta and GGUF's llama have them).
    """

    source: Rows
    n_heads: int

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the source."""
        return self.source.shape

    @property
    def dtype(self) -> str:
        """That of the source."""
        return self.source.dtype

    def read(self, first: int, last: int) -> Stored:
        """As `Rows.read`. Of each head, row 2 i + j here is row j * head_dim / 2 + i there."""
        head_dim = self.shape[0] // self.n_heads
        half, dtype = head_dim // 2, _DTYPES[self.dtype]
        parts = []
        for head in range(first // head_dim, -(-last // head_dim)):
            start = head * head_dim
            begin, end = max(first - start, 0), min(last - start, head_dim)
            rows = np.empty((end - begin, self.shape[1]), dtype)
            for j in (0, 1):
                low, high = (begin + 1 - j) // 2, (end + 1 - j) // 2
                if low < high:
                    offset = start + j * half
                    rows[2 * low + j - begin :: 2] = self.source.read(offset + low, offset + high)
            parts.append(rows)
        return np.concatenate(parts)


_DTYPES: dict[str, np.dtype[Any]] = {
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(np.uint16),
    "f32": np.dtype(np.float32),
}


@dataclass(frozen=True)
class Vector:
    """Values that are computed, not read."""

    values: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        """[n]"""
        return self.values.shape

    @property
    def dtype(self) -> str:
        """f32"""
        return "f32"

    def read(self, first: int, last: int) -> Stored:
        """As `Rows.read`."""
        return self.values[None][first:last]


def are_equal(a: Rows, b: Rows) -> bool:
    """Whether two tensors hold the same bits; reads as far as they do."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    step = max(1, (1 << 20) // a.shape[-1])
    n_rows = a.shape[0] if len(a.shape) > 1 else 1
    return all(
        a.read(first, min(first + step, n_rows)).tobytes()
        == b.read(first, min(first + step, n_rows)).tobytes()
        for first in range(0, n_rows, step)
    )


def rope_factors(
    head_dim: int,
    theta: float,
    factor: float,
    *,
    context: int = 8192,
    low: float = 1.0,
    high: float = 4.0,
) -> Floats:
    """What each pair's frequency is divided by in LLaMA 3.1's scaled positions, [head_dim / 2].

    Wavelengths beyond context / low are stretched by `factor`, those below context / high are left
    alone, those in between are blended.
    """
    wavelength = 2 * np.pi * theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    smooth = np.clip((context / wavelength - low) / (high - low), 0, 1)
    return (1 / (smooth + (1 - smooth) / factor)).astype(np.float32)
