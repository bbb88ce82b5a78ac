"""From texts to ids where the file's vocabulary is not all: a user's tokenizer, filling in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

from . import _core
from .errors import InvalidArgumentError


class BaseLlamaTokenizer(ABC):
    """From bytes to ids and back."""

    @abstractmethod
    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        """Ids of `text`; `special`: special tokens in it are parsed."""

    @abstractmethod
    def detokenize(
        self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """Bytes of `tokens`, which come after `prev_tokens`."""


class GivenTokenizer:
    """A user's tokenizer in the place of a vocabulary: its ids, all else is the vocabulary's."""

    def __init__(self, given: BaseLlamaTokenizer, own: _core.Tokenizer) -> None:
        self._given = given
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def encode(
        self, text: bytes, add_special: bool, parse_special: bool, mark: bytes = b""
    ) -> list[int]:
        """As `_core.Tokenizer.encode`.

        Raises InvalidArgumentError for ids outside of the vocabulary, and for a marked special
        token, which such a tokenizer would parse.
        """
        if mark and mark in text:
            raise InvalidArgumentError(
                "a message spells a special token, which the tokenizer that was given would take "
                "for one"
            )
        ids = [index(token) for token in self._given.tokenize(text, add_special, parse_special)]
        for token in ids:
            if not 0 <= token < self._own.size:
                raise InvalidArgumentError(
                    f"the tokenizer that was given made token {token}, which is outside the "
                    f"vocabulary of {self._own.size}"
                )
        return ids


@dataclass(frozen=True)
class InfillTokens:
    """What a model that fills in has before the text, before what follows, before its own."""

    prefix: int
    suffix: int
    middle: int

    @staticmethod
    def of(model: _core.Model) -> InfillTokens | None:
        """Those that the file states, else those of known names; None: the model has none."""
        for names in _KEYS:
            stated = [model.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in names]
            found = [token for token in stated if isinstance(token, int)]
            if len(found) == len(names):
                return InfillTokens(*found)
        for names in _NAMES:
            spelled = [model.tokenizer.encode(name.encode(), False, True) for name in names]
            if all(len(ids) == 1 for ids in spelled):
                return InfillTokens(*(ids[0] for ids in spelled))
        return None

    def prompt(
        self, tokenizer: _core.Tokenizer, before: bytes, after: bytes, *, suffix_first: bool
    ) -> list[int]:
        """The ids that ask for what is between `before` and `after`; no special token is parsed.

        suffix_first: what follows comes first (llama.cpp's spm_infill).
        """
        prefix = [self.prefix, *tokenizer.encode(before, False, False)]
        suffix = [self.suffix, *_within_a_text(tokenizer, after)]
        bos = [tokenizer.bos] if tokenizer.add_bos and tokenizer.bos is not None else []
        parts = [suffix, prefix] if suffix_first else [prefix, suffix]
        return [*bos, *parts[0], *parts[1], self.middle]


_KEYS = (("fim_pre", "fim_suf", "fim_mid"), ("prefix", "suffix", "middle"))
_NAMES = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
)


def _within_a_text(tokenizer: _core.Tokenizer, text: bytes) -> list[int]:
    """Ids without the space that SentencePiece vocabularies put before a text."""
    if tokenizer.model != "llama":
        return tokenizer.encode(text, False, False)
    head = tokenizer.encode(b"\n", False, False)
    return tokenizer.encode(b"\n" + text, False, False)[len(head) :]
