"""A chat template in Jinja's sandbox: a conversation to the text the model was trained on.

Templates come out of model files, so they are untrusted: they run in the immutable sandbox, with
the few names that templates of the ecosystem expect and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import FormatError, InvalidArgumentError, UnsupportedError

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The format used for a file that brings no template."""


class _GenerationTag(Extension):
    """`{% generation %}` marks the answers for training; here its body stands for itself."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as an instance variable

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _RefusalError(Exception):
    """The template called raise_exception."""


def _raise_exception(message: object) -> None:
    raise _RefusalError(str(message))


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


class ChatTemplate:
    """One template, compiled.

    bos, eos: texts of those tokens, for templates that write them.
    Raises FormatError for a template that Jinja cannot compile.
    """

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        del environment.globals["lipsum"]  # text of any length for nothing
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self._variables = {"bos_token": bos, "eos_token": eos}
        try:
            self._template = environment.from_string(source)
        # SyntaxError: Jinja's own output, when blocks are nested deeper than Python allows.
        except (jinja2.TemplateError, RecursionError, SyntaxError) as error:
            raise FormatError(f"the chat template cannot be compiled: {error}") from error

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> str:
        """The prompt of a conversation, up to where the answer begins.

        Raises InvalidArgumentError when the template refuses the messages (an unknown role, say)
        and FormatError when the template itself fails or leaves its sandbox.
        """
        checked = [_checked(message) for message in messages]
        if not checked:
            raise InvalidArgumentError("messages must hold at least one message")
        try:
            return self._template.render(
                messages=checked, add_generation_prompt=add_generation_prompt, **self._variables
            )
        except _RefusalError as refusal:
            raise InvalidArgumentError(
                f"the chat template refuses these messages: {refusal}"
            ) from None
        except Exception as error:  # a template can fail in any way a program can
            raise FormatError(f"the chat template fails: {error}") from error


def _checked(message: object) -> dict[str, Any]:
    """A copy of the message with its content as one string."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidArgumentError(
            f'a message must be a dict with "role" and "content", found {message!r:.80}'
        )
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part_text(part) for part in content)
    elif not isinstance(content, str):
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
