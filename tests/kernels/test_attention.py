"""Attention over pages of 32 keys and segments of 512, against a float64 softmax."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_oracle import TINY, UNIT, gamma

from pyllamacpp.errors import InvalidArgumentError, UnsupportedError

# A key, the ends of pages, and the ends of segments.
AROUND_PAGES = [1, 2, 31, 32, 33, 63, 64, 65, 95, 96, 97]
AROUND_SEGMENTS = [480, 481, 511, 512, 513, 543, 544, 545, 1023, 1024, 1025, 1030]


def operands(
    seed: int, n_queries: int, head_dim: int, n_tokens: int, scale: float = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    q = (rng.standard_normal((n_queries, head_dim)) * scale / head_dim**0.5).astype(np.float32)
    # Representable as halves, so that the float types of the cache hold them exactly.
    keys = rng.standard_normal((n_tokens, head_dim)).astype(np.float16).astype(np.float32)
    values = (rng.standard_normal((n_tokens, head_dim)) * 2).astype(np.float16).astype(np.float32)
    return q, keys, values


def check_attention(q, keys, values, n_keys, out, first_key=None) -> None:
    """Compares with float64.

    A score is a chain of head_dim multiply-adds; its error and the rounding of its distance from
    the maximum become relative errors of its weight, as do the rescalings of each page. The sums
    over keys are chains again.
    """
    assert out.dtype == np.float32
    assert out.shape == q.shape
    starts = [0] * len(n_keys) if first_key is None else first_key
    for row, (query, start, n) in enumerate(zip(q.astype(np.float64), starts, n_keys, strict=True)):
        k, v = keys[start:n].astype(np.float64), values[start:n].astype(np.float64)
        scores = k @ query
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        score_error = gamma(2 * len(query)) * (np.abs(k) @ np.abs(query)).max()
        pages = n // 32 + 1
        relative = 2 * score_error + 2 * UNIT * np.ptp(scores) + gamma(2 * n + 8 * pages + 16)
        bound = 2 * relative * (weights @ np.abs(v)) + TINY * n
        error = np.abs(out[row] - weights @ v)
        assert np.all(error <= bound), f"query {row} of {n} keys: off by {error}, allowed {bound}"


@pytest.mark.parametrize("n", AROUND_PAGES + AROUND_SEGMENTS)
def test_every_boundary(kernels, n):
    q, keys, values = operands(n, 3, 64, 1030)
    check_attention(q, keys, values, [n] * 3, kernels.attention(q, keys, values, [n] * 3))


@pytest.mark.parametrize("head_dim", [*range(1, 71), 80, 96, 100, 128, 160, 192, 255, 256])
def test_every_head_dim(kernels, head_dim):
    q, keys, values = operands(head_dim, 2, head_dim, 70)
    n_keys = [70, 37]
    check_attention(q, keys, values, n_keys, kernels.attention(q, keys, values, n_keys))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_keys=st.lists(st.integers(1, 300), min_size=1, max_size=20),
    head_dim=st.sampled_from([8, 16, 48, 64, 72, 128]),
    scale=st.sampled_from([0.01, 1.0, 20.0, 300.0]),
)
def test_attention(kernels, seed, n_keys, head_dim, scale):
    q, keys, values = operands(seed, len(n_keys), head_dim, max(n_keys), scale)
    check_attention(q, keys, values, n_keys, kernels.attention(q, keys, values, n_keys))


@pytest.mark.parametrize("n_queries", range(1, 10))
def test_queries_together_are_each_alone(kernels, n_queries):
    """Bitwise, whatever the other queries see and however many keys lie beyond."""
    rng = np.random.default_rng(n_queries)
    for choices in (AROUND_PAGES, AROUND_SEGMENTS, AROUND_PAGES + AROUND_SEGMENTS):
        n_keys = rng.choice(choices, n_queries)
        q, keys, values = operands(n_queries, n_queries, 64, 1030)
        together = kernels.attention(q, keys, values, n_keys)
        check_attention(q, keys, values, n_keys, together)
        for i, n in enumerate(n_keys):
            alone = kernels.attention(q[i : i + 1], keys[:n], values[:n], [n])
            np.testing.assert_array_equal(alone[0], together[i])


def test_a_prompt_token_by_token(kernels):
    """Causal rows in one call, in pieces of any size, and one at a time."""
    q, keys, values = operands(4, 70, 32, 70)
    n_keys = np.arange(1, 71)
    whole = kernels.attention(q, keys, values, n_keys)
    check_attention(q, keys, values, n_keys, whole)
    for size in (1, 3, 8, 9, 32):
        pieces = [
            kernels.attention(q[at : at + size], keys, values, n_keys[at : at + size])
            for at in range(0, 70, size)
        ]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_keys_beyond_do_not_matter(kernels):
    """NaN keys, and values of any finite size, past the last key that a query sees."""
    q, keys, values = operands(6, 2, 40, 600)
    n_keys = [45, 530]
    expected = kernels.attention(q, keys, values, n_keys)
    keys[530:] = np.nan
    values[530:] = 65504
    np.testing.assert_array_equal(kernels.attention(q, keys, values, n_keys), expected)
    values[45:] = -65504
    np.testing.assert_array_equal(kernels.attention(q, keys, values, n_keys)[0], expected[0])


def test_one_key_gives_its_value(kernels):
    q, keys, values = operands(8, 1, 64, 1, 1000)
    out = kernels.attention(q, keys, values, [1])
    np.testing.assert_array_equal(out, values.astype(np.float32))


def test_sharp_attention_takes_the_best_key(kernels):
    """Scores thousands apart, the best one in each place in turn, do not overflow."""
    for n in (40, 530):
        _, keys, values = operands(9, 1, 32, n)
        q = np.zeros((1, 32), np.float32)
        q[0, 0] = 1000
        for at in range(0, n, 13):
            keys[:, 0] = -10
            keys[at, 0] = 10
            out = kernels.attention(q, keys, values, [n])
            np.testing.assert_array_equal(out[0], values[at].astype(np.float32))


def test_tiers_agree(kernels, scalar):
    q, keys, values = operands(10, 4, 64, 1030)
    n_keys = [1030, 513, 512, 31]
    ours = kernels.attention(q, keys, values, n_keys)
    theirs = scalar.attention(q, keys, values, n_keys)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=gamma(2000) * np.abs(values).max())


def test_nan_does_not_go_unseen(kernels):
    q, keys, values = operands(11, 1, 16, 40)
    keys[7, 3] = np.nan
    assert np.isnan(kernels.attention(q, keys, values, [40])).all()


def test_arguments_that_do_not_fit(kernels):
    q, keys, values = operands(0, 2, 16, 5)
    for arguments, message in [
        ((q, keys, values, [1]), "n_keys must be 2 whole numbers"),
        ((q, keys, values, [1.0, 2.0]), "n_keys must be 2 whole numbers"),
        ((q, keys, values, [0, 1]), "n_keys must be 1 to the 5 keys given"),
        ((q, keys, values, [1, 6]), "n_keys must be 1 to the 5 keys given"),
        ((q, keys, values[:4], [1, 1]), "as many values as keys"),
        ((q, keys[:, :8], values[:, :8], [1, 1]), "the same head_dim"),
        ((q, keys.astype(np.float16), values, [1, 1]), "keys has dtype float16, expected float32"),
        ((q[:0], keys, values, np.zeros(0, np.int32)), "at least one query"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            kernels.attention(*arguments)
    wide = operands(0, 1, 257, 2)
    with pytest.raises(InvalidArgumentError, match="head_dim must be 1 to 256"):
        kernels.attention(*wide, [1])


# --- What the cache stores ---


BF16_MOST = np.array(0x7F7F0000, np.uint32).view(np.float32)


def stored(dtype: str, x: np.ndarray) -> np.ndarray:
    """x as a cache of this type holds it, by the definition of its format. Shape [n][head_dim]."""
    if dtype == "f32":
        return x
    if dtype == "f16":  # saturating
        return np.clip(x, -65504, 65504).astype(np.float16).astype(np.float32)
    if dtype == "bf16":  # saturating; to nearest even
        bits = np.clip(x, -BF16_MOST, BF16_MOST).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)
    blocks = x.reshape(len(x), -1, 32)
    if dtype == "q8_0":
        scale = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
        with np.errstate(divide="ignore", invalid="ignore"):
            levels = np.rint(np.where(scale > 0, blocks * (np.float32(1) / scale), 0))
    else:
        assert dtype == "q4_0"
        at = np.abs(blocks).argmax(-1)[..., None]
        scale = np.take_along_axis(blocks, at, -1) / np.float32(-8)
        with np.errstate(divide="ignore", invalid="ignore"):
            levels = np.floor(np.where(scale != 0, blocks / scale, 0) + np.float32(8.5))
        levels = np.clip(levels, 0, 15) - 8
    exact = levels * scale.astype(np.float16).astype(np.float32)
    return exact.reshape(x.shape).astype(np.float32)


def values_back(kernels, dtype: str, x: np.ndarray) -> np.ndarray:
    """Each row of x [n][head_dim] as attention to it alone returns it."""
    zeros = np.zeros_like(x)
    n = np.arange(len(x))
    return kernels.attention(zeros, zeros, x, n + 1, n, type_v=dtype)


def test_types(kernels):
    assert kernels.kv_types() == ["f32", "f16", "bf16", "q8_0", "q4_0"]


def test_halves_are_rounded_as_numpy_rounds(kernels):
    """Ties, their neighbours, subnormals, and saturation above 65504."""
    halves = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float64)
    halves[-1] = 65536  # where the next half would be
    ties = ((halves[1:] + halves[:-1]) / 2).astype(np.float32)
    inf = np.float32(np.inf)
    x = np.concatenate(
        [halves.astype(np.float32), ties, np.nextafter(ties, inf), np.nextafter(ties, -inf), [inf]]
    )
    x = np.concatenate([x, -x])
    x = np.resize(x, (len(x) // 256 + 1, 256)).astype(np.float32)
    np.testing.assert_array_equal(values_back(kernels, "f16", x), stored("f16", x))


def test_bfloats_are_rounded_to_nearest_even(kernels):
    """Ties, their neighbours, subnormals, and saturation above the largest."""
    bits = np.arange(0x7F80, dtype=np.uint32) << 16
    x = np.concatenate([bits, bits + 0x7FFF, bits + 0x8000, bits + 0x8001]).view(np.float32)
    x = np.concatenate([x, -x])
    x = np.resize(x, (len(x) // 256 + 1, 256))
    back = values_back(kernels, "bf16", x)
    # The largest give 0 * x + 1 * x here, which is exact.
    np.testing.assert_array_equal(back, stored("bf16", x))


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 100.0])
def test_values_as_stored(kernels, dtype, scale):
    """Within one level: the kernel's products and quotients round elsewhere than numpy's."""
    x = (np.random.default_rng(3).standard_normal((70, 96)) * scale).astype(np.float32)
    x[5] = 0
    back, expected = values_back(kernels, dtype, x), stored(dtype, x)
    if dtype in ("f32", "f16", "bf16"):
        np.testing.assert_array_equal(back, expected)
        return
    step = np.repeat(np.abs(x.reshape(70, 3, 32)).max(-1) / (127 if dtype == "q8_0" else 8), 32, -1)
    step = step.reshape(x.shape)
    # Half a step, and the scale's own rounding times up to 127 levels, which below 2^-14 is 2^-25.
    # (q4_0 has no level +8: values opposite to the largest may be a whole step off.)
    most = (0.55 if dtype == "q8_0" else 1.01) * step + 127 * 2.0**-25
    assert np.all(np.abs(back - x) <= most)
    off = np.abs(back - expected)
    assert np.all(off <= 1.01 * step)
    assert np.mean(off > 1e-3 * step) < 0.01


@pytest.mark.parametrize("type_k", ["f32", "f16", "bf16", "q8_0", "q4_0"])
@pytest.mark.parametrize("type_v", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_every_pair_of_types(kernels, type_k, type_v):
    """Against the oracle on what the cache holds; keys of one level are looked up as values are."""
    q, keys, values = operands(12, 9, 64, 600)
    n_keys = [600, 1, 31, 32, 33, 512, 513, 599, 45]
    k = values_back(kernels, type_k, keys)
    v = values_back(kernels, type_v, values)
    out = kernels.attention(q, keys, values, n_keys, type_k=type_k, type_v=type_v)
    check_attention(q, k, v, n_keys, out)
    for i, n in enumerate(n_keys):
        alone = kernels.attention(
            q[i : i + 1], keys[:n], values[:n], [n], type_k=type_k, type_v=type_v
        )
        np.testing.assert_array_equal(alone[0], out[i])


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    ranges=st.lists(st.tuples(st.integers(0, 1100), st.integers(1, 700)), min_size=1, max_size=9),
)
def test_windows(kernels, seed, ranges):
    """Any first key; together as alone, bitwise."""
    first = [a for a, _ in ranges]
    n_keys = [a + n for a, n in ranges]
    q, keys, values = operands(seed, len(first), 32, max(n_keys))
    out = kernels.attention(q, keys, values, n_keys, first)
    check_attention(q, keys, values, n_keys, out, first)
    for i in range(len(first)):
        alone = kernels.attention(q[i : i + 1], keys, values, n_keys[i : i + 1], first[i : i + 1])
        np.testing.assert_array_equal(alone[0], out[i])


def test_quantized_types_need_whole_blocks(kernels):
    q, keys, values = operands(0, 1, 40, 3)
    with pytest.raises(InvalidArgumentError, match="multiple of 32"):
        kernels.attention(q, keys, values, [3], type_k="q8_0")
    with pytest.raises(UnsupportedError, match="no KV cache of type"):
        kernels.attention(q, keys, values, [3], type_v="q6_k")
