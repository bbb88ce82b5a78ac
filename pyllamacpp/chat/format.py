"""Which template a model uses, and the token ids of a conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgumentError, UnsupportedError
from ..log import logger
from .named import CHATML, NAMED_FORMATS
from .registry import ChatFormatter, ChatFormatterResponse, FormatterHandler, registered

if TYPE_CHECKING:
    from .. import _core
    from .registry import StoppingCriterion

FILE_TEMPLATES = "chat_template."  # what names of a file's own templates begin with
_KEY = "tokenizer.chat_template"

# Messages and tools (None: none) to text.
Render = Callable[
    [Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]] | None], ChatFormatterResponse
]


@dataclass(frozen=True)
class Prompt:
    """A conversation as ids. stop and stopping_criteria: what ends the answer."""

    tokens: list[int]
    stop: tuple[str, ...] = ()
    stopping_criteria: StoppingCriterion | None = None


class ChatFormat:
    """A model's way to write a conversation.

    stop: strings that end an answer, besides the tokens that end one by themselves.
    """

    def __init__(
        self, render: Render, tokenizer: _core.Tokenizer, stop: tuple[str, ...] = ()
    ) -> None:
        self._render = render
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
            messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
        ) -> ChatFormatterResponse:
            response = formatter(messages=list(messages), **({"tools": tools} if tools else {}))
            if not isinstance(response, ChatFormatterResponse):
                raise InvalidArgumentError(
                    f"a chat formatter must return ChatFormatterResponse, found {response!r:.80}"
                )
            return response

        return ChatFormat(render, tokenizer)

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The ids of `prompt`."""
        return self.prompt(messages).tokens

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The conversation as text, special tokens of messages among those of the format."""
        return self._render(messages, tools).prompt

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> Prompt:
        """The conversation up to where the answer begins.

        Special tokens are those that the template writes. One that is spelled in a message or a
        tool is text, so that nobody can begin a turn of another's; the assistant's own messages,
        which templates take apart at such tokens, are left as they are. Otherwise the ids are those
        of the rendered text as a whole.

        tools: as OpenAI lays them out, for formats that offer them.
        Raises as `ChatTemplate.render`, and what a user's formatter raises.
        """
        try:
            mark = _unused_text((messages, tools))
            said = [self._marked_message(message, mark) for message in messages]
            offered = None if tools is None else [self._marked(tool, mark) for tool in tools]
        except RecursionError:
            raise InvalidArgumentError("the messages or tools nest too deep") from None
        response = self._render(said, offered)
        ids = self.tokenizer.encode(_utf8(response.prompt), False, True, _utf8(mark))
        bos = self.tokenizer.bos
        # Most templates write the beginning-of-sequence token themselves.
        asks = self.tokenizer.add_bos and bos is not None and not response.added_special
        if asks and bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        stop = response.stop or ()
        return Prompt(
            ids, (stop,) if isinstance(stop, str) else tuple(stop), response.stopping_criteria
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
        messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> ChatFormatterResponse:
        return ChatFormatterResponse(template.render(messages, tools=tools), stop)

    return ChatFormat(render, tokenizer, stop)


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
