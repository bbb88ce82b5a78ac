"""GBNF, llama.cpp's notation for grammars, in llguidance's dialect of Lark."""

from __future__ import annotations

import re

from ..errors import InvalidArgumentError
from .package import llguidance

# Escapes, and any other pair that begins with a backslash, so that "\\\\u" is no escape.
_ESCAPES = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|.)", re.DOTALL)
_MEANS_SOMETHING = frozenset("\\\"'/[]^-")


def lark_of_gbnf(text: str) -> str:
    """The grammar in Lark; its first rule is `start`, for GBNF's `root`.

    Raises InvalidArgumentError that says where the text is none.
    """
    llguidance()
    from llguidance.gbnf_to_lark import gbnf_to_lark

    if not re.search(r"^\s*root\s*::=", text, re.MULTILINE):
        raise InvalidArgumentError("a GBNF grammar needs a rule named root, and there is none")
    try:
        lark: str = gbnf_to_lark(_ESCAPES.sub(_plain, text))
    except RecursionError:
        raise InvalidArgumentError("the grammar is nested too deeply") from None
    except Exception as error:  # the converter raises Exception itself
        raise InvalidArgumentError(f"the GBNF grammar is wrong: {error!s:.500}") from None
    return lark


def _plain(match: re.Match[str]) -> str:
    """A character's own, or its escape of two digits: what the converter knows."""
    digits = match[1] or match[2]
    if digits is None:
        return match[0]
    code = int(digits, 16)
    if code < 0x80 and (code < 0x20 or code == 0x7F or chr(code) in _MEANS_SOMETHING):
        return f"\\x{code:02x}"
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise InvalidArgumentError(f"the GBNF grammar is wrong: {match[0]} is no character")
    return chr(code)
