"""Finds calls of tools in an answer as it comes, piece by piece."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from typing import TypeAlias

from .syntax import ToolSyntax

SPACE = " \t\r\n"
_ID_CHARACTERS = string.ascii_letters + string.digits
# A key beside these makes an object without an opening an answer in JSON, not a call.
_ARGUMENTS = ("arguments", "parameters")
_KEYS = ("name", *_ARGUMENTS, "type", "id")

_Reading: TypeAlias = Generator[None, None, "int | None"]


def new_call_id() -> str:
    """Nine letters and digits: what Mistral's templates insist on."""
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(9))


def undecided(text: str, mark: str) -> int:
    """Where space, a mark or the start of one at the end begins: all before is text."""
    at = text.find(mark)
    if at < 0:
        at = len(text)
        for n in range(min(len(mark) - 1, at), 0, -1):
            if text.endswith(mark[:n]):
                at -= n
                break
    return len(text[:at].rstrip(SPACE))


@dataclass(frozen=True)
class CallPiece:
    """A piece of a call. The first of each call has its id and name, the others None.

    arguments: the next piece of a JSON object's text, as the model wrote it.
    """

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


class CallParser:
    """Takes an answer apart: text, and calls of the tools offered.

    Text is passed on at once unless it may begin a call. A call is one once its tool's name and the
    start of its arguments are there; what turns out to be none, names another tool or is cut off
    before, is text. Arguments are passed on as they come, up to the bracket that closes them or the
    end of the answer, and not checked. Space before and between calls is dropped.
    The pieces together are the same however the answer was split.
    """

    def __init__(
        self,
        syntax: ToolSyntax,
        names: Collection[str],
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self.n_calls = 0
        self._syntax = syntax
        self._names = frozenset(names)
        self._new_id = new_id
        self._buffer = ""  # not yet passed on
        self._ended = False
        self._is_tagged = False  # an opening was read
        self._out: list[str | CallPiece] = []
        self._answer = self._read_answer()
        next(self._answer)

    def feed(self, text: str) -> list[str | CallPiece]:
        """What is certain after some more text."""
        self._buffer += text
        return self._advance()

    def finish(self) -> list[str | CallPiece]:
        """The rest, at the end of the answer."""
        self._ended = True
        return self._advance()

    def _advance(self) -> list[str | CallPiece]:
        next(self._answer, None)
        out, self._out = self._out, []
        return out

    # The readers below are generators: each `yield` waits for more text or the end. Offsets are
    # into the buffer, which keeps what may still turn out to be text.

    def _read_answer(self) -> Generator[None, None, None]:
        yield
        if self._syntax.is_bare:
            yield from self._calls(0)
        while True:
            self._pass_on(undecided(self._buffer, self._syntax.opening))
            at = len(self._buffer) - len(self._buffer.lstrip(SPACE))
            opening = self._syntax.opening
            if self._buffer.startswith(opening, at):
                self._is_tagged = True
                at += len(opening)
                if not (yield from self._calls(at)):
                    self._pass_on(at)
            elif self._ended:
                if self._buffer.strip(SPACE) or not self.n_calls:
                    self._pass_on(len(self._buffer))
                return
            else:
                yield

    def _pass_on(self, end: int) -> None:
        if end:
            self._out.append(self._buffer[:end])
            self._buffer = self._buffer[end:]

    # -- calls ---------------------------------------------------------------------------------

    def _calls(self, at: int) -> Generator[None, None, bool]:
        """Calls from `at` on, with what closes them; False, and nothing read, if there is none."""
        at = yield from self._after_space(at)
        in_list = (yield from self._peek(at)) == "["
        if in_list:
            at = yield from self._after_space(at + 1)
        if not (yield from self._call(at)):
            return False
        separators = "," if in_list else self._syntax.separator.strip()
        while True:
            at = yield from self._after_space(0)
            found = yield from self._peek(at)
            if found and found in separators:
                at = yield from self._after_space(at + 1)
                if (yield from self._call(at)):
                    continue
            elif in_list and found == "]":
                self._buffer = self._buffer[at + 1 :]
                at = yield from self._after_space(0)
            break
        closing = self._syntax.closing
        if closing and (yield from self._matches(at, closing)):
            self._buffer = self._buffer[at + len(closing) :]
        return True

    def _call(self, at: int) -> Generator[None, None, bool]:
        """One call from `at` on."""
        found = yield from self._peek(at)
        if found == "{":
            return (yield from self._object(at + 1))
        # NAME[ARGS]{...}, where [ARGS], if a control token, has no text.
        if self._syntax.opening != "[TOOL_CALLS]":
            return False
        begin = at
        while found and any(n.startswith(self._buffer[begin : at + 1]) for n in self._names):
            at += 1
            found = yield from self._peek(at)
        name = self._buffer[begin:at]
        if name not in self._names:
            return False
        if (yield from self._matches(at, "[CALL_ID]")):
            at += len("[CALL_ID]")
            while (yield from self._peek(at)).isalnum():
                at += 1
        if (yield from self._matches(at, "[ARGS]")):
            at += len("[ARGS]")
        at = yield from self._after_space(at)
        if (yield from self._peek(at)) != "{":
            return False
        self._begin(name, "", at)
        yield from self._arguments()
        return True

    def _object(self, at: int) -> Generator[None, None, bool]:
        """A call's object, from after its brace."""
        name: str | None = None
        arguments = "{}"
        while True:
            at = yield from self._after_space(at)
            key, end = yield from self._string(at)
            at = yield from self._after_space(end)
            if key is None or not (self._is_tagged or key in _KEYS):
                return False
            if (yield from self._peek(at)) != ":":
                return False
            begin = at = yield from self._after_space(at + 1)
            is_object = (yield from self._peek(at)) == "{"
            if key == "name":
                name, at = yield from self._string(at)
                if name not in self._names:
                    return False
            elif key in _ARGUMENTS and is_object and name is not None:
                self._begin(name, "", at)
                yield from self._arguments()
                yield from self._rest_of_object()
                return True
            else:
                after = yield from self._skip(at)
                if after is None:
                    return False
                at = after
                if key in _ARGUMENTS:
                    given = _arguments_text(self._buffer[begin:at])
                    if given is None:
                        return False
                    arguments = given
            at = yield from self._after_space(at)
            found = yield from self._peek(at)
            at += 1
            if found == "}" and name is not None:
                self._begin(name, arguments, at)
                return True
            if found != ",":
                return False

    def _begin(self, name: str, arguments: str, end: int) -> None:
        """A call, whose head ends at `end`."""
        self._out.append(CallPiece(self.n_calls, arguments, self._new_id(), name))
        self.n_calls += 1
        self._buffer = self._buffer[end:]

    def _arguments(self) -> Generator[None, None, None]:
        """Passes on the object at the start of the buffer as it comes."""
        depth = 0
        in_string = is_escaped = False
        while True:
            end = len(self._buffer)
            for i, found in enumerate(self._buffer):
                if is_escaped:
                    is_escaped = False
                elif in_string:
                    is_escaped = found == "\\"
                    in_string = found != '"'
                elif found == '"':
                    in_string = True
                elif found in "{[":
                    depth += 1
                elif found in "}]":
                    depth -= 1
                    if depth == 0:
                        end = i + 1
                        break
            if end:
                self._out.append(CallPiece(self.n_calls - 1, self._buffer[:end]))
                self._buffer = self._buffer[end:]
            if depth == 0 or self._ended:
                return
            yield

    def _rest_of_object(self) -> Generator[None, None, None]:
        """Drops what follows the arguments, as far as it is sound."""
        while True:
            at = yield from self._after_space(0)
            found = yield from self._peek(at)
            if found == "}":
                self._buffer = self._buffer[at + 1 :]
            if found != ",":
                return
            at = yield from self._after_space(at + 1)
            key, at = yield from self._string(at)
            at = yield from self._after_space(at)
            if key is None or (yield from self._peek(at)) != ":":
                return
            at = yield from self._after_space(at + 1)
            end = yield from self._skip(at)
            if end is None:
                return
            self._buffer = self._buffer[end:]

    # -- JSON ----------------------------------------------------------------------------------

    def _peek(self, at: int) -> Generator[None, None, str]:
        """The character at `at`; "" at the end of the answer."""
        while at >= len(self._buffer) and not self._ended:
            yield
        return self._buffer[at : at + 1]

    def _matches(self, at: int, text: str) -> Generator[None, None, bool]:
        for i, wanted in enumerate(text):
            if (yield from self._peek(at + i)) != wanted:
                return False
        return True

    def _after_space(self, at: int) -> Generator[None, None, int]:
        while (found := (yield from self._peek(at))) and found in SPACE:
            at += 1
        return at

    def _string(self, at: int) -> Generator[None, None, tuple[str | None, int]]:
        """A string and where it ends; None for what is none."""
        if (yield from self._peek(at)) != '"':
            return None, at
        end = yield from self._skip(at)
        if end is None:
            return None, at
        try:
            return str(json.loads(self._buffer[at:end], strict=False)), end
        except ValueError:
            return None, at

    def _skip(self, at: int) -> _Reading:
        """Where the value at `at` ends, by its quotes and brackets; None when it does not."""
        depth = 0
        in_string = False
        begin = at
        while found := (yield from self._peek(at)):
            at += 1
            if in_string:
                if found == "\\":
                    at += 1
                in_string = found != '"'
            elif found == '"':
                in_string = True
            elif found in "{[":
                depth += 1
                continue
            elif found in "}]":
                depth -= 1
            elif depth == 0 and (found in SPACE or found == ","):
                depth = -1
            if depth < 0:  # what follows a number or a word
                return at - 1 if at - 1 > begin else None
            if depth == 0 and not in_string and found in '"}]':
                return at
        return None


def _arguments_text(value: str) -> str | None:
    """The text of an object given as one, as a string that holds one, or as null."""
    try:
        given = json.loads(value, strict=False)
        text = value
        if isinstance(given, str):
            text = given
            text.encode("utf-8")
            given = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    if given is None:
        return "{}"
    return text if isinstance(given, dict) else None
