"""Many texts at a time on one context: each must be what it is alone, to the last bit."""

import math
import random
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pyllamacpp import _core
from pyllamacpp.engine import Engine, Step
from pyllamacpp.errors import CancelledError, ContextFullError, InvalidArgumentError
from pyllamacpp.params import GenerationParams, SamplingParams

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
from tiny_model import TinyModel

TEXTS = (
    "The capital of France is",
    "Once upon a time there was a small dragon who",
    "def fibonacci(n):\n    ",
    "The quick brown fox jumps over the lazy dog. The quick brown fox",
    "Water boils at a temperature of",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26",
)
GREEDY = GenerationParams(max_tokens=24, sampling=SamplingParams(temperature=0.0))


@pytest.fixture(scope="module")
def model(default_model: Path) -> _core.Model:
    return _core.Model(str(default_model))


def engine_of(model: _core.Model, n_ctx: int = 128, n_parallel: int = 4, **more: int) -> Engine:
    sizes = {"max_sequences": 16, "n_batch": 64, **more}
    return Engine(model, _core.Context(model, n_ctx=n_ctx, n_parallel=n_parallel, **sizes))


def prompts_of(model: _core.Model) -> list[list[int]]:
    return [model.tokenizer.encode(text.encode(), True, True) for text in TEXTS]


def params_of(n: int) -> list[GenerationParams]:
    """Of each text another: greedy, seeds, penalties; log-probabilities of all."""
    found = []
    for i in range(n):
        sampling = SamplingParams(
            temperature=0.0 if i == 0 else 0.9, seed=i, repeat_penalty=1.0 + i / 10
        )
        found.append(GenerationParams(max_tokens=20 + i, sampling=sampling, n_log_probs=3))
    return found


def alone(model: _core.Model) -> list[list[Step]]:
    """Each text in a context of its own."""
    prompts = prompts_of(model)
    pairs = zip(prompts, params_of(len(prompts)), strict=True)
    return [list(engine_of(model).start(prompt, params)) for prompt, params in pairs]


@pytest.fixture(scope="module")
def expected(model: _core.Model) -> list[list[Step]]:
    return alone(model)


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"n_batch": 5},
        {"max_sequences": 2},
        # Less memory than the texts need together: the youngest wait and begin again.
        {"n_ctx": 96, "n_parallel": 1},
    ],
)
def test_together_as_alone(
    model: _core.Model, expected: list[list[Step]], sizes: dict[str, int]
) -> None:
    engine = engine_of(model, **sizes)
    prompts = prompts_of(model)
    streams = [
        engine.start(prompt, params, keeps_up=False)
        for prompt, params in zip(prompts, params_of(len(prompts)), strict=True)
    ]
    assert [list(stream) for stream in streams] == expected


def test_texts_that_do_not_fit_together_wait(tmp_path: Path) -> None:
    """Prompts and texts in one batch, in a cache that is always full."""
    model = _core.Model(str(TinyModel().write(tmp_path / "tiny.gguf")))
    dice = random.Random(5)
    prompts = [dice.choices(range(3, 259), k=dice.randrange(20, 250)) for _ in range(60)]
    params = []
    for i in range(len(prompts)):
        p = replace(GREEDY, max_tokens=dice.randrange(1, 30), ignore_eos=True)
        # Guesses take pages, and prompts with log-probabilities fewer rows at a time.
        more = {1: {"drafter": Always(7)}, 2: {"n_log_probs": 1, "prompt_log_probs": True}}
        params.append(replace(p, **more.get(i % 4, {})))
    engine = engine_of(model, n_ctx=320, n_parallel=1)
    streams = [
        engine.start(prompt, p, keeps_up=False) for prompt, p in zip(prompts, params, strict=True)
    ]
    found = [[step.token for step in stream] for stream in streams]
    roomy = engine_of(model, n_ctx=320)
    for prompt, p, tokens in zip(prompts, params, found, strict=True):
        assert [step.token for step in roomy.start(prompt, p)] == tokens


class Always:
    """A drafter that guesses the same token many times."""

    def __init__(self, token: int) -> None:
        self.tokens = [token] * 40

    def guess(self, tokens: Sequence[int]) -> list[int]:
        del tokens
        return self.tokens


def test_from_threads_as_alone(model: _core.Model, expected: list[list[Step]]) -> None:
    engine = engine_of(model)
    prompts = prompts_of(model)

    def run(i: int) -> list[Step]:
        return list(engine.start(prompts[i], params_of(len(prompts))[i]))

    with ThreadPoolExecutor(len(prompts)) as pool:
        for _ in range(2):  # the second time with every prompt in the cache
            assert list(pool.map(run, range(len(prompts)))) == expected


