"""A chat template in Jinja's sandbox: a conversation to the text the model was trained on.

Templates come out of model files, so they are untrusted: they run in the sandbox of `sandbox.py`,
with the few names that templates of the ecosystem expect, and within a budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import jinja2
import jinja2.meta

from ..errors import FormatError, InvalidArgumentError, UnsupportedError
from .sandbox import METER, Meter, Sandbox, metered

MOST_SOURCE = 100_000  # characters; published templates have up to some 20,000


class _RefusalError(Exception):
    """The template called raise_exception."""


def _raise_exception(message: object) -> None:
    raise _RefusalError(str(message))


class ChatTemplate:
    """One template, compiled.

    source: at most MOST_SOURCE characters; bos, eos: texts of those tokens, for templates that
    write them. Raises FormatError for a template that Jinja cannot compile.
    """

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        if len(source) > MOST_SOURCE:
            raise FormatError(
                f"the chat template has {len(source):,} characters, the most is {MOST_SOURCE:,}"
            )
        self.source = source
        environment = Sandbox()
        environment.globals["raise_exception"] = _raise_exception
        self._variables = {"bos_token": bos, "eos_token": eos}
        try:
            code = environment.compile(metered(environment.parse(source), environment))
            self._template = jinja2.Template.from_code(environment, code, environment.globals)
        except Exception as error:  # Python's compiler has limits of its own, and errors for them
            raise FormatError(
                f"the chat template cannot be compiled: {_sentence(error)}"
            ) from error

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names that it looks up: what it can be given, and what is there."""
        return frozenset(jinja2.meta.find_undeclared_variables(Sandbox().parse(self.source)))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = True,
        now: datetime | None = None,
    ) -> str:
        """The prompt of a conversation, up to where the answer begins.

        tools: as OpenAI writes them, for templates that offer them; None: undefined there.
        variables: further ones, by their names.
        now: the time that templates with a date write; None: this moment.
        Raises InvalidArgumentError when the template refuses the messages (an unknown role, say)
        and FormatError when the template itself fails, leaves its sandbox or goes on for too long.
        """
        checked = [_checked(message) for message in messages]
        if not checked:
            raise InvalidArgumentError("messages must hold at least one message")
        offered = {} if tools is None else {"tools": list(tools)}
        given = dict(variables or {})
        everything = {
            **self._variables,
            **given,
            **offered,
            "messages": checked,
            "add_generation_prompt": add_generation_prompt,
            "strftime_now": (now or datetime.now()).strftime,
        }
        try:
            return self._template.render({**everything, METER: Meter([checked, offered, given])})
        except _RefusalError as refusal:
            raise InvalidArgumentError(
                f"the chat template refuses these messages: {_sentence(refusal)}"
            ) from None
        except Exception as error:  # a template can fail in any way a program can
            raise FormatError(f"the chat template fails: {_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    """What an error says, which may be nothing, or all of a conversation."""
    if isinstance(error, RecursionError):
        return "it nests or calls itself too deep"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    return f"{error!s:.500}" or type(error).__name__


def _checked(message: object) -> dict[str, Any]:
    """A copy of the message with its content as one string, or None beside calls of tools."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidArgumentError(
            f'a message must be a dict with "role" and "content", found {message!r:.80}'
        )
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part_text(part) for part in content)
    elif not isinstance(content, str) and not (content is None and message.get("tool_calls")):
        raise InvalidArgumentError(
            f"the content of a message must be a string, found {content!r:.80}"
        )
    return {**message, "content": content}


def _part_text(part: object) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text":
        text = part.get("text")
        if isinstance(text, str):
            return text
    raise UnsupportedError(f"only text parts of a message are supported, found {part!r:.80}")
