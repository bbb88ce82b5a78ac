"""Tokenizers as objects, under the names of `llama_cpp.llama_tokenizer`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol

from .encoding import BaseLlamaTokenizer as BaseLlamaTokenizer
from .errors import FileError, UnsupportedError
from .session import Session


class _Tokens(Protocol):
    """A `Llama`, as far as its tokens go."""

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Ids of `text`."""

    def detokenize(
        self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """Bytes of `tokens`."""


class LlamaTokenizer(BaseLlamaTokenizer):
    """The tokenizer of a `Llama`."""

    def __init__(self, llama: _Tokens) -> None:
        self._llama = llama

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        """Ids of `text`; `special`: special tokens in it are parsed."""
        return self._llama.tokenize(text, add_bos, special)

    def detokenize(
        self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """Bytes of `tokens`, which come after `prev_tokens`."""
        return self._llama.detokenize(tokens, prev_tokens, special)

    def encode(self, text: str, add_bos: bool = True, special: bool = True) -> list[int]:
        """Ids of a text."""
        return self.tokenize(text.encode("utf-8", errors="ignore"), add_bos, special)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ids, without the parts of characters at its ends."""
        return self.detokenize(tokens).decode("utf-8", errors="ignore")

    @classmethod
    def from_ggml_file(cls, path: str | os.PathLike[str]) -> LlamaTokenizer:
        """That of a GGUF file, whose weights are not loaded. Raises as loading does."""
        return cls(Session(path, vocab_only=True, verbose=False))


class LlamaHFTokenizer(BaseLlamaTokenizer):
    """A tokenizer of the packages transformers or tokenizers, for `Llama(tokenizer=...)`."""

    def __init__(self, hf_tokenizer: Any) -> None:
        self.hf_tokenizer = hf_tokenizer

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        """Ids of `text`; add_bos: with the tokens that it puts around a text.

        special is for the shape's sake: special tokens in a text are always parsed.
        """
        del special
        found = self.hf_tokenizer.encode(
            text.decode("utf-8", errors="ignore"), add_special_tokens=add_bos
        )
        return list(getattr(found, "ids", found))

    def detokenize(
        self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """Bytes of `tokens`, which come after `prev_tokens`."""
        before = list(prev_tokens or ())
        skip = self._bytes(before, special)
        return self._bytes([*before, *tokens], special)[len(skip) :]

    def _bytes(self, tokens: list[int], special: bool) -> bytes:
        text: str = self.hf_tokenizer.decode(tokens, skip_special_tokens=not special)
        return text.encode()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str) -> LlamaHFTokenizer:
        """That of a repository of the hub or of a folder, by transformers or else tokenizers.

        Raises UnsupportedError without both packages, FileError where there is none.
        """
        name = pretrained_model_name_or_path
        try:
            try:
                from transformers import AutoTokenizer

                return cls(AutoTokenizer.from_pretrained(name))
            except ImportError:
                from tokenizers import Tokenizer
        except ImportError as error:
            raise UnsupportedError(
                "LlamaHFTokenizer needs one more package: pip install tokenizers"
            ) from error
        path = os.path.join(name, "tokenizer.json")  # noqa: PTH118  (a name may be no path)
        try:
            if os.path.isdir(name):  # noqa: PTH112
                return cls(Tokenizer.from_file(path))
            return cls(Tokenizer.from_pretrained(name))
        except Exception as error:  # tokenizers raises plain exceptions
            raise FileError(f"there is no tokenizer in {name}: {error}") from error
