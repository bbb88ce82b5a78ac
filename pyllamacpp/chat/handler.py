"""What becomes of a request before a model sees it, and how its answer is to be read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from ..errors import InvalidArgumentError
from . import history
from .calls import CallParser
from .format import FILE_TEMPLATES, ChatFormat, Prompt
from .reasoning import CLOSING, OPENING, Reasoning, ThoughtLimit, ThoughtReader
from .registry import FormatterHandler, LlamaChatCompletionHandler, registered
from .structure import Structure, answer_schema, structure_of
from .style import ToolStyle, find_style, takes_system
from .syntax import HERMES, ToolSyntax
from .tools import ToolUse, tool_use

if TYPE_CHECKING:
    from .. import _core
    from .registry import StoppingCriterion

_NORMAL, _CONTROL, _BYTE = 1, 3, 6  # llama.cpp's types of tokens
# How calls are offered to a model whose template has no words for them.
_OFFER = """\
You can call functions. These are there, each with the JSON schema of its arguments:
{tools}

To call one, write its name and its arguments as a JSON object, like this and nothing else:
<tool_call>
{{"name": "the_name", "arguments": {{"an_argument": "its value"}}}}
</tool_call>
To call several, write several. What they return comes in <tool_response></tool_response>."""


@dataclass(frozen=True)
class Prepared:
    """A request as the engine takes it.

    tokens: the prompt's ids. stop, stopping_criteria: what ends the answer, besides the caller's.
    structure: what the answer must be, None: anything. shown: control tokens whose text belongs
    to the answer, since calls begin with them. parts_thoughts: what is thought comes apart from
    the answer; starts_inside: the answer begins within it. limit: of its tokens, None: none.
    """

    tokens: list[int]
    stop: tuple[str, ...]
    stopping_criteria: StoppingCriterion | None
    structure: Structure | None
    shown: tuple[int, ...]
    syntax: ToolSyntax
    tools: ToolUse | None
    parts_thoughts: bool = False
    starts_inside: bool = False
    limit: ThoughtLimit | None = None

    def new_thought_reader(self) -> ThoughtReader | None:
        """Takes the thought off the start of one answer; None: it is left in the text."""
        return ThoughtReader(starts_inside=self.starts_inside) if self.parts_thoughts else None

    def new_parser(self) -> CallParser | None:
        """Takes one answer apart; None: it can have no calls."""
        return None if self.tools is None else CallParser(self.syntax, self.tools.names)

    @property
    def is_legacy(self) -> bool:
        """Whether calls are answered as `function_call`."""
        return self.tools is not None and self.tools.is_legacy

    @property
    def is_single(self) -> bool:
        """Whether the first call of an answer is all that is asked for."""
        return self.tools is not None and self.tools.is_single


class ChatHandler:
    """Requests in a chat format, with tools for every format.

    A format that offers tools and writes calls in a syntax of `SYNTAXES` does so itself. For others
    the tools are offered in the system message, or the user's first where there can be none, and
    calls are written in HERMES' syntax.
    """

    def __init__(self, chat_format: ChatFormat) -> None:
        self.format = chat_format

    @cached_property
    def _style(self) -> ToolStyle | None:
        return find_style(self.format.text)

    def prepare(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[object] | None = None,
        tool_choice: object = None,
        functions: Sequence[object] | None = None,
        function_call: object = None,
        response_format: object = None,
        parallel_tool_calls: object = True,
        reasoning: Reasoning | None = None,
        bound: str = "",
    ) -> Prepared:
        """The arguments of `create_chat_completion` in one form.

        With tool_choice "none" no tools are offered. bound: the argument besides these that says
        how the whole answer is written; "": none. Raises InvalidArgumentError for what has not the
        form that `llama_types` gives, and as `ChatFormat.variables` and `ChatFormat.prompt`.
        """
        reasoning = reasoning or Reasoning()
        use = tool_use(tools, tool_choice, functions, function_call, parallel_tool_calls)
        schema = answer_schema(response_format)
        said = history.uniform(messages)
        offered = None if use is None else use.tools
        syntax = HERMES
        if offered or history.has_calls(said):
            if self._style is not None:
                syntax = self._style.syntax
                said = self._style.fitted(said)
            else:
                said = history.in_words(said, syntax)
                if use is not None:
                    said = self._offered_in_words(said, use)
                offered = None
        structure = structure_of(use, schema, syntax, self._special_token)
        if structure is not None:
            bound = "response_format" if schema is not None else "calls that are required"
        variables = self.format.variables(reasoning, bound)
        thinks = reasoning.wanted is not False and not bound
        prompt = self.format.prompt(said, offered, variables, thinks=thinks)
        parts_thoughts = reasoning.parts and not bound
        markers = [OPENING, CLOSING] if parts_thoughts else []
        if use is not None:
            markers += [syntax.opening, syntax.closing, "[ARGS]", "[CALL_ID]"]
        return Prepared(
            prompt.tokens,
            prompt.stop,
            prompt.stopping_criteria,
            structure,
            self._shown(markers),
            syntax,
            use,
            parts_thoughts,
            prompt.is_open,
            self._limit(reasoning, prompt, bound),
        )

    def _limit(self, reasoning: Reasoning, prompt: Prompt, bound: str) -> ThoughtLimit | None:
        if reasoning.limit is None or bound:  # where there are no thoughts, they keep to any limit
            return None
        tokenizer = self.format.tokenizer
        closing = tuple(tokenizer.encode(CLOSING.encode(), False, True))
        return ThoughtLimit(
            reasoning.limit, closing, lambda token: tokenizer.piece(token, True), prompt.is_open
        )

    def _offered_in_words(self, said: list[dict[str, Any]], use: ToolUse) -> list[dict[str, Any]]:
        lines = [json.dumps(tool["function"], ensure_ascii=False) for tool in use.tools]
        offer = _OFFER.format(tools="\n".join(lines))
        if len(use.must_call) == 1:
            offer += f"\nCall {use.must_call[0]} now."
        elif use.must_call:
            offer += "\nCall one now."
        elif use.is_single:
            offer += "\nCall one at a time."
        if takes_system(self.format.text):
            return _joined(said, "system", "", f"\n\n{offer}")
        return _joined(said, "user", f"{offer}\n\n", "")

    def _special_token(self, text: str) -> int | None:
        """The token that is this text as a whole, if there is one and it is special."""
        ids = self.format.tokenizer.encode(text.encode(), False, True)
        is_special = len(ids) == 1 and self.format.tokenizer.types(ids[0]) not in (_NORMAL, _BYTE)
        return ids[0] if is_special else None

    def _shown(self, markers: Sequence[str]) -> tuple[int, ...]:
        tokens = [self._special_token(marker) for marker in markers if marker]
        types = self.format.tokenizer.types
        return tuple(token for token in tokens if token is not None and types(token) == _CONTROL)


def _joined(said: list[dict[str, Any]], role: str, before: str, after: str) -> list[dict[str, Any]]:
    """The messages with text around the first one, if it has the role, or else in one of its own.

    One of both texts is empty.
    """
    if not said or said[0].get("role") != role:
        return [{"role": role, "content": (before + after).strip()}, *said]
    content = said[0].get("content")
    if isinstance(content, list):
        around = [{"type": "text", "text": text} for text in (before, after)]
        content = [*around[:1], *content, *around[1:]]
    elif isinstance(content, str):
        content = before + content + after
    return [{**said[0], "content": content}, *said[1:]]


def chat_handler(
    model: _core.Model,
    chat_format: str | None,
    handler: object | None = None,
    tokenizer: _core.Tokenizer | None = None,
) -> ChatHandler | LlamaChatCompletionHandler:
    """Who answers conversations: `handler`, a template of the file, a registered format, our table.

    handler: the constructor's chat_handler. tokenizer: makes ids in the model's place.
    Raises as `ChatFormat.of_model`, and InvalidArgumentError for a handler that cannot be called.
    """
    if handler is None and chat_format is not None and not chat_format.startswith(FILE_TEMPLATES):
        handler = registered(chat_format)
    if tokenizer is None:
        tokenizer = model.tokenizer
    if handler is None:
        return ChatHandler(ChatFormat.of_model(model, chat_format, tokenizer))
    if isinstance(handler, FormatterHandler):
        return ChatHandler(ChatFormat.of_formatter(handler.formatter, tokenizer))
    if not callable(handler):
        raise InvalidArgumentError(f"chat_handler must be callable, found {handler!r:.80}")
    return cast("LlamaChatCompletionHandler", handler)