def test_texts_that_nobody_reads_do_not_hold_up_others(
    model: _core.Model, expected: list[list[Step]]
) -> None:
    engine = engine_of(model, n_ctx=96, n_parallel=1, max_sequences=3)
    prompts = prompts_of(model)
    params = params_of(len(prompts))
    left = [engine.start(prompts[i], params[i]) for i in range(3)]
    firsts = [next(stream) for stream in left]
    for i in range(3, len(prompts)):
        assert list(engine.start(prompts[i], params[i])) == expected[i]
    for i in range(3):
        assert [firsts[i], *left[i]] == expected[i]


def test_prompts_that_begin_alike_share_pages(model: _core.Model) -> None:
    engine = engine_of(model, n_ctx=256, n_parallel=1)
    prompt = model.tokenizer.encode((" ".join(TEXTS)).encode(), True, True)
    assert 90 < len(prompt) < 180
    streams = [
        engine.start(prompt, replace(GREEDY, max_tokens=8), keeps_up=False) for _ in range(6)
    ]
    texts = [[step.token for step in stream] for stream in streams]
    assert texts == [texts[0]] * 6
    # Six copies would not fit: the first evaluates, the others share what it has by then.
    assert streams[0].n_reused == 0
    assert all(len(prompt) - 32 <= stream.n_reused < len(prompt) for stream in streams[1:])


def test_a_finished_text_is_continued_where_it_lies(model: _core.Model) -> None:
    engine = engine_of(model)
    prompt = prompts_of(model)[1]
    tokens = [step.token for step in engine.start(prompt, GREEDY) if step.token is not None]
    longer = engine.start([*prompt, *tokens, *prompt], GREEDY)
    next(longer)
    assert longer.n_reused == len(prompt) + len(tokens) - 1


def test_cancel_during_the_prompt_leaves_others_alone(
    model: _core.Model, expected: list[list[Step]]
) -> None:
    engine = engine_of(model, n_ctx=2048, n_parallel=2, n_batch=512)
    prompts = prompts_of(model)
    long = engine.start((prompts[3] * 200)[:2000], GREEDY)
    other = engine.start(prompts[0], params_of(1)[0])
    begun = threading.Event()
    context = engine.context

    def wait() -> None:
        begun.set()
        with pytest.raises(CancelledError):
            list(long)

    thread = threading.Thread(target=wait)
    thread.start()
    begun.wait()
    while not any(context.length(i) for i in range(context.max_sequences)):
        pass  # until its first batch is in the cache
    long.cancel()
    thread.join()
    assert max(context.length(i) for i in range(context.max_sequences)) < 2000
    assert list(other) == expected[0]
    long.cancel()
    with pytest.raises(CancelledError):
        next(long)


def test_a_cancel_that_comes_too_late_is_for_nobody(
    model: _core.Model, expected: list[list[Step]]
) -> None:
    """As when two streams are cancelled during one evaluation: the second stops the next one."""
    engine = engine_of(model)
    stream = engine.start(prompts_of(model)[0], params_of(1)[0])
    engine.context.cancel()
    found = [next(stream)]
    engine.context.cancel()
    assert [*found, *stream] == expected[0]
    engine.context.cancel()
    engine.evaluate([1, 2, 3])


def test_log_probs_are_those_of_the_logits(model: _core.Model) -> None:
    prompt = prompts_of(model)[0]
    engine = engine_of(model)
    params = replace(GREEDY, max_tokens=5, n_log_probs=4, prompt_log_probs=True)
    stream = engine.start(prompt, params)
    steps = list(stream)
    tokens = [*prompt, *(step.token for step in steps)]
    context = _core.Context(model, n_ctx=128)
    context.decode([(0, tokens, "all")])
    logits = context.logits().astype(np.float64)
    log_probs = logits - logits.max(axis=1, keepdims=True)
    log_probs -= np.log(np.exp(log_probs).sum(axis=1, keepdims=True))
    found = [*stream.prompt_log_probs, *(step.log_probs for step in steps)]
    assert len(found) == len(tokens) - 1
    for i, (chosen, top) in enumerate(found):
        assert math.isclose(chosen, log_probs[i, tokens[i + 1]], abs_tol=1e-5)
        best = np.argsort(-logits[i], kind="stable")[:4]
        assert [token for token, _ in top] == best.tolist()
        np.testing.assert_allclose([p for _, p in top], log_probs[i, best], atol=1e-5)


class Knows:
    """A drafter that knows the text, or some of it, and is wrong where told."""

    def __init__(self, text: list[int], wrong: int) -> None:
        self.text, self.wrong, self.calls = text, wrong, 0

    def guess(self, tokens: list[int]) -> list[int]:
        self.calls += 1
        assert tokens == self.text[: len(tokens)]
        guesses = self.text[len(tokens) : len(tokens) + 5]
        return [t + 1 if i == self.wrong else t for i, t in enumerate(guesses)]


