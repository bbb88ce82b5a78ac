"""Which template a model uses, and the token ids of a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedError
from ..log import logger

if TYPE_CHECKING:
    from .. import _core
    from .template import ChatTemplate

_KEY = "tokenizer.chat_template"


class ChatFormat:
    """A model's way to write a conversation.

    stop: strings that end an answer, besides the tokens that end one by themselves.
    """

    def __init__(
        self, template: ChatTemplate, tokenizer: _core.Tokenizer, stop: tuple[str, ...] = ()
    ) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self.stop = stop

    @staticmethod
    def of_model(model: _core.Model, chat_format: str | None = None) -> ChatFormat:
        """The format of a model's file, or the one named.

        chat_format: None: the file's template, chatml for a file without one; "chatml";
        "chat_template.default" or "chat_template.NAME": a template of the file.
        Raises UnsupportedError for another name, FormatError for a broken template.
        """
        # jinja2 is imported when a conversation needs it, not before.
        from .template import CHATML, ChatTemplate

        tokenizer = model.tokenizer
        source = None if chat_format == "chatml" else _stored_template(model, chat_format)
        stop: tuple[str, ...] = ()
        if source is None:
            if chat_format is None:
                logger.warning("%s has no chat template: using chatml", model.path)
            source = CHATML
            stop = ("<|im_end|>",)
        template = ChatTemplate(
            source,
            bos=_token_text(tokenizer, tokenizer.bos),
            eos=_token_text(tokenizer, tokenizer.eos),
        )
        return ChatFormat(template, tokenizer, stop)

    def encode(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Ids of the conversation up to where the answer begins.

        Special tokens are those that the template writes. One that is spelled in a message is
        text, so that nobody can begin a turn of another's; the assistant's own messages, which
        templates take apart at such tokens, are left as they are. Otherwise the ids are those of
        the rendered text as a whole.

        Raises as `ChatTemplate.render`.
        """
        mark = _unused_text(messages)
        text = self._template.render([self._marked(message, mark) for message in messages])
        ids = self._tokenizer.encode(_utf8(text), False, True, _utf8(mark))
        bos = self._tokenizer.bos
        # Most templates write the beginning-of-sequence token themselves.
        if self._tokenizer.add_bos and bos is not None and ids[:1] != [bos]:
            return [bos, *ids]
        return ids

    def _marked(self, message: Any, mark: str) -> Any:
        def marked(value: Any) -> Any:
            if isinstance(value, str):
                found = self._tokenizer.marked(_utf8(value), _utf8(mark))
                return found.decode("utf-8", "surrogateescape")
            if isinstance(value, Mapping):
                return {key: marked(item) for key, item in value.items()}
            if isinstance(value, list | tuple):
                return [marked(item) for item in value]
            return value

        # What is no message is refused when it is rendered.
        if not isinstance(message, Mapping) or message.get("role") == "assistant":
            return message
        return {key: value if key == "role" else marked(value) for key, value in message.items()}


def _unused_text(messages: object) -> str:
    """Characters for private use that no message has in this order."""
    mark, text = "\ue000", repr(messages)
    # repr writes such characters as escapes.
    while repr(mark)[1:-1] in text:
        mark += "\ue001"
    return mark


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _stored_template(model: _core.Model, chat_format: str | None) -> str | None:
    name = "chat_template.default" if chat_format is None else chat_format
    if not name.startswith("chat_template."):
        raise UnsupportedError(
            f"chat_format={chat_format!r} is not supported by this release; "
            'use None (the file\'s own template), "chatml" or "chat_template.NAME"'
        )
    key = _KEY if name == "chat_template.default" else f"tokenizer.{name}"
    source = model.metadata.get(key)
    if source is None and chat_format is not None:
        raise UnsupportedError(
            f"chat_format={chat_format!r}: {model.path} holds no template of that name"
        )
    return source if isinstance(source, str) else None


def _token_text(tokenizer: _core.Tokenizer, token: int | None) -> str:
    return "" if token is None else tokenizer.piece(token, True).decode("utf-8", "replace")
