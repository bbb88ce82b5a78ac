"""Which syntax a template writes calls in, found by having it write one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .calls import CallParser, CallPiece
from .history import with_arguments_as_text, with_content_as_text, with_one_call_a_turn
from .syntax import SYNTAXES, ToolSyntax

Messages = Sequence[Mapping[str, Any]]
Text = Callable[[Messages, Sequence[Mapping[str, Any]] | None], str]

_NAME, _ARGUMENTS = "find_the_syntax", {"of": 'this "template"'}
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "Finds the syntax.",
        "parameters": {"type": "object", "properties": {"of": {"type": "string"}}},
    },
}
_USER = {"role": "user", "content": "x"}
_IDS = ("a1b2c3d4e", "f5g6h7i8j")
_CALLS = [
    {"id": id_, "type": "function", "function": {"name": _NAME, "arguments": _ARGUMENTS}}
    for id_ in _IDS
]
_CALL = {"role": "assistant", "content": None, "tool_calls": _CALLS[:1]}
_TWO_CALLS = {"role": "assistant", "content": None, "tool_calls": _CALLS}
_RESULTS = [{"role": "tool", "tool_call_id": id_, "content": "y"} for id_ in _IDS]
_MORE = [{"role": "assistant", "content": "z"}, _USER]


@dataclass(frozen=True)
class ToolStyle:
    """How calls are given to a template: its syntax, and what it needs of the messages."""

    syntax: ToolSyntax
    arguments_are_text: bool
    content_is_text: bool
    takes_one_call: bool = False

    def fitted(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Messages of `history.uniform` as the template takes them."""
        if self.takes_one_call:
            messages = with_one_call_a_turn(messages)
        if self.arguments_are_text:
            messages = with_arguments_as_text(messages)
        return with_content_as_text(messages) if self.content_is_text else messages


def find_style(text: Text) -> ToolStyle | None:
    """The style of a template that offers tools and writes calls as one of SYNTAXES, else None.

    text: renders messages and tools, with whatever exception it fails.
    """
    start = _tried(text, [_USER], [_TOOL])
    if start is None or _NAME not in start:
        return None
    for content_is_text in (False, True):
        for arguments_are_text in (False, True):
            style = ToolStyle(SYNTAXES[0], arguments_are_text, content_is_text)
            # Later messages may be written in another way than the last.
            later = style.fitted([_USER, _CALL, _RESULTS[0], *_MORE])
            whole = _tried(text, style.fitted([_USER, _CALL]), [_TOOL])
            if whole is None or _tried(text, later, [_TOOL]) is None:
                continue
            begin = _where_they_differ(start, whole)
            for syntax in SYNTAXES:
                if _reads(syntax, whole, begin):
                    two = style.fitted([_USER, _TWO_CALLS, *_RESULTS, *_MORE])
                    takes_one = _tried(text, two, [_TOOL]) is None
                    return replace(style, syntax=syntax, takes_one_call=takes_one)
    return None


def _where_they_differ(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def takes_system(text: Text) -> bool:
    """Whether a system message shows in what the template writes."""
    shown = _tried(text, [{"role": "system", "content": _NAME}, _USER], None)
    return shown is not None and _NAME in shown


def _tried(text: Text, messages: Messages, tools: Sequence[Mapping[str, Any]] | None) -> str | None:
    try:
        return text(messages, tools)
    except Exception:  # templates and users' formatters fail in any way a program can
        return None


def _reads(syntax: ToolSyntax, text: str, begin: int) -> bool:
    """Whether the call that begins at `begin`, or has begun just before, is in this syntax."""
    if syntax.writes_opening:
        begin = text.find(syntax.opening, max(0, begin - len(syntax.opening) + 1))
        if begin < 0 or (syntax.names_first and "[ARGS]" not in text[begin:]):
            return False
    parser = CallParser(syntax, (_NAME,))
    pieces = [*parser.feed(text[begin:]), *parser.finish()]
    arguments = "".join(piece.arguments for piece in pieces if isinstance(piece, CallPiece))
    try:
        return parser.n_calls == 1 and json.loads(arguments) == _ARGUMENTS
    except ValueError:
        return False
