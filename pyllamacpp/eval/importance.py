"""How large the inputs of each matrix are over a text: what its columns' errors cost.

The text is cut into windows as for perplexity, and each is evaluated from an empty cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .. import _core
from ..errors import UnsupportedError
from .perplexity import window_tokens


@dataclass(frozen=True)
class InputSquares:
    """By the name of a matrix: the sum of the squares of its inputs, float64 [columns], and the
    number of inputs it is over. n_windows: those evaluated.
    """

    sums: dict[str, tuple[npt.NDArray[np.float64], int]]
    n_windows: int


def input_squares(
    model: _core.Model,
    text: bytes,
    *,
    n_ctx: int = 512,
    n_batch: int = 512,
    n_threads: int = 0,
    on_window: Callable[[int, int], None] | None = None,
) -> InputSquares:
    """Evaluates `text` in windows of n_ctx tokens.

    on_window is told how many windows are done and how many there are. Raises InvalidArgumentError
    for a text shorter than one window, UnsupportedError when an input is not finite.
    """
    tokens = window_tokens(model.tokenizer, text, n_ctx)
    context = _core.Context(
        model,
        n_ctx=n_ctx,
        n_batch=min(n_batch, n_ctx),
        n_threads=n_threads,
        n_threads_batch=n_threads,
        measure_inputs=True,
    )
    n_windows = len(tokens) // n_ctx
    for i in range(n_windows):
        context.trim(0, 0)
        context.decode([(0, tokens[i * n_ctx : (i + 1) * n_ctx], "none")])
        if on_window is not None:
            on_window(i + 1, n_windows)
    sums = context.input_squares()
    for name, (squares, _) in sums.items():
        if not np.isfinite(squares).all():
            raise UnsupportedError(
                f"an input of {name} is not finite: the model's weights are damaged"
            )
    return InputSquares(sums, n_windows)
