"""Norm, RoPE, SwiGLU, softmax, sums, conversions and argmax on every tier."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_oracle import FLOAT_MAX, TINY, UNIT, gamma

from pyllamacpp.errors import InvalidArgumentError

# Tails of four, eight and sixteen lanes, and a few whole vectors.
LENGTHS = [*range(1, 71), 127, 128, 1000]
SEEDS = st.integers(0, 2**32 - 1)
SMALLEST_NORMAL = 2.0**-126


def vector(seed: int, n: int, scale: float = 1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(n) * scale).astype(np.float32)


def within(y: np.ndarray, expected: np.ndarray, bound: np.ndarray) -> None:
    assert y.dtype == np.float32
    error = np.abs(y.astype(np.float64) - expected)
    assert np.all(error <= bound), (
        f"worst at {np.argmax(error - bound)}: got {y}, expected {expected} +- {bound}"
    )


# --- RMSNorm: the sum of squares is positive terms, so its relative error is the chain's. ---


def check_rms_norm(kernels, x: np.ndarray, weight: np.ndarray, eps: float) -> None:
    wide = x.astype(np.float64)
    expected = wide * weight / np.sqrt(np.mean(wide**2) + np.float32(eps))
    # At least eight partial sums of two roundings a step; half of that survives the root.
    relative = gamma(len(x) / 8 + 8) / 2 + gamma(6)
    within(kernels.rms_norm(x, weight, eps), expected, relative * np.abs(expected) + TINY)


@pytest.mark.parametrize("n", LENGTHS)
def test_rms_norm_of_every_length(kernels, n):
    check_rms_norm(kernels, vector(n, n, 10), vector(n + 1, n), 1e-5)


@settings(max_examples=50)
@given(
    seed=SEEDS,
    n=st.integers(1, 600),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e4, 1e15]),
    eps=st.sampled_from([1e-6, 1e-5, 1.0]),
)
def test_rms_norm(kernels, seed, n, scale, eps):
    check_rms_norm(kernels, vector(seed, n, scale), vector(seed + 1, n), eps)


def test_rms_norm_of_zeros_is_zero(kernels):
    zeros = np.zeros(33, np.float32)
    np.testing.assert_array_equal(kernels.rms_norm(zeros, vector(0, 33), 1e-5), zeros)


# --- RoPE ---


@pytest.mark.parametrize("n", [*range(2, 72, 2), 80, 96, 128, 256])
def test_rope(kernels, n):
    x = vector(n, n)
    angles = np.random.default_rng(n).uniform(-1e3, 1e3, n // 2)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    a, b = x[: n // 2].astype(np.float64), x[n // 2 :].astype(np.float64)
    expected = np.concatenate([a * cos - b * sin, a * sin + b * cos])
    # A rounding of each product and one of their sum.
    size = np.concatenate([abs(a * cos) + abs(b * sin), abs(a * sin) + abs(b * cos)])
    halves = kernels.rope(x, cos, sin, halves=True)
    within(halves, expected, gamma(2) * size + TINY)

    interleaved = np.stack([x[: n // 2], x[n // 2 :]], 1).reshape(-1)
    rotated = kernels.rope(interleaved, cos, sin, halves=False)
    np.testing.assert_array_equal(rotated.reshape(-1, 2).T.reshape(-1), halves)


def test_rope_arguments(kernels):
    ones = np.ones(300, np.float32)
    with pytest.raises(InvalidArgumentError, match="x has 3 values, expected an even number"):
        kernels.rope(ones[:3], ones[:1], ones[:1], halves=True)
    with pytest.raises(InvalidArgumentError, match="at most 256"):
        kernels.rope(ones[:258], ones[:129], ones[:129], halves=False)
    with pytest.raises(InvalidArgumentError, match="sin has 1 values, expected 2"):
        kernels.rope(ones[:4], ones[:2], ones[:1], halves=False)


# --- exp, seen through softmax and SwiGLU. It is good to about 2 ulp = 4 u. ---


def check_softmax(kernels, x: np.ndarray) -> None:
    shifted = x.astype(np.float64) - x.max()
    weights = np.exp(shifted)
    expected = weights / weights.sum()
    # x - max is rounded, which exp turns into a relative error.
    of_exp = gamma(6) + UNIT * np.abs(shifted)
    of_sum = (of_exp * weights).sum() / weights.sum() + gamma(len(x) / 4 + 6)
    # exp gives 0 below the smallest normal number.
    bound = (of_exp + of_sum + gamma(3)) * expected + SMALLEST_NORMAL
    within(kernels.softmax(x), expected, bound)


@pytest.mark.parametrize("n", LENGTHS)
def test_softmax_of_every_length(kernels, n):
    check_softmax(kernels, vector(n, n, 5))


@settings(max_examples=50)
@given(
    seed=SEEDS,
    n=st.integers(1, 600),
    scale=st.sampled_from([1e-6, 1.0, 30.0, 1e3]),
    shift=st.sampled_from([0.0, -1e4, 1e4, 3e37]),
)
def test_softmax(kernels, seed, n, scale, shift):
    check_softmax(kernels, vector(seed, n, scale) + np.float32(shift))


def test_exp_over_its_range(kernels):
    """exp(x) / (1 + exp(x)) of the second of two values, for x from 0 to underflow."""
    for x in np.linspace(-100, 0, 4001).astype(np.float32):
        check_softmax(kernels, np.array([0, x], np.float32))


def test_softmax_at_the_extremes(kernels):
    inf, nan = np.float32(np.inf), np.float32(np.nan)
    for n in (2, 3, 7, 8, 9, 16, 17, 33):
        x = np.zeros(n, np.float32)
        for at in {0, n // 2, n - 1}:
            # Minus infinity is a key that nobody sees.
            x[at] = -inf
            expected = np.where(x == 0, np.float32(1 / (n - 1)), np.float32(0))
            within(kernels.softmax(x), expected, gamma(8) * expected)
            # NaN and plus infinity do not go unseen.
            for bad in (nan, inf):
                x[at] = bad
                assert np.isnan(kernels.softmax(x)).all()
            x[at] = 0
        assert np.isnan(kernels.softmax(np.full(n, -inf))).all()
        # The largest finite values do not overflow.
        x[:] = -FLOAT_MAX
        x[n - 1] = FLOAT_MAX
        assert kernels.softmax(x).tolist() == [0.0] * (n - 1) + [1.0]
    assert kernels.softmax(np.full(1, 88, np.float32)) == [1]


def check_swiglu(kernels, gate: np.ndarray, up: np.ndarray) -> None:
    wide = gate.astype(np.float64)
    # exp(-gate) as gate * sigmoid, without overflow in float64.
    expected = wide * np.exp(-np.logaddexp(0, -wide)) * up
    # exp stops at FLOAT_MAX, and goes to 0 below the smallest normal number.
    slack = np.abs(wide) * 1.01 / FLOAT_MAX * np.abs(up) + SMALLEST_NORMAL
    within(kernels.swiglu(gate, up), expected, gamma(10) * np.abs(expected) + slack)


@pytest.mark.parametrize("n", LENGTHS)
def test_swiglu_of_every_length(kernels, n):
    check_swiglu(kernels, vector(n, n, 4), vector(n + 1, n))


def test_swiglu_over_the_range_of_exp(kernels):
    gate = np.linspace(-120, 120, 48001).astype(np.float32)
    edges = [0.0, -0.0, 100, -100, 87.3, -87.3, 88.7, -88.7, 88.8, -88.8, 1e4, -1e4, 1e30, -1e30]
    gate = np.concatenate([gate, np.array(edges, np.float32)])
    check_swiglu(kernels, gate, np.ones_like(gate))


def test_swiglu_at_the_extremes(kernels):
    inf = np.float32(np.inf)
    for at in (0, 4, 8, 16, 20):
        gate = np.ones(21, np.float32)
        gate[at] = inf
        assert kernels.swiglu(gate, np.ones_like(gate))[at] == inf
        gate[at] = np.nan
        y = kernels.swiglu(gate, np.ones_like(gate))
        assert np.isnan(y[at])
        assert np.isfinite(np.delete(y, at)).all()


# --- Sums and products are single float32 operations, so numpy gives the same bits. ---

SPECIAL = np.array([0.0, -0.0, 1e-45, -1e-38, 3e38, -3e38, np.inf, -np.inf, np.nan], np.float32)


@pytest.mark.parametrize("n", LENGTHS)
def test_add_and_scale(kernels, n):
    rng = np.random.default_rng(n)
    a, b = vector(n, n, 1e3), vector(n + 1, n)
    at = rng.integers(0, n, n // 3)
    a[at] = rng.choice(SPECIAL, len(at))
    b[at] = rng.choice(SPECIAL, len(at))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(kernels.add(a, b), a + b)
        for factor in (0.3, -2.0, 0.0, 1e-30, 1e30):
            np.testing.assert_array_equal(kernels.scale(a, factor), a * np.float32(factor))


# --- argmax ---


def test_argmax_of_every_length_and_place(kernels):
    for n in range(1, 71):
        x = vector(n, n)
        for at in range(n):
            x[at], before = 9, x[at]
            assert kernels.argmax(x) == at
            x[at] = before


@settings(max_examples=100)
@given(
    values=st.lists(
        st.sampled_from([0.0, 1.0, -1.0, 2.0, -math.inf, math.inf, math.nan]), min_size=1
    )
)
def test_argmax_takes_the_first_and_never_nan(kernels, values):
    numbers = [v for v in values if not math.isnan(v)]
    expected = values.index(max(numbers)) if numbers else 0
    assert kernels.argmax(np.array(values, np.float32)) == expected


def test_argmax_of_a_whole_vocabulary(kernels):
    x = vector(0, 128_256)
    assert kernels.argmax(x) == np.argmax(x)
    x[100_000] = x[128_255] = 50
    assert kernels.argmax(x) == 100_000


# --- Arguments ---


def test_arguments_that_do_not_fit(kernels):
    x, y = np.ones(3, np.float32), np.ones(4, np.float32)
    for call, name in [
        (lambda: kernels.rms_norm(x, y, 1e-5), "weight"),
        (lambda: kernels.swiglu(x, y), "up"),
        (lambda: kernels.add(x, y), "b"),
    ]:
        with pytest.raises(InvalidArgumentError, match=f"{name} has 4 values, expected 3"):
            call()
    for function in (kernels.softmax, kernels.argmax):
        with pytest.raises(InvalidArgumentError, match="x is empty"):
            function(x[:0])
        with pytest.raises(InvalidArgumentError, match="x has dtype float64, expected float32"):
            function(x.astype(np.float64))
        with pytest.raises(InvalidArgumentError, match="x has 2 dimensions, expected 1"):
            function(x[None])


def test_arguments_are_left_alone(kernels):
    x, ones = vector(0, 64), np.ones(64, np.float32)
    before = x.copy()
    kernels.softmax(x)
    kernels.add(x, ones)
    kernels.scale(x, 2)
    kernels.rope(x, ones[:32], ones[:32], halves=True)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(kernels.softmax(np.repeat(x, 2)[::2]), kernels.softmax(x))
