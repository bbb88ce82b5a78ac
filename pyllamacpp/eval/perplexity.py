"""Perplexity by llama.cpp's rule, so that figures compare.

The text is tokenized once and cut into windows of n_ctx tokens without overlap. Each window is
evaluated from an empty cache, its first token replaced by the beginning-of-sequence token where
the vocabulary adds one. The second half of each window is scored: position i, for i in
n_ctx//2 .. n_ctx-2, predicts token i+1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .. import _core
from ..errors import InvalidArgumentError
from .log_probs import LogProbs

MIN_WINDOW = 4

# Rows of logits held at a time; the split does not change them.
_ROWS = 64


@dataclass(frozen=True)
class Perplexity:
    """ppl = exp(mean negative log-likelihood) over n_tokens scored tokens.

    error: the standard error of ppl (0 for a single token). n_windows: windows evaluated.
    """

    ppl: float
    n_tokens: int
    error: float
    n_windows: int


def perplexity(
    model: _core.Model,
    text: bytes,
    *,
    n_ctx: int = 512,
    n_batch: int = 512,
    n_threads: int = 0,
    type_k: str = "f16",
    type_v: str = "f16",
    on_window: Callable[[Perplexity, int], None] | None = None,
    on_rows: Callable[[LogProbs, Sequence[int]], None] | None = None,
) -> Perplexity:
    """The model's perplexity over `text` in windows of n_ctx >= 4 tokens.

    on_window is told the figure so far and the number of windows in all; on_rows the
    log-probabilities [n, n_vocab] of the scored positions in order, and the n tokens that follow.
    Raises InvalidArgumentError for a text shorter than one window.
    """
    if n_ctx < MIN_WINDOW:
        raise InvalidArgumentError(f"a window must have at least {MIN_WINDOW} tokens, got {n_ctx}")
    tokens = window_tokens(model.tokenizer, text, n_ctx)
    context = _core.Context(
        model,
        n_ctx=n_ctx,
        n_batch=min(n_batch, n_ctx),
        n_threads=n_threads,
        n_threads_batch=n_threads,
        type_k=type_k,
        type_v=type_v,
    )
    losses: list[npt.NDArray[np.float64]] = []
    for start in range(0, len(tokens), n_ctx):
        losses.append(_window_losses(context, tokens[start : start + n_ctx], on_rows))
        result = _summary(losses)
        if on_window is not None:
            on_window(result, len(tokens) // n_ctx)
    return result


def window_tokens(tokenizer: _core.Tokenizer, text: bytes, n_ctx: int) -> list[int]:
    """The ids of all whole windows of `text`, one after another.

    Raises InvalidArgumentError for a text shorter than one window.
    """
    tokens = tokenizer.encode(text, True, False)
    n_windows = len(tokens) // n_ctx
    if n_windows == 0:
        raise InvalidArgumentError(
            f"the text has {len(tokens)} tokens, fewer than one window of {n_ctx}"
        )
    del tokens[n_windows * n_ctx :]
    if tokenizer.add_bos and tokenizer.bos is not None:
        tokens[::n_ctx] = [tokenizer.bos] * n_windows
    return tokens


def _window_losses(
    context: _core.Context,
    window: Sequence[int],
    on_rows: Callable[[LogProbs, Sequence[int]], None] | None,
) -> npt.NDArray[np.float64]:
    """Negative log-likelihoods of the second half's tokens, [n_ctx - 1 - n_ctx//2]."""
    first = len(window) // 2
    context.trim(0, 0)
    context.decode([(0, window[:first], "none")])
    parts = []
    for start in range(first, len(window) - 1, _ROWS):
        rows = list(window[start : min(start + _ROWS, len(window) - 1)])
        context.decode([(0, rows, "all")])
        targets = window[start + 1 : start + 1 + len(rows)]
        log_probs = log_softmax(context.logits())
        parts.append(-log_probs[np.arange(len(targets)), list(targets)])
        if on_rows is not None:
            on_rows(log_probs, targets)
    return np.concatenate(parts)


def log_softmax(logits: npt.NDArray[np.float32]) -> LogProbs:
    """Log-probabilities of logits [n, n_vocab], in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide


def _summary(losses: Sequence[npt.NDArray[np.float64]]) -> Perplexity:
    every = np.concatenate(losses)
    ppl = math.exp(float(every.mean()))
    spread = float(every.std(ddof=1)) / math.sqrt(every.size) if every.size > 1 else 0.0
    return Perplexity(ppl, int(every.size), ppl * spread, len(losses))
