"""The same tokens give bitwise the same logits, however they reach the model.

Thread count, batch size, the cuts of a prompt, company in the batch, a fork or a trimmed cache must
not show. `PYLLAMACPP_ISA=avx2 pytest tests/golden/test_reproducible.py` tests one tier; the last
test does so for every other tier of this machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pyllamacpp import _core

Logits = npt.NDArray[np.float32]  # (n_tokens, n_vocab)

# The scalar tier is an oracle, not an engine: it gets a prompt just longer than 32.
QUICK = os.environ.get("PYLLAMACPP_ISA") == "scalar"
N_TOKENS = 37 if QUICK else 301


@pytest.fixture(scope="module", params=["auto"] if QUICK else ["auto", "never"])
def model(request: pytest.FixtureRequest, default_model: Path) -> _core.Model:
    return _core.Model(str(default_model), repack=request.param)


@pytest.fixture(scope="module")
def text(model: _core.Model, english: bytes) -> list[int]:
    ids: list[int] = model.tokenizer.encode(english[: 20 * N_TOKENS], False, False)
    assert len(ids) >= 3 * N_TOKENS
    return ids


@pytest.fixture(scope="module")
def prompt(text: list[int]) -> list[int]:
    return text[:N_TOKENS]


@pytest.fixture(scope="module")
def whole(model: _core.Model, prompt: list[int]) -> Logits:
    """The reference: the prompt in one piece, alone, on one thread."""
    return logits_alone(make_context(model, n_threads=1), prompt)


def make_context(
    model: _core.Model, *, n_threads: int = 2, n_batch: int = 512, max_sequences: int = 1
) -> _core.Context:
    return _core.Context(
        model,
        n_ctx=8 * N_TOKENS,
        n_batch=n_batch,
        n_threads=n_threads,
        n_threads_batch=n_threads,
        max_sequences=max_sequences,
    )


def append(context: _core.Context, tokens: list[int], sequence: int = 0) -> Logits:
    context.decode([(sequence, tokens, "all")])
    logits: Logits = context.logits()
    return logits


def logits_alone(context: _core.Context, tokens: list[int], sequence: int = 0) -> Logits:
    context.trim(sequence, 0)
    return append(context, tokens, sequence)


def append_in_parts(context: _core.Context, tokens: list[int], cuts: Iterable[int]) -> Logits:
    ends = [*cuts, len(tokens)]
    starts = [0, *ends[:-1]]
    parts = [append(context, tokens[s:e]) for s, e in zip(starts, ends, strict=True)]
    return np.concatenate(parts)


def test_forced_tier_is_in_use() -> None:
    forced = os.environ.get("PYLLAMACPP_ISA")
    assert _core.isa() in _core.isa_tiers()
    assert forced in (None, "", _core.isa())


def test_logits_are_finite_and_not_constant(whole: Logits) -> None:
    assert whole.shape[0] == N_TOKENS
    assert np.isfinite(whole).all()
    assert (whole.std(axis=1) > 0.1).all()


def test_again(model: _core.Model, prompt: list[int], whole: Logits) -> None:
    context = make_context(model, n_threads=1)
    assert np.array_equal(logits_alone(context, prompt), whole)
    assert np.array_equal(logits_alone(context, prompt), whole)


def test_two_threads(model: _core.Model, prompt: list[int], whole: Logits) -> None:
    assert np.array_equal(logits_alone(make_context(model, n_threads=2), prompt), whole)


# One token at a time is test_token_by_token's.
@pytest.mark.parametrize("n_batch", [7, 32] if QUICK else [1, 7, 32])
def test_batch_size(model: _core.Model, prompt: list[int], whole: Logits, n_batch: int) -> None:
    context = make_context(model, n_batch=n_batch)
    assert np.array_equal(logits_alone(context, prompt), whole)


SINGLE_CUTS = [[33]] if QUICK else [[1], [N_TOKENS - 1], [31], [32], [33]]


@pytest.mark.parametrize(
    "cuts",
    [*SINGLE_CUTS, [2, 5, 9, 17], [N_TOKENS // 3, 2 * N_TOKENS // 3]],
    ids=str,
)
def test_split_prompt(
    model: _core.Model, prompt: list[int], whole: Logits, cuts: list[int]
) -> None:
    assert np.array_equal(append_in_parts(make_context(model), prompt, cuts), whole)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_token_by_token(
    model: _core.Model, prompt: list[int], whole: Logits, n_threads: int
) -> None:
    context = make_context(model, n_threads=n_threads)
    assert np.array_equal(append_in_parts(context, prompt, range(1, N_TOKENS)), whole)


def test_last_is_the_last_of_all(model: _core.Model, prompt: list[int], whole: Logits) -> None:
    context = make_context(model)
    context.decode([(0, prompt[:-5], "none")])
    assert context.logits().shape[0] == 0
    context.decode([(0, prompt[-5:], "last")])
    assert np.array_equal(context.logits(), whole[-1:])


def test_sequences_together(model: _core.Model, text: list[int], whole: Logits) -> None:
    """Three sequences of unlike lengths: prompts in one batch, then one token each in one batch."""
    lengths = [N_TOKENS, N_TOKENS // 2 + 3, 5]
    sequences = [text[i : i + n + 1] for i, n in enumerate(lengths)]
    context = make_context(model)
    alone = [logits_alone(context, tokens) for tokens in sequences]
    assert np.array_equal(alone[0][:-1], whole)

    context = make_context(model, max_sequences=3)
    context.decode([(i, tokens[:-1], "all") for i, tokens in enumerate(sequences)])
    prompts = np.split(context.logits(), np.cumsum(lengths)[:-1])
    context.decode([(i, tokens[-1:], "last") for i, tokens in enumerate(sequences)])
    steps = context.logits()
    for i, expected in enumerate(alone):
        assert np.array_equal(prompts[i], expected[:-1])
        assert np.array_equal(steps[i], expected[-1])


def test_prompt_beside_a_decoding_sequence(
    model: _core.Model, text: list[int], prompt: list[int], whole: Logits
) -> None:
    context = make_context(model, max_sequences=2)
    other = text[N_TOKENS : N_TOKENS + 24]
    expected = logits_alone(context, other, sequence=1)
    context.trim(1, len(other) - 1)
    context.decode([(1, other[-1:], "last"), (0, prompt, "all")])
    together = context.logits()
    assert np.array_equal(together[0], expected[-1])
    assert np.array_equal(together[1:], whole)


@pytest.mark.parametrize("at", [1, 30, 32, N_TOKENS - 4])
def test_fork(
    model: _core.Model, text: list[int], prompt: list[int], whole: Logits, at: int
) -> None:
    """A fork goes on as if it had been computed, and what it appends does not reach its origin."""
    other = text[N_TOKENS : N_TOKENS + 7]
    context = make_context(model, max_sequences=3)
    expected = logits_alone(context, prompt[:at] + other, sequence=2)[at:]
    append(context, prompt[:at], sequence=0)
    context.fork(0, 1)
    assert context.tokens(1) == prompt[:at]
    assert np.array_equal(append(context, other, sequence=1), expected)
    assert np.array_equal(append(context, prompt[at:], sequence=0), whole[at:])
    context.trim(1, at)
    assert np.array_equal(append(context, prompt[at:], sequence=1), whole[at:])


def test_fork_outlives_its_origin(model: _core.Model, prompt: list[int], whole: Logits) -> None:
    at = N_TOKENS - 3
    context = make_context(model, max_sequences=2)
    append(context, prompt[:at], sequence=0)
    context.fork(0, 1)
    logits_alone(context, prompt[5:], sequence=0)
    assert np.array_equal(append(context, prompt[at:], sequence=1), whole[at:])


@pytest.mark.parametrize(
    "length", [31, 33, N_TOKENS - 1] if QUICK else [0, 1, 31, 32, 33, N_TOKENS - 1]
)
def test_trim_and_decode_again(
    model: _core.Model, text: list[int], prompt: list[int], whole: Logits, length: int
) -> None:
    context = make_context(model)
    append(context, prompt[:length] + text[N_TOKENS : 2 * N_TOKENS - length])
    context.trim(0, length)
    assert context.length(0) == length
    assert np.array_equal(append(context, prompt[length:]), whole[length:])


def test_failed_decode_leaves_no_trace(
    model: _core.Model, prompt: list[int], whole: Logits
) -> None:
    context = make_context(model, max_sequences=2)
    append(context, prompt[:20])
    with pytest.raises(ValueError, match="exceed context window"):
        context.decode([(1, prompt[:3], "last"), (0, prompt * 9, "last")])
    with pytest.raises(ValueError, match=str(model.config.n_vocab)):
        context.decode([(0, [prompt[0], model.config.n_vocab], "last")])
    assert (context.length(0), context.length(1)) == (20, 0)
    assert np.array_equal(append(context, prompt[20:]), whole[20:])


@pytest.mark.skipif("PYLLAMACPP_ISA" in os.environ, reason="one tier was asked for")
@pytest.mark.parametrize("tier", [t for t in _core.isa_tiers() if t != _core.isa()])
def test_other_tiers(tier: str, default_model: Path, tmp_path: Path) -> None:
    assert default_model.exists()  # fetched here, once, and not in each run below
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    environment = os.environ | {"PYLLAMACPP_ISA": tier}
    run = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
