"""Each step of the sampler against its definition in numpy float64, through `probabilities`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pyllamacpp import InvalidArgumentError, _core

Array = np.ndarray[Any, np.dtype[np.float64]]

LOGITS = st.tuples(st.integers(1, 150), st.integers(0, 2**32 - 1), st.floats(0.1, 6)).map(
    lambda v: (np.random.default_rng(v[1]).standard_normal(v[0]) * v[2]).astype(np.float32)
)


def sampler(pieces: list[bytes] | None = None, **values: Any) -> _core.Sampler:
    """Nothing is on but what is given."""
    off = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    return _core.Sampler(_core.SamplingParams(**{**off, **values}), pieces or [])


def softmax(x: Array) -> Array:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def kept(x: Array, mask: Array) -> Array:
    return softmax(np.where(mask, x, -np.inf))


def far(values: Array, threshold: float) -> None:
    """Leaves out cases in which rounding could move a value over the threshold."""
    assume(np.all(np.abs(values - threshold) > 1e-4 * max(1.0, abs(threshold))))


def check(found: Array, expected: Array) -> None:
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-9)


@given(LOGITS, st.floats(0.2, 4))
def test_top_n_sigma(logits: Array, n: float) -> None:
    x = logits.astype(np.float64)
    least = x.max() - n * x.std()
    far(x, least)
    check(sampler(top_n_sigma=n).probabilities(logits), kept(x, x >= least))


@given(LOGITS, st.floats(0.1, 2), st.floats(0.05, 2), st.floats(0.2, 3))
def test_dynamic_temperature(logits: Array, t: float, width: float, exponent: float) -> None:
    assume(len(logits) > 1)
    x = logits.astype(np.float64)
    p = softmax(x)
    share = -(p * np.log(p)).sum() / math.log(len(p))
    low = max(0.0, t - width)
    temperature = low + (t + width - low) * min(share, 1.0) ** exponent
    assume(temperature > 0.05)
    found = sampler(temperature=t, dynatemp_range=width, dynatemp_exponent=exponent)
    np.testing.assert_allclose(
        found.probabilities(logits), softmax(x / temperature), rtol=5e-3, atol=1e-6
    )


@given(LOGITS, st.floats(0.01, 0.5))
def test_xtc(logits: Array, threshold: float) -> None:
    x = logits.astype(np.float64)
    p = softmax(x)
    far(p, threshold)
    likely = np.flatnonzero(p >= threshold)
    mask = np.ones(len(p), bool)
    if len(likely):
        mask[likely] = False
        mask[min(likely, key=lambda i: p[i])] = True
    found = sampler(xtc_probability=1.0, xtc_threshold=threshold).probabilities(logits)
    check(found, kept(x, mask))


def test_xtc_is_taken_as_often_as_asked() -> None:
    logits = np.zeros(2, np.float32)
    logits[0] = 1
    draws = sampler(xtc_probability=0.3, xtc_threshold=0.2, seed=5)
    n = 5000
    taken = 0
    for _ in range(n):
        taken += draws.probabilities(logits)[0] == 0
        draws.sample(logits)
    assert abs(taken - 0.3 * n) < 5 * math.sqrt(n * 0.3 * 0.7)


@given(LOGITS, st.floats(0.05, 0.95))
def test_typical_and_nucleus(logits: Array, share: float) -> None:
    x = logits.astype(np.float64)
    p = softmax(x)
    surprise = -np.log(p)
    distance = np.abs(surprise - (p * surprise).sum())
    assume(len(x) == 1 or np.diff(np.sort(distance)).min() > 1e-5)
    for name, order in (("typical_p", np.argsort(distance)), ("top_p", np.argsort(-p))):
        sums = np.cumsum(p[order])
        far(sums, share)
        mask = np.zeros(len(p), bool)
        mask[order[: np.searchsorted(sums, share) + 1]] = True
        check(sampler(**{name: share}).probabilities(logits), kept(x, mask))


@given(LOGITS, st.floats(0.05, 0.98))
def test_tail_free(logits: Array, z: float) -> None:
    x = logits.astype(np.float64)
    order = np.argsort(-x, kind="stable")
    bends = np.abs(np.diff(softmax(x)[order], 2))
    n = len(x)
    if n > 2:
        assume(bends.sum() > 1e-3)
        shares = np.cumsum(bends) / bends.sum()
        far(shares, z)
        n = max(int(np.argmax(shares > z)), 1)
    mask = np.zeros(len(x), bool)
    mask[order[:n]] = True
    check(sampler(tfs_z=z).probabilities(logits), kept(x, mask))
    check(sampler(tfs_z=1.0).probabilities(logits), softmax(x))


def test_where_all_are_alike_there_is_no_tail() -> None:
    alike = np.full(9, 1.5, np.float32)
    check(sampler(tfs_z=0.1).probabilities(alike), np.full(9, 1 / 9))
    # The probabilities 0.8, 0.1, 0.1 bend once.
    logits = np.log(np.array([0.8, 0.1, 0.1], np.float32))
    check(sampler(tfs_z=0.9).probabilities(logits), np.array([1.0, 0.0, 0.0]))


@pytest.mark.parametrize("mode", [1, 2])
@given(LOGITS, st.floats(0.5, 6), st.floats(0.05, 0.5), st.integers(0, 2**32))
def test_mirostat(mode: int, logits: Array, tau: float, eta: float, seed: int) -> None:
    x = logits.astype(np.float64)
    p = softmax(x)
    order = np.argsort(-p, kind="stable")
    ours = sampler(mirostat_mode=mode, mirostat_tau=tau, mirostat_eta=eta, seed=seed)
    mu = 2 * tau
    for _ in range(5):
        if mode == 1:
            best = np.log(p[order[:100]])
            t = np.log(np.arange(2, len(best) + 1) / np.arange(1, len(best)))
            assume(len(x) > 2)
            s = (t * -np.diff(best)).sum() / (t * t).sum()
            k = (((s - 1) * 2**mu) / (1 - len(x) ** -(s - 1))) ** (1 / s)
            assume(abs(k - round(k)) > 1e-2)
            n = max(int(min(k, len(x))), 1)
        else:
            surprise = -np.log2(p[order])
            far(surprise, mu)
            n = max(int((surprise <= mu).sum()), 1)
        mask = np.zeros(len(p), bool)
        mask[order[:n]] = True
        expected = kept(x, mask)
        check(ours.probabilities(logits), expected)
        mu -= eta * (-math.log2(expected[ours.sample(logits)]) - tau)


@given(LOGITS, st.floats(0, 1), st.floats(0, 0.98), st.integers(0, 2**32))
def test_adaptive_p(logits: Array, target: float, decay: float, seed: int) -> None:
    p = softmax(logits.astype(np.float64))
    ours = sampler(adaptive_target=target, adaptive_decay=decay, seed=seed)
    drawn, n = target / (1 - decay), 1 / (1 - decay)
    for _ in range(5):
        wanted = min(max(2 * target - drawn / n, 0.0), 1.0)
        distance = np.abs(p - wanted) / 0.3
        expected = softmax(-10 * distance**2 / (1 + distance))
        np.testing.assert_allclose(ours.probabilities(logits), expected, rtol=1e-3, atol=1e-9)
        drawn, n = p[ours.sample(logits)] + decay * drawn, 1 + decay * n


def test_adaptive_p_comes_near_its_target() -> None:
    logits = np.log(np.array([0.6, 0.25, 0.1, 0.05], np.float32))
    for target in (0.15, 0.3, 0.5):
        draws = sampler(adaptive_target=target, seed=1)
        found = [math.exp(logits[draws.sample(logits)]) for _ in range(3000)]
        assert abs(np.mean(found) - target) < 0.08
    # A token that is out stays out, however near the target it is.
    only = sampler(adaptive_target=0.0, logit_bias=[(0, math.inf)])
    assert only.probabilities(np.zeros(3, np.float32)).tolist() == [1, 0, 0]
    assert sampler(adaptive_target=0.0, temperature=0.0).sample(logits) == 0


def dry_lengths(history: list[int], limit: int) -> dict[int, int]:
    """Token to the longest end of `history` that it has followed, by comparing slices."""
    lengths: dict[int, int] = {}
    for end in range(1, len(history)):
        n = 0
        while n < min(end, limit) and history[end - 1 - n] == history[-1 - n]:
            n += 1
        lengths[history[end]] = max(n, lengths.get(history[end], 0))
    return lengths


PIECES = [b"a", b"b", b"xy", b"yx", b"\n", b"x", b"", "é".encode()[:1], "é".encode()[1:], b"yab"]


@given(
    st.lists(st.integers(0, 9), max_size=60),
    st.integers(0, 4),
    st.sampled_from([-1, 0, 1, 7, 30]),
    st.lists(st.sampled_from(["\n", "xyx", "yy", "é", "ab", "xyab"]), max_size=3),
)
def test_dry(history: list[int], allowed: int, last_n: int, breakers: list[str]) -> None:
    x = np.linspace(-1, 1, 10)
    window = history if last_n < 0 else history[len(history) - min(last_n, len(history)) :]
    text, ends = b"", []
    for token in history:
        text += PIECES[token]
        ends.append(len(text))
    found = [
        at + len(data)
        for data in (breaker.encode() for breaker in breakers)
        for at in range(len(text))
        if text.startswith(data, at)
    ]
    # Tokens after the one in which the last breaker ends.
    limit = sum(end > max(found) for end in ends) if found else len(history)
    if found and limit < len(history):
        limit -= ends[len(ends) - 1 - limit] < max(found)
    limit = min(limit, len(window))
    expected = x.copy()
    if limit >= allowed:
        for token, n in dry_lengths(window, limit).items():
            if n >= allowed:
                expected[token] -= 0.8 * 1.75 ** (n - allowed)
    ours = sampler(
        PIECES,
        dry_multiplier=0.8,
        dry_allowed_length=allowed,
        dry_penalty_last_n=last_n,
        dry_sequence_breakers=breakers,
    )
    check(ours.probabilities(x.astype(np.float32), history), softmax(expected))


def test_the_order_is_honoured() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2], np.float32))
    # Hot first, then the nucleus of the flat distribution; or the other way round.
    first = sampler(temperature=100.0, top_p=0.6, samplers=["temp", "top-p"])
    second = sampler(temperature=100.0, top_p=0.6, samplers=["top_p", "temperature"])
    assert (first.probabilities(logits) > 0).tolist() == [True, True, False]
    third = sampler(temperature=100.0, top_p=0.45, samplers=["temp", "top_p"])
    fourth = sampler(temperature=100.0, top_p=0.45, samplers=["top_p", "temp"])
    assert (second.probabilities(logits) > 0).tolist() == [True, True, False]
    assert (third.probabilities(logits) > 0).sum() == 2
    assert (fourth.probabilities(logits) > 0).sum() == 1
    # What is not listed is left out.
    check(sampler(temperature=0.0, top_k=1, samplers=[]).probabilities(logits), np.exp(logits))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mirostat_mode", 3),
        ("mirostat_tau", -1.0),
        ("mirostat_eta", math.nan),
        ("dynatemp_range", -0.5),
        ("dynatemp_exponent", math.inf),
        ("dry_multiplier", -1.0),
        ("dry_base", 0.9),
        ("dry_allowed_length", -1),
        ("dry_sequence_breakers", [""]),
        ("xtc_probability", 1.5),
        ("xtc_threshold", -0.1),
        ("top_n_sigma", math.nan),
        ("tfs_z", math.nan),
        ("adaptive_target", 1.5),
        ("adaptive_decay", 1.0),
        ("samplers", ["top_k", "tail"]),
    ],
)
def test_out_of_range(name: str, value: object) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        sampler(**{name: value})


@pytest.mark.parametrize(
    "on",
    [
        {},
        {"temperature": 0.0},
        {"top_n_sigma": 1.0},
        {"mirostat_mode": 1},
        {"mirostat_mode": 2},
        {"dynatemp_range": 0.5},
        {"xtc_probability": 1.0},
        {"tfs_z": 0.5},
        {"adaptive_target": 0.3},
        {"typical_p": 0.5},
        {"top_p": 0.5},
    ],
)
def test_extremes(on: dict[str, Any]) -> None:
    assert sampler(**on).sample(np.zeros(1, np.float32)) == 0
    one = np.full(40, -np.inf, np.float32)
    one[17] = -3
    assert sampler(**on).sample(one) == 17
    assert 0 <= sampler(**on).sample(np.full(300, 2.5, np.float32)) < 300
    for bad in (np.full(5, -np.inf), np.array([0, np.nan, 1]), np.array([0, np.inf]), np.zeros(0)):
        with pytest.raises(InvalidArgumentError, match="no token can be sampled"):
            sampler(**on).sample(bad.astype(np.float32))
