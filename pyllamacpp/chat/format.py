"""Which template a model uses, and the token ids of a conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgumentError, UnsupportedError
from ..log import logger
from .named import CHATML, NAMED_FORMATS
from .reasoning import OPENING, Reasoning, closed, is_open
from .registry import ChatFormatter, ChatFormatterResponse, FormatterHandler, registered

if TYPE_CHECKING:
    from .. import _core
    from .registry import StoppingCriterion
    from .template import ChatTemplate

FILE_TEMPLATES = "chat_template."  # what names of a file's own templates begin with
_KEY = "tokenizer.chat_template"

Messages = Sequence[Mapping[str, Any]]
# Messages, tools (None: none) and further variables to text.
Render = Callable[[Messages, Messages | None, Mapping[str, Any]], ChatFormatterResponse]


@dataclass(frozen=True)
class Prompt:
    """A conversation as ids.

    stop and stopping_criteria: what ends the answer. is_open: the answer begins within a thought.
    """

    tokens: list[int]
    stop: tuple[str, ...] = ()
    stopping_criteria: StoppingCriterion | None = None
    is_open: bool = False


class ChatFormat:
    """A model's way to write a conversation.

    stop: strings that end an answer, besides the tokens that end one by themselves.
    template: what `render` renders; None: a function of the user's writes the text.
    """

    def __init__(
        self,
        render: Render,
        tokenizer: _core.Tokenizer,
        stop: tuple[str, ...] = (),
        template: ChatTemplate | None = None,
    ) -> None:
        self._render = render
        self._template = template
        self.tokenizer = tokenizer
        self.stop = stop

    @staticmethod
    def of_model(
        model: _core.Model,
        chat_format: str | None = None,
        tokenizer: _core.Tokenizer | None = None,
    ) -> ChatFormat:
        """The format of a model's file, or the one named.

        chat_format: None: the file's template, chatml for a file without one;
        "chat_template.default" or "chat_template.NAME": a template of the file; the name of a
        registered format (`register_chat_format`) or of one in `named.py`.
        tokenizer: makes ids in the model's place.
        Raises UnsupportedError for another name, FormatError for a broken template.
        """
        if tokenizer is None:
            tokenizer = model.tokenizer
        if chat_format is None or chat_format.startswith(FILE_TEMPLATES):
            source = _stored_template(model, chat_format)
            if source is not None:
                return _of_template(source, tokenizer)
            logger.warning("%s has no chat template: using chatml", model.path)
            return _of_template(CHATML.template, tokenizer, CHATML.stop)
        handler = registered(chat_format)
        if handler is None:
            named = NAMED_FORMATS[chat_format]
            return _of_template(named.template, tokenizer, named.stop)
        if isinstance(handler, FormatterHandler):
            return ChatFormat.of_formatter(handler.formatter, tokenizer)
        raise UnsupportedError(
            f"chat_format={chat_format!r} is a handler that answers by itself, "
            "which only create_chat_completion can use"
        )

    @staticmethod
    def of_formatter(formatter: ChatFormatter, tokenizer: _core.Tokenizer) -> ChatFormat:
        """The format of a function that users wrote."""

        def render(
            messages: Messages, tools: Messages | None, variables: Mapping[str, Any]
        ) -> ChatFormatterResponse:
            offered = {"tools": tools} if tools else {}
            response = formatter(messages=list(messages), **offered, **variables)
            if not isinstance(response, ChatFormatterResponse):
                raise InvalidArgumentError(
                    f"a chat formatter must return ChatFormatterResponse, found {response!r:.80}"
                )
            return response

        return ChatFormat(render, tokenizer)

    def encode(self, messages: Messages) -> list[int]:
        """The ids of `prompt`."""
        return self.prompt(messages).tokens

    def variables(self, reasoning: Reasoning, bound: str = "") -> dict[str, Any]:
        """What a request's reasoning is for this format; as `Reasoning.for_template`."""
        if self._template is None:
            return reasoning.for_formatter()
        if reasoning == Reasoning(parts=reasoning.parts) and not bound:
            return {}  # and the template need not be looked through
        known, source = self._template.variables, self._template.source
        return reasoning.for_template(known, thinks=OPENING in source, bound=bound)

    def text(
        self,
        messages: Messages,
        tools: Messages | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as text, special tokens of messages among those of the format."""
        return self._render(messages, tools, variables or {}).prompt

    def prompt(
        self,
        messages: Messages,
        tools: Messages | None = None,
        variables: Mapping[str, Any] | None = None,
        *,
        thinks: bool = True,
    ) -> Prompt:
        """The conversation up to where the answer begins.

        Special tokens are those that the template writes. One that is spelled in a message, a tool
        or a variable is text, so that nobody can begin a turn of another's; the assistant's own
        messages, which templates take apart at such tokens, are left as they are. Otherwise the ids
        are those of the rendered text as a whole.

        tools: as OpenAI lays them out, for formats that offer them. variables: of the template.
        thinks: False: a thought that the template begins is closed.
        Raises as `ChatTemplate.render`, and what a user's formatter raises.
        """
        given = variables or {}
        try:
            mark = _unused_text((messages, tools, given))
            said = [self._marked_message(message, mark) for message in messages]
            offered = None if tools is None else [self._marked(tool, mark) for tool in tools]
            given = self._marked(given, mark)
        except RecursionError:
            raise InvalidArgumentError("the messages or tools nest too deep") from None
        response = self._render(said, offered, given)
        text = response.prompt
        opens = is_open(text)
        if opens and not thinks:
            text = closed(text)
        ids = self.tokenizer.encode(_utf8(text), False, True, _utf8(mark))
        bos = self.tokenizer.bos
        # Most templates write the beginning-of-sequence token themselves.
        asks = self.tokenizer.add_bos and bos is not None and not response.added_special
        if asks and bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        stop = response.stop or ()
        return Prompt(
            ids,
            (stop,) if isinstance(stop, str) else tuple(stop),
            response.stopping_criteria,
            opens and thinks,
        )

    def _marked_message(self, message: Any, mark: str) -> Any:
        # What is no message is refused when it is rendered.
        if not isinstance(message, Mapping) or message.get("role") == "assistant":
            return message
        return {
            key: value if key == "role" else self._marked(value, mark)
            for key, value in message.items()
        }

    def _marked(self, value: Any, mark: str) -> Any:
        if isinstance(value, str):
            found = self.tokenizer.marked(_utf8(value), _utf8(mark))
            return found.decode("utf-8", "surrogateescape")
        if isinstance(value, Mapping):
            return {
                self._marked(key, mark): self._marked(item, mark) for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._marked(item, mark) for item in value]
        return value


def _of_template(source: str, tokenizer: _core.Tokenizer, stop: tuple[str, ...] = ()) -> ChatFormat:
    # jinja2 is imported when a conversation needs it, not before.
    from .template import ChatTemplate

    template = ChatTemplate(
        source, bos=_token_text(tokenizer, tokenizer.bos), eos=_token_text(tokenizer, tokenizer.eos)
    )

    def render(
        messages: Messages, tools: Messages | None, variables: Mapping[str, Any]
    ) -> ChatFormatterResponse:
        return ChatFormatterResponse(
            template.render(messages, tools=tools, variables=variables), stop
        )

    return ChatFormat(render, tokenizer, stop, template)


def _unused_text(messages: object) -> str:
    """Characters for private use that no message has in this order."""
    mark, text = "\ue000", repr(messages)
    # repr writes such characters as escapes.
    while repr(mark)[1:-1] in text:
        mark += "\ue001"
    return mark


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        found = text[error.start : error.end]
        raise InvalidArgumentError(f"{found!a} in a conversation is half a character") from None


def _stored_template(model: _core.Model, chat_format: str | None) -> str | None:
    name = "chat_template.default" if chat_format is None else chat_format
    key = _KEY if name == "chat_template.default" else f"tokenizer.{name}"
    source = model.metadata.get(key)
    if source is None and chat_format is not None:
        raise UnsupportedError(
            f"chat_format={chat_format!r}: {model.path} holds no template of that name"
        )
    return source if isinstance(source, str) else None


def _token_text(tokenizer: _core.Tokenizer, token: int | None) -> str:
    return "" if token is None else tokenizer.piece(token, True).decode("utf-8", "replace")
