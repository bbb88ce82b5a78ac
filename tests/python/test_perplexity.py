"""Perplexity against its definition."""

import math
from pathlib import Path

import numpy as np
import pytest

from pyllamacpp import Llama, _core
from pyllamacpp.errors import InvalidArgumentError
from pyllamacpp.eval.perplexity import log_softmax, perplexity

TEXT = (Path(__file__).parents[1] / "data" / "english.txt").read_bytes()[:3000]


@pytest.fixture(scope="module")
def model(default_model: Path) -> _core.Model:
    return _core.Model(str(default_model))


def test_log_softmax() -> None:
    logits = np.array([[1e4, 0.0, -1e4], [0.1, 0.2, 0.3]], dtype=np.float32)
    wide = logits[1].astype(np.float64)
    expected = [[0, -1e4, -2e4], wide - np.log(np.exp(wide).sum())]
    np.testing.assert_allclose(log_softmax(logits), expected, rtol=1e-15)


def test_it_is_the_second_half_of_each_window(model: _core.Model, default_model: Path) -> None:
    n_ctx = 65
    result = perplexity(model, TEXT, n_ctx=n_ctx)
    losses = []
    with Llama(str(default_model), n_ctx=n_ctx, logits_all=True, verbose=False) as llm:
        ids = llm.tokenize(TEXT)
        n_windows = len(ids) // n_ctx
        assert n_windows > 2
        for number in range(n_windows):
            window = ids[number * n_ctx : (number + 1) * n_ctx]
            llm.reset()
            llm.eval(window)
            for position in range(n_ctx // 2, n_ctx - 1):
                row = llm.scores[position].astype(np.float64)
                row -= row.max()
                losses.append(math.log(np.exp(row).sum()) - row[window[position + 1]])
    assert (result.n_windows, result.n_tokens) == (n_windows, len(losses))
    assert result.ppl == pytest.approx(math.exp(np.mean(losses)), rel=1e-12)
    assert result.error == pytest.approx(
        result.ppl * np.std(losses, ddof=1) / math.sqrt(len(losses)), rel=1e-9
    )


def test_english_is_predictable(model: _core.Model) -> None:
    english = perplexity(model, TEXT, n_ctx=256).ppl
    assert 2 < english < 100
    noise = np.random.default_rng(0).integers(33, 126, 2000).astype(np.uint8).tobytes()
    assert perplexity(model, noise, n_ctx=256).ppl > 3 * english


def test_progress_is_told(model: _core.Model) -> None:
    told = []
    result = perplexity(model, TEXT, n_ctx=128, on_window=lambda *now: told.append(now))
    assert [now.n_windows for now, _ in told] == list(range(1, result.n_windows + 1))
    assert {total for _, total in told} == {result.n_windows}
    assert told[-1][0] == result


def test_too_short_a_text(model: _core.Model) -> None:
    with pytest.raises(InvalidArgumentError, match="fewer than one window of 512"):
        perplexity(model, b"Too short.", n_ctx=512)
    with pytest.raises(InvalidArgumentError, match="at least 4"):
        perplexity(model, TEXT, n_ctx=3)
