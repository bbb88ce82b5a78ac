"""Strings that may not come: the tokens that would complete one are barred, wherever it is cut."""

from __future__ import annotations

import weakref
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .errors import InvalidArgumentError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from . import _core
    from .params import TokenFilter

# Of a model, its tokens' bytes in order, and the tokens in that order; made once.
_pieces: weakref.WeakKeyDictionary[_core.Model, tuple[list[bytes], list[int]]] = (
    weakref.WeakKeyDictionary()
)


def _sorted_pieces(model: _core.Model) -> tuple[list[bytes], list[int]]:
    found = _pieces.get(model)
    if found is None:
        tokenizer = model.tokenizer
        pairs = sorted((tokenizer.piece(i, False), i) for i in range(tokenizer.size))
        found = [piece for piece, _ in pairs], [token for _, token in pairs]
        _pieces[model] = found
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


class BannedStrings:
    """Strings that texts of a model may not contain.

    Raises InvalidArgumentError for what is no list of strings that are not empty.
    """

    def __init__(self, strings: Sequence[str], model: _core.Model) -> None:
        found: object = strings
        is_list = isinstance(found, Sequence) and not isinstance(found, str)
        if not is_list or not all(_is_text(string) for string in strings):
            raise InvalidArgumentError(
                f"banned_strings must be a list of non-empty strings, found {strings!r:.80}"
            )
        self.model = model
        whole = [string.encode("utf-8", "surrogatepass") for string in strings]
        self.n_kept = max(map(len, whole), default=1) - 1
        pieces, tokens = _sorted_pieces(model)
        self.always = [
            token
            for piece, token in zip(pieces, tokens, strict=True)
            if any(string in piece for string in whole)
        ]
        # The beginning of a string -> the tokens that would complete it.
        self.after: dict[bytes, list[int]] = {}
        for string in whole:
            for n in range(1, len(string)):
                rest = string[n:]
                first = bisect_left(pieces, rest)
                # No piece of UTF-8 has the byte 255 after what it begins with.
                last = bisect_left(pieces, rest + b"\xff", first)
                self.after.setdefault(string[:n], []).extend(tokens[first:last])

    def completing(self, text: bytes) -> list[int]:
        """The tokens that would complete a string after `text`."""
        found = list(self.always)
        for n in range(1, len(text) + 1):
            found += self.after.get(text[-n:], ())
        return found

    def filter(self, inner: TokenFilter | None) -> BannedFilter:
        """For one text, which must follow `inner` too."""
        return BannedFilter(self, inner)


class BannedFilter:
    """A `TokenFilter` for one text."""

    def __init__(self, banned: BannedStrings, inner: TokenFilter | None) -> None:
        self._banned = banned
        self._inner = inner
        self._tail = b""

    def fill(self, mask: npt.NDArray[np.uint32]) -> bool:
        """See `TokenFilter`."""
        is_filled = self._inner is not None and self._inner.fill(mask)
        tokens = self._banned.completing(self._tail)
        if not tokens:
            return is_filled
        if not is_filled:
            mask[:] = 0xFFFFFFFF
        for token in tokens:
            mask[token // 32] &= ~(1 << (token % 32)) & 0xFFFFFFFF
        return True

    def accept(self, token: int) -> None:
        """See `TokenFilter`."""
        if self._inner is not None:
            self._inner.accept(token)
        piece = self._banned.model.tokenizer.piece(token, False)
        n_kept = self._banned.n_kept
        self._tail = (self._tail + piece)[-n_kept:] if n_kept else b""

    def done(self) -> bool:
        """See `TokenFilter`."""
        return self._inner is not None and self._inner.done()
