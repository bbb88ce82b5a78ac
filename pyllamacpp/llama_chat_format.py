r"""Chat formats and handlers of one's own, under the names of `llama_cpp.llama_chat_format`.

@register_chat_format("shout")
def shout(messages, **kwargs):
    text = "".join(f"{m['role'].upper()}: {m['content']}\n" for m in messages)
    return ChatFormatterResponse(prompt=text + "ASSISTANT:", stop="\n")

llm = Llama(path, chat_format="shout")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .chat.registry import (
    ChatFormatter,
    ChatFormatterResponse,
    FormatterHandler,
    Jinja2ChatFormatter,
    LlamaChatCompletionHandler,
    known_formats,
    register_chat_completion_handler,
    register_chat_format,
    unregister_chat_format,
)
from .errors import InvalidArgumentError

__all__ = [
    "ChatFormatter",
    "ChatFormatterResponse",
    "FormatterHandler",
    "Jinja2ChatFormatter",
    "LlamaChatCompletionHandler",
    "chat_formatter_to_chat_completion_handler",
    "hf_tokenizer_config_to_chat_completion_handler",
    "hf_tokenizer_config_to_chat_formatter",
    "known_formats",
    "register_chat_completion_handler",
    "register_chat_format",
    "unregister_chat_format",
]


def chat_formatter_to_chat_completion_handler(chat_formatter: ChatFormatter) -> FormatterHandler:
    """A handler for `Llama(chat_handler=...)` of a formatter."""
    return FormatterHandler(chat_formatter)


def hf_tokenizer_config_to_chat_formatter(
    tokenizer_config: Mapping[str, Any], add_generation_prompt: bool = True
) -> Jinja2ChatFormatter:
    """The formatter that a Hugging Face tokenizer_config.json (parsed) describes.

    Raises InvalidArgumentError if it lacks the texts chat_template, bos_token and eos_token (which
    may be in a dict's "content").
    """
    texts = {}
    for key in ("chat_template", "bos_token", "eos_token"):
        value = tokenizer_config.get(key)
        if isinstance(value, Mapping):
            value = value.get("content")
        if not isinstance(value, str):
            raise InvalidArgumentError(
                f"{key} of a tokenizer config must be text, found {value!r:.80}"
            )
        texts[key] = value
    return Jinja2ChatFormatter(
        texts["chat_template"], texts["eos_token"], texts["bos_token"], add_generation_prompt
    )


def hf_tokenizer_config_to_chat_completion_handler(
    tokenizer_config: Mapping[str, Any], add_generation_prompt: bool = True
) -> FormatterHandler:
    """As `hf_tokenizer_config_to_chat_formatter`, for `Llama(chat_handler=...)`."""
    return FormatterHandler(
        hf_tokenizer_config_to_chat_formatter(tokenizer_config, add_generation_prompt)
    )
