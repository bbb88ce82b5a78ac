"""Lists of logits processors and stopping criteria, as llama-cpp-python has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import InvalidArgumentError
from .params import LogitsProcessor, StoppingCriteria

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class LogitsProcessorList(list[LogitsProcessor]):
    """Logits processors, each of which gets what the one before it has made."""

    def __call__(
        self, input_ids: npt.NDArray[np.intc], scores: npt.NDArray[np.single]
    ) -> npt.NDArray[np.single]:
        """The logits [n_vocab] after all of them."""
        for processor in self:
            scores = processor(input_ids, scores)
        return scores


class StoppingCriteriaList(list[StoppingCriteria]):
    """Stopping criteria, any of which ends the text."""

    def __call__(self, input_ids: npt.NDArray[np.intc], logits: npt.NDArray[np.single]) -> bool:
        """Whether one of them wants the text to end."""
        return any(criterion(input_ids, logits) for criterion in self)


class MinTokensLogitsProcessor:
    """Bars one end-of-text token until min_tokens tokens have come.

    It counts from the first call on, so it serves one text. `min_tokens` of a call bars every
    token that ends a text, and serves any number of texts.
    """

    def __init__(self, min_tokens: int, token_eos: int) -> None:
        if min_tokens < 0:
            raise InvalidArgumentError(f"min_tokens must be >= 0, found {min_tokens}")
        self.min_tokens = min_tokens
        self.token_eos = token_eos
        self.prompt_tokens: int | None = None

    def __call__(
        self, input_ids: npt.NDArray[np.intc], scores: npt.NDArray[np.single]
    ) -> npt.NDArray[np.single]:
        """The logits [n_vocab], the token's at minus infinity while it is barred."""
        if self.prompt_tokens is None:
            self.prompt_tokens = len(input_ids)
        if len(input_ids) - self.prompt_tokens < self.min_tokens:
            scores[self.token_eos] = -float("inf")
        return scores
