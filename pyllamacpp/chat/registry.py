"""Chat formats and handlers that users register, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..errors import InvalidArgumentError, UnsupportedError
from .named import NAMED_FORMATS, REFUSED_FORMATS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    StoppingCriterion = Callable[[npt.NDArray[np.intc], npt.NDArray[np.single]], bool]


@dataclass
class ChatFormatterResponse:
    """A conversation as text.

    stop: what ends the answer besides the model's own tokens. stopping_criteria: called with the
    ids so far and the logits after each token; True ends the answer. added_special: whether the
    text begins with the beginning-of-sequence token; otherwise it is put there where the
    vocabulary asks for it.
    """

    prompt: str
    stop: str | Sequence[str] | None = None
    stopping_criteria: StoppingCriterion | None = None
    added_special: bool = False


class ChatFormatter(Protocol):
    """Writes a conversation as text.

    `tools` is among kwargs where there are some, as is what a request gives as
    chat_template_kwargs and reasoning_effort (and then enable_thinking).
    """

    def __call__(self, *, messages: list[Any], **kwargs: Any) -> ChatFormatterResponse:
        """The text of `messages`, up to where the answer begins."""


class LlamaChatCompletionHandler(Protocol):
    """Answers a conversation by itself."""

    def __call__(self, *, llama: Any, messages: list[Any], **kwargs: Any) -> Any:
        """What `create_chat_completion` returns; kwargs are its other arguments."""


class Jinja2ChatFormatter:
    """A chat formatter made of a template, which runs in the sandbox of files' templates."""

    def __init__(
        self,
        template: str,
        eos_token: str,
        bos_token: str,
        add_generation_prompt: bool = True,
        stop_token_ids: list[int] | None = None,
    ) -> None:
        """Compiles the template. Raises FormatError if it is broken.

        eos_token, bos_token: their texts; the former ends an answer. stop_token_ids: tokens that
        end an answer too.
        """
        from .template import ChatTemplate  # jinja2 is imported when one is made, not before

        self.template = template
        self.eos_token = eos_token
        self.bos_token = bos_token
        self.add_generation_prompt = add_generation_prompt
        self.stop_token_ids = None if stop_token_ids is None else set(stop_token_ids)
        self._template = ChatTemplate(template, bos=bos_token, eos=eos_token)

    def __call__(self, *, messages: list[Any], **kwargs: Any) -> ChatFormatterResponse:
        """The rendered text. Raises as `ChatTemplate.render`."""
        prompt = self._template.render(
            messages,
            tools=kwargs.pop("tools", None),
            variables=kwargs,
            add_generation_prompt=self.add_generation_prompt,
        )
        stop_ids = self.stop_token_ids

        def is_stop(ids: npt.NDArray[np.intc], _logits: object) -> bool:
            return stop_ids is not None and int(ids[-1]) in stop_ids

        return ChatFormatterResponse(
            prompt,
            stop=[self.eos_token] if self.eos_token else None,
            stopping_criteria=None if stop_ids is None else is_stop,
            added_special=True,
        )

    def to_chat_handler(self) -> FormatterHandler:
        """For `Llama(chat_handler=...)`."""
        return FormatterHandler(self)


class FormatterHandler:
    """A chat handler that only says how a conversation is written."""

    def __init__(self, formatter: ChatFormatter) -> None:
        self.formatter = formatter

    def __call__(self, *, llama: Any, messages: list[Any], **kwargs: Any) -> Any:
        """What `llama.create_chat_completion` returns in this format."""
        return llama.create_chat_completion_with(self, messages, **kwargs)


Handler = FormatterHandler | LlamaChatCompletionHandler
_F = TypeVar("_F", bound=ChatFormatter)
_H = TypeVar("_H", bound=LlamaChatCompletionHandler)
_handlers: dict[str, Handler] = {}


def register_chat_format(name: str) -> Callable[[_F], _F]:
    """Decorator: makes a chat formatter known as `chat_format=name`.

    Raises InvalidArgumentError if the name is taken.
    """

    def register(formatter: _F) -> _F:
        _register(name, FormatterHandler(formatter))
        return formatter

    return register


def register_chat_completion_handler(name: str) -> Callable[[_H], _H]:
    """Decorator: makes a chat handler known as `chat_format=name`.

    Raises InvalidArgumentError if the name is taken.
    """

    def register(handler: _H) -> _H:
        _register(name, handler)
        return handler

    return register


def _register(name: str, handler: Handler) -> None:
    if name in _handlers or name in NAMED_FORMATS:
        raise InvalidArgumentError(f"a chat format named {name!r} is already registered")
    _handlers[name] = handler


def unregister_chat_format(name: str) -> None:
    """Forgets a format or handler of the user. Raises InvalidArgumentError if there is none."""
    if _handlers.pop(name, None) is None:
        raise InvalidArgumentError(f"no chat format named {name!r} was registered")


def registered(name: str) -> Handler | None:
    """What the user registered; None for a name of our own table.

    Raises UnsupportedError for a name that is neither, with those that are.
    """
    if name in _handlers:
        return _handlers[name]
    if name in NAMED_FORMATS:
        return None
    if name in REFUSED_FORMATS:
        raise UnsupportedError(f"chat_format={name!r}: {REFUSED_FORMATS[name]}")
    raise UnsupportedError(
        f"chat_format={name!r} is not known; use None (the file's own template), "
        f'"chat_template.NAME" (one of the file\'s) or one of {", ".join(known_formats())}'
    )


def known_formats() -> list[str]:
    """The names that `chat_format` may be, besides those of templates in a file."""
    return sorted({*NAMED_FORMATS, *_handlers})
