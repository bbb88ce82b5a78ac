"""Guesses at what comes next, which the engine checks in one evaluation.

A right guess saves an evaluation, a wrong one costs a row of a batch; the text is the same.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from .engine import Engine
from .errors import InvalidArgumentError
from .loading import load
from .models.resolve import resolve_model
from .params import GenerationParams, SamplingParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from . import _core


class DraftModel(Protocol):
    """What llama-cpp-python calls LlamaDraftModel."""

    def __call__(self, input_ids: npt.NDArray[np.intc], /) -> npt.NDArray[np.intc]:
        """Ids that may follow `input_ids`, none if it has no idea."""


class LlamaPromptLookupDecoding:
    """Takes what followed the last tokens where the text had them before.

    max_ngram_size: how many tokens must be alike at most; longer matches are tried first.
    num_pred_tokens: how many are guessed at most.
    Source: Saxena 2023, prompt lookup decoding. Raises InvalidArgumentError for numbers below 1.
    """

    def __init__(self, max_ngram_size: int = 2, num_pred_tokens: int = 10) -> None:
        for name, value in (
            ("max_ngram_size", max_ngram_size),
            ("num_pred_tokens", num_pred_tokens),
        ):
            if value < 1:
                raise InvalidArgumentError(f"{name} must be at least 1, found {value}")
        self.max_ngram_size = max_ngram_size
        self.num_pred_tokens = num_pred_tokens

    def __call__(self, input_ids: npt.NDArray[np.intc], /) -> npt.NDArray[np.intc]:
        """Ids that may follow `input_ids`, int32."""
        return self.find_candidate_pred_tokens(input_ids, self.max_ngram_size, self.num_pred_tokens)

    @staticmethod
    def find_candidate_pred_tokens(
        input_ids: npt.NDArray[np.intc], max_ngram_size: int, num_pred_tokens: int
    ) -> npt.NDArray[np.intc]:
        """At most num_pred_tokens ids that followed the last of `input_ids` before, int32."""
        import numpy as np

        n_tokens = len(input_ids)
        for size in range(min(max_ngram_size, n_tokens - 1), 0, -1):
            last = input_ids[-size:]
            windows = np.lib.stride_tricks.sliding_window_view(input_ids[:-1], size)
            places = np.flatnonzero((windows == last).all(axis=1))
            if len(places):
                start = int(places[-1]) + size
                return input_ids[start : start + num_pred_tokens].astype(np.intc)
        return np.array([], dtype=np.intc)


class SmallModelDrafting:
    """Lets a smaller model of the same vocabulary go ahead, greedily.

    num_pred_tokens: how many tokens are guessed at a time. n_ctx: 0: as many as the small model
    was made for; beyond it nothing is guessed.

    Raises what loading a model raises, InvalidArgumentError for a number below 1.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        num_pred_tokens: int = 5,
        *,
        n_ctx: int = 0,
        n_threads: int = 0,
    ) -> None:
        if num_pred_tokens < 1:
            raise InvalidArgumentError(
                f"num_pred_tokens must be at least 1, found {num_pred_tokens}"
            )
        path = str(resolve_model(model_path))
        model, context = load(path, n_ctx=n_ctx, n_threads=n_threads)
        self._engine = Engine(model, context)
        self._params = GenerationParams(
            max_tokens=num_pred_tokens,
            sampling=SamplingParams(temperature=0.0),
            ignore_eos=True,
        )

    def __call__(self, input_ids: npt.NDArray[np.intc], /) -> npt.NDArray[np.intc]:
        """Ids that may follow `input_ids`, int32."""
        import numpy as np

        ids: list[int] = input_ids.tolist()
        if len(ids) >= self._engine.context.n_ctx:
            return np.array([], dtype=np.intc)
        stream = self._engine.start(ids, self._params, keeps_up=False)
        return np.array([step.token for step in stream], dtype=np.intc)

    def check_vocabulary(self, model: _core.Model) -> None:
        """Raises InvalidArgumentError unless the model's tokens are the small one's."""
        ours, theirs = model.tokenizer, self._engine.tokenizer
        if ours.size != theirs.size or any(
            ours.piece(i, True) != theirs.piece(i, True) for i in range(ours.size)
        ):
            raise InvalidArgumentError(
                f"{self._engine.model.path} cannot draft for {model.path}: it has other tokens"
            )


class Guesser:
    """A draft model as the engine asks it, for one text; it is left alone while it is wrong.

    Of the guesses of each call the right ones are counted, by the text that came. When fewer than
    one in `_WORTH` was right over the last calls, the next calls are not made, twice as many
    each time up to `_LONGEST_PAUSE`.
    """

    def __init__(self, model: DraftModel) -> None:
        self._model = model
        self._guesses: list[int] = []
        self._length = 0  # of the text when they were made
        self._share = 1.0  # of guesses that were right, smoothed
        self._pause = 0
        self._next_pause = 1

    def guess(self, tokens: list[int]) -> list[int]:
        """What may follow `tokens`. Raises InvalidArgumentError for guesses that are no ids."""
        import numpy as np

        self._count(tokens)
        if self._pause > 0:
            self._pause -= 1
            return []
        found = np.asarray(self._model(np.array(tokens, dtype=np.intc)))
        if found.ndim != 1 or (found.size and not np.issubdtype(found.dtype, np.integer)):
            raise InvalidArgumentError(
                f"draft_model must give a list of token ids, found {found!r:.80}"
            )
        self._guesses, self._length = found.tolist(), len(tokens)
        return self._guesses

    def _count(self, tokens: list[int]) -> None:
        if not self._guesses:
            return
        came = tokens[self._length :]
        right = 0
        while right < min(len(came), len(self._guesses)) and came[right] == self._guesses[right]:
            right += 1
        self._share += _SMOOTHING * (right / len(self._guesses) - self._share)
        self._guesses = []
        if self._share >= _WORTH:
            self._next_pause = 1
            return
        self._pause = self._next_pause
        self._next_pause = min(2 * self._next_pause, _LONGEST_PAUSE)
        self._share = _WORTH  # another try after the pause


_SMOOTHING = 0.3
_WORTH = 0.15
_LONGEST_PAUSE = 64
