"""Attention over pages of 32 keys and segments of 512, against a float64 softmax."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_oracle import TINY, UNIT, gamma

from pyllamacpp.errors import InvalidArgumentError

# A key, the ends of pages, and the ends of segments.
AROUND_PAGES = [1, 2, 31, 32, 33, 63, 64, 65, 95, 96, 97]
AROUND_SEGMENTS = [480, 481, 511, 512, 513, 543, 544, 545, 1023, 1024, 1025, 1030]


def operands(
    seed: int, n_queries: int, head_dim: int, n_tokens: int, scale: float = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    q = (rng.standard_normal((n_queries, head_dim)) * scale / head_dim**0.5).astype(np.float32)
    keys = rng.standard_normal((n_tokens, head_dim)).astype(np.float16)
    values = (rng.standard_normal((n_tokens, head_dim)) * 2).astype(np.float16)
    return q, keys, values


def check_attention(q, keys, values, n_keys, out) -> None:
    """Compares with float64.

    A score is a chain of head_dim multiply-adds; its error and the rounding of its distance from
    the maximum become relative errors of its weight, as do the rescalings of each page. The sums
    over keys are chains again.
    """
    assert out.dtype == np.float32
    assert out.shape == q.shape
    for row, (query, n) in enumerate(zip(q.astype(np.float64), n_keys, strict=True)):
        k, v = keys[:n].astype(np.float64), values[:n].astype(np.float64)
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
        ((q, keys.astype(np.float32), values, [1, 1]), "keys has dtype float32, expected float16"),
        ((q[:0], keys, values, np.zeros(0, np.int32)), "at least one query"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            kernels.attention(*arguments)
    wide = operands(0, 1, 257, 2)
    with pytest.raises(InvalidArgumentError, match="head_dim must be 1 to 256"):
        kernels.attention(*wide, [1])
