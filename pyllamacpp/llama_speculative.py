"""Draft models, where llama-cpp-python has them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from .drafting import LlamaPromptLookupDecoding, SmallModelDrafting

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["LlamaDraftModel", "LlamaPromptLookupDecoding", "SmallModelDrafting"]


class LlamaDraftModel(ABC):
    """What a draft model of one's own may derive from; any function of ids serves as well."""

    @abstractmethod
    def __call__(self, input_ids: npt.NDArray[np.intc], /, **kwargs: Any) -> npt.NDArray[np.intc]:
        """Ids that may follow `input_ids`, none if it has no idea."""


LlamaDraftModel.register(LlamaPromptLookupDecoding)
LlamaDraftModel.register(SmallModelDrafting)
