"""Tensors joined, replicated and interleaved, against numpy on the whole; bands of any size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from checkpoints import halves_apart
from hypothesis import given
from hypothesis import strategies as st
from pyllamacpp_convert.joined import (
    Interleaved,
    Replicated,
    SideBySide,
    Stacked,
    are_equal,
    rope_factors,
)
from pyllamacpp_convert.source import Rows, Stored

from pyllamacpp.errors import FormatError


@dataclass
class InMemory:
    stored: Stored
    dtype: str = "f16"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stored.shape

    def read(self, first: int, last: int) -> Stored:
        assert 0 <= first < last <= len(np.atleast_2d(self.stored))
        return np.atleast_2d(self.stored)[first:last].copy()


def numbers(rows: int, columns: int) -> np.ndarray:
    return np.arange(rows * columns, dtype=np.float16).reshape(rows, columns)


def in_bands(rows: Rows, step: int) -> np.ndarray:
    n = rows.shape[0]
    return np.concatenate([rows.read(i, min(i + step, n)) for i in range(0, n, step)])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=16), st.integers(1, 5), st.integers(1, 40))
def test_stacked(heights: list[int], columns: int, step: int) -> None:
    whole = numbers(sum(heights), columns)
    pieces = np.split(whole, np.cumsum(heights)[:-1])
    joined = Stacked([InMemory(piece) for piece in pieces])
    assert joined.shape == whole.shape
    np.testing.assert_array_equal(in_bands(joined, step), whole)


@given(st.integers(1, 9), st.lists(st.integers(1, 5), min_size=1, max_size=16), st.integers(1, 10))
def test_side_by_side(rows: int, widths: list[int], step: int) -> None:
    whole = numbers(rows, sum(widths))
    pieces = np.split(whole, np.cumsum(widths)[:-1], axis=1)
    joined = SideBySide([InMemory(piece) for piece in pieces])
    assert joined.shape == whole.shape
    np.testing.assert_array_equal(in_bands(joined, step), whole)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 3), st.integers(1, 40))
def test_interleaved(n_heads: int, half: int, columns: int, step: int) -> None:
    whole = numbers(n_heads * 2 * half, columns)
    rows = Interleaved(InMemory(halves_apart(whole, n_heads)), n_heads)
    assert rows.shape == whole.shape
    np.testing.assert_array_equal(in_bands(rows, step), whole)


def test_replicas_are_compared() -> None:
    same, other = numbers(3, 4), numbers(3, 4)
    other[2, 1] += 1
    assert np.array_equal(in_bands(Replicated("w", [InMemory(same)] * 3), 2), same)
    unlike = Replicated("w", [InMemory(same), InMemory(other)])
    unlike.read(0, 2)
    with pytest.raises(FormatError, match="w differs between shards 0 and 1"):
        unlike.read(2, 3)
    assert are_equal(InMemory(same), InMemory(same.copy()))
    assert not are_equal(InMemory(same), InMemory(other))
    assert not are_equal(InMemory(same), InMemory(same[:2]))
    assert not are_equal(InMemory(same), InMemory(same, "f32"))


def test_rope_factors() -> None:
    factors = rope_factors(128, 500000.0, 8.0)
    assert factors.shape == (64,)
    assert factors[0] == 1
    assert factors[-1] == 8
    assert (np.diff(factors) >= 0).all()
    # Of the blended ones, Meta's rule with the wavelength written out.
    frequency = 500000.0 ** (-2 * 30 / 128)
    smooth = (8192 / (2 * np.pi / frequency) - 1) / 3
    assert 0 < smooth < 1
    expected = frequency / ((1 - smooth) * frequency / 8 + smooth * frequency)
    assert abs(factors[30] - expected) < 1e-6