@pytest.mark.parametrize("wrong", [0, 2, 9])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_guesses_change_nothing_but_the_number_of_evaluations(
    model: _core.Model, wrong: int, temperature: float
) -> None:
    prompt = prompts_of(model)[1]
    params = replace(GREEDY, sampling=SamplingParams(temperature=temperature, seed=7))
    plain = list(engine_of(model).start(prompt, params))
    drafter = Knows([*prompt, *(step.token or 0 for step in plain)], wrong)
    assert list(engine_of(model).start(prompt, replace(params, drafter=drafter))) == plain
    # One evaluation gives the right guesses and one token more.
    assert drafter.calls == math.ceil((len(plain) - 1) / (min(wrong, 5) + 1))


def test_a_full_context_stops_raises_or_goes_on(model: _core.Model) -> None:
    prompt = prompts_of(model)[1]
    endless = replace(GREEDY, max_tokens=-1, ignore_eos=True)
    stopped = engine_of(model, n_ctx=32).start(prompt, endless)
    steps = list(stopped)
    assert steps[-1].finish_reason == "length"
    assert stopped.n_shifts == 0
    assert len(prompt) + len(steps) == 33
    with pytest.raises(ContextFullError, match="32"):
        list(engine_of(model, n_ctx=32).start(prompt, replace(endless, when_full="error")))
    shifting = replace(endless, max_tokens=60, when_full="shift", n_keep=4)
    engine = engine_of(model, n_ctx=32)
    stream = engine.start(prompt, shifting)
    tokens = [step.token for step in stream]
    assert len(tokens) == 60
    assert tokens[: len(steps)] == [step.token for step in steps]
    assert stream.n_shifts == math.ceil((len(prompt) + 60 - 33) / 14)
    # After the last shift the text goes on as from what it left.
    held = engine.tokens
    assert held[:4] == prompt[:4]
    assert held[4:] == tokens[-len(held[4:]) - 1 : -1]
    again = next(engine_of(model, n_ctx=32).start(held, GREEDY))
    assert again.token == tokens[-1]


class Only:
    """Allows tokens of a set until `n` were chosen, then the end alone."""

    def __init__(self, allowed: list[int], end: int, n: int) -> None:
        self.allowed, self.end, self.n, self.chosen = allowed, end, n, []  # type: ignore[var-annotated]

    def fill(self, mask: np.ndarray) -> bool:
        for token in [self.end] if self.done() else self.allowed:
            mask[token // 32] |= np.uint32(1) << np.uint32(token % 32)
        return True

    def accept(self, token: int) -> None:
        self.chosen.append(token)

    def done(self) -> bool:
        return len(self.chosen) == self.n


def test_filters_processors_and_criteria(model: _core.Model, expected: list[list[Step]]) -> None:
    prompts = prompts_of(model)
    engine = engine_of(model)
    digits = [model.tokenizer.encode(str(i).encode(), False, False)[-1] for i in range(10)]
    eos = model.tokenizer.eos
    assert eos is not None
    only = Only(digits, eos, 6)
    # min_tokens does not count where the filter leaves nothing but the end.
    filtered = engine.start(prompts[1], replace(GREEDY, token_filter=only, min_tokens=20))
    seen: list[int] = []

    def forbid(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        seen.append(len(ids))
        scores[digits] = np.inf * -1
        scores[digits[3]] = 100
        return scores

    processed = engine.start(prompts[2], replace(GREEDY, processors=(forbid,), max_tokens=3))
    stopped = engine.start(
        prompts[4], replace(GREEDY, criteria=(lambda ids, _: len(ids) == len(prompts[4]) + 2,))
    )

    def broken(_ids: np.ndarray, _scores: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError

    failing = engine.start(prompts[4], replace(GREEDY, processors=(broken,)))
    nan = engine.start(prompts[4], replace(GREEDY, processors=(lambda _, s: s * np.nan,)))
    plain = engine.start(prompts[0], params_of(1)[0])
    assert [step.token for step in filtered] == [*only.chosen, eos]
    assert set(only.chosen) <= set(digits)
    assert [step.token for step in processed] == [digits[3]] * 3
    assert seen == [len(prompts[2]) + i for i in range(3)]
    assert [step.finish_reason for step in stopped] == [None, "stop"]
    with pytest.raises(ZeroDivisionError):
        list(failing)
    with pytest.raises(InvalidArgumentError, match="NaN"):
        list(nan)
    assert list(plain) == expected[0]


def test_bad_requests_are_refused_at_once(model: _core.Model) -> None:
    engine = engine_of(model)
    with pytest.raises(InvalidArgumentError, match="no tokens"):
        engine.start([], GREEDY)
    with pytest.raises(InvalidArgumentError, match="outside the vocabulary"):
        engine.start([1, 10**6], GREEDY)
    with pytest.raises(ContextFullError, match="129"):
        engine.start([1] * 129, GREEDY)
    with pytest.raises(InvalidArgumentError, match="n_keep"):
        engine.start([1], replace(GREEDY, n_keep=128))
    with pytest.raises(InvalidArgumentError, match="temperature"):
        engine.start([1], replace(GREEDY, sampling=SamplingParams(temperature=math.nan)))
