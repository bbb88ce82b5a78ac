"""LLaMA inference for the hardware people own.

>>> from pyllamacpp import Llama
>>> llm = Llama("model.gguf")
>>> llm("The capital of France is", max_tokens=8)["choices"][0]["text"]

`Llama` takes the arguments and returns the dicts of llama-cpp-python's class of that name. It is
imported on first use, so that `import pyllamacpp` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import constants, errors
from .constants import *  # noqa: F403
from .errors import (
    CancelledError,
    ContextFullError,
    FileError,
    FormatError,
    InvalidArgumentError,
    ModelFileError,
    NotEnabledError,
    OutOfMemoryError,
    PyllamacppError,
    UnsupportedError,
)

try:
    from ._core import version as __version__
except ModuleNotFoundError as _missing:
    if _missing.name != f"{__name__}._core":
        raise
    raise ImportError(
        "pyllamacpp is not installed: this is its source tree, without the compiled extension; "
        "run pip install ."
    ) from None

if TYPE_CHECKING:
    from .drafting import LlamaPromptLookupDecoding, SmallModelDrafting
    from .embedding import (
        LLAMA_POOLING_TYPE_CLS,
        LLAMA_POOLING_TYPE_LAST,
        LLAMA_POOLING_TYPE_MEAN,
        LLAMA_POOLING_TYPE_NONE,
        LLAMA_POOLING_TYPE_RANK,
        LLAMA_POOLING_TYPE_UNSPECIFIED,
    )
    from .grammar import LlamaGrammar
    from .llama import Llama
    from .llama_cache import BaseLlamaCache, LlamaCache, LlamaDiskCache, LlamaRAMCache
    from .llama_speculative import LlamaDraftModel
    from .llama_tokenizer import LlamaTokenizer
    from .params import LogitsProcessor, StoppingCriteria
    from .processors import LogitsProcessorList, MinTokensLogitsProcessor, StoppingCriteriaList
    from .state import LlamaState
    from .system import (
        llama_print_system_info,
        llama_supports_gpu_offload,
        llama_supports_mlock,
        llama_supports_mmap,
    )

__all__ = [
    "LLAMA_POOLING_TYPE_CLS",
    "LLAMA_POOLING_TYPE_LAST",
    "LLAMA_POOLING_TYPE_MEAN",
    "LLAMA_POOLING_TYPE_NONE",
    "LLAMA_POOLING_TYPE_RANK",
    "LLAMA_POOLING_TYPE_UNSPECIFIED",
    "BaseLlamaCache",
    "CancelledError",
    "ContextFullError",
    "FileError",
    "FormatError",
    "InvalidArgumentError",
    "Llama",
    "LlamaCache",
    "LlamaDiskCache",
    "LlamaDraftModel",
    "LlamaGrammar",
    "LlamaPromptLookupDecoding",
    "LlamaRAMCache",
    "LlamaState",
    "LlamaTokenizer",
    "LogitsProcessor",
    "LogitsProcessorList",
    "MinTokensLogitsProcessor",
    "ModelFileError",
    "NotEnabledError",
    "OutOfMemoryError",
    "PyllamacppError",
    "SmallModelDrafting",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "UnsupportedError",
    "__version__",
    "errors",
    "llama_print_system_info",
    "llama_supports_gpu_offload",
    "llama_supports_mlock",
    "llama_supports_mmap",
]
__all__ += constants.__all__


# Where the names lie that are imported on first use.
_LATER = {
    "LLAMA_POOLING_TYPE_CLS": "embedding",
    "LLAMA_POOLING_TYPE_LAST": "embedding",
    "LLAMA_POOLING_TYPE_MEAN": "embedding",
    "LLAMA_POOLING_TYPE_NONE": "embedding",
    "LLAMA_POOLING_TYPE_RANK": "embedding",
    "LLAMA_POOLING_TYPE_UNSPECIFIED": "embedding",
    "BaseLlamaCache": "llama_cache",
    "Llama": "llama",
    "LlamaCache": "llama_cache",
    "LlamaDiskCache": "llama_cache",
    "LlamaDraftModel": "llama_speculative",
    "LlamaRAMCache": "llama_cache",
    "LlamaState": "state",
    "LlamaGrammar": "grammar",
    "LlamaPromptLookupDecoding": "drafting",
    "LlamaTokenizer": "llama_tokenizer",
    "LogitsProcessor": "params",
    "LogitsProcessorList": "processors",
    "MinTokensLogitsProcessor": "processors",
    "SmallModelDrafting": "drafting",
    "StoppingCriteria": "params",
    "StoppingCriteriaList": "processors",
    "llama_print_system_info": "system",
    "llama_supports_gpu_offload": "system",
    "llama_supports_mlock": "system",
    "llama_supports_mmap": "system",
}


def __getattr__(name: str) -> object:
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
