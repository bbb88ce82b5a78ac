"""Follows a grammar token by token."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgumentError
from .package import llguidance

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .. import _core

_NORMAL, _BYTE = 1, 6  # llama.cpp's types of tokens that are text


class _Vocabulary:
    """A model's tokens in the form that llguidance reads once."""

    def __init__(self, tokenizer: _core.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.eos if tokenizer.eos is not None else 0
        self.bos_token_id = tokenizer.bos
        size = tokenizer.size
        self.special_token_ids = [
            i for i in range(size) if tokenizer.types(i) not in (_NORMAL, _BYTE)
        ]
        self.tokens = [tokenizer.piece(i, True) for i in range(size)]
        self._by_bytes: dict[bytes, int] = {}
        self._line_end = tokenizer.encode(b"\n", False, False)

    def __call__(self, text: bytes) -> list[int]:
        """Tokens whose bytes are exactly the text's."""
        ids = self._tokenizer.encode(text, False, False)
        if self._is(text, ids):
            return ids
        # SentencePiece vocabularies put a space before a text: here it stands before a line end.
        ids = self._tokenizer.encode(b"\n" + text, False, False)
        n = len(self._line_end)
        if ids[:n] == self._line_end and self._is(text, ids[n:]):
            return ids[n:]
        return self._longest_first(text)

    def _is(self, text: bytes, ids: list[int]) -> bool:
        return b"".join(self.tokens[i] for i in ids) == text

    def _longest_first(self, text: bytes) -> list[int]:
        """For vocabularies that have no token for a space, say: as many bytes at a time as can be.

        Ends early where no token goes on.
        """
        if not self._by_bytes:
            special = set(self.special_token_ids)
            self._by_bytes = {t: i for i, t in enumerate(self.tokens) if t and i not in special}
        longest = max(map(len, self._by_bytes), default=0)
        ids: list[int] = []
        at = 0
        while at < len(text):
            n = next((n for n in range(longest, 0, -1) if text[at : at + n] in self._by_bytes), 0)
            if n == 0:
                break
            ids.append(self._by_bytes[text[at : at + n]])
            at += len(text[at : at + n])
        return ids


_vocabularies: weakref.WeakKeyDictionary[_core.Model, tuple[Any, list[int]]] = (
    weakref.WeakKeyDictionary()
)


def _vocabulary_of(model: _core.Model) -> tuple[Any, list[int]]:
    """Llguidance's tokenizer of a model and its end-of-text tokens; made once."""
    found = _vocabularies.get(model)
    if found is None:
        package = llguidance()
        tokenizer = model.tokenizer
        ends = [i for i in range(tokenizer.size) if tokenizer.ends_generation(i)]
        wrapped = package.TokenizerWrapper(_Vocabulary(tokenizer))
        found = package.LLTokenizer(wrapped, eos_token=ends or None), ends
        _vocabularies[model] = found
    return found


class GrammarFilter:
    """A `TokenFilter` for one text that follows `grammar`, one of `structure`'s.

    Raises InvalidArgumentError when the grammar is too complex for llguidance's limits.
    """

    def __init__(self, grammar: str, model: _core.Model) -> None:
        vocabulary, self._ends = _vocabulary_of(model)
        self._matcher = llguidance().LLMatcher(vocabulary, grammar, log_level=0)
        self._check()

    def fill(self, mask: npt.NDArray[np.uint32]) -> bool:
        """See `TokenFilter`."""
        if self._matcher.is_stopped():
            for end in self._ends:
                mask[end // 32] |= 1 << (end % 32)
            return True
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        self._check()
        return True

    def accept(self, token: int) -> None:
        """See `TokenFilter`."""
        self._matcher.consume_token(token)
        self._check()

    def done(self) -> bool:
        """See `TokenFilter`."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            # What follows is for the authors of llguidance.
            sentence = " ".join(self._matcher.get_error().partition("<state>")[0].split())
            raise InvalidArgumentError(f"the grammar cannot be followed: {sentence:.500}")
