r"""Chat formats and handlers of one's own, under the names of `llama_cpp.llama_chat_format`.

@register_chat_format("shout")
def shout(messages, **kwargs):
    text = "".join(f"{m['role'].upper()}: {m['content']}\n" for m in messages)
    return ChatFormatterResponse(prompt=text + "ASSISTANT:", stop="\n")

llm = Llama(path, chat_format="shout")
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
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
from .errors import FileError, InvalidArgumentError, ModelFileError

__all__ = [
    "ChatFormatter",
    "ChatFormatterResponse",
    "FormatterHandler",
    "Jinja2ChatFormatter",
    "LlamaChatCompletionHandler",
    "chat_formatter_to_chat_completion_handler",
    "hf_autotokenizer_to_chat_completion_handler",
    "hf_autotokenizer_to_chat_formatter",
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


def hf_autotokenizer_to_chat_formatter(
    pretrained_model_name_or_path: str | os.PathLike[str], add_generation_prompt: bool = True
) -> Jinja2ChatFormatter:
    """The formatter of a folder or a repository of the hub (OWNER/REPO), as Hugging Face has them.

    Its tokenizer_config.json is read, and chat_template.jinja where the template is there.
    Raises as `hf_tokenizer_config_to_chat_formatter`, and as `models.hub.fetch` for a repository;
    FileError for a file that cannot be read.
    """
    name = os.fspath(pretrained_model_name_or_path)
    text = _text_of(name, "tokenizer_config.json")
    try:
        config = json.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(f"tokenizer_config.json of {name} is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise InvalidArgumentError(f"tokenizer_config.json of {name} is no object")
    if "chat_template" not in config:
        config["chat_template"] = _text_of(name, "chat_template.jinja")
    return hf_tokenizer_config_to_chat_formatter(config, add_generation_prompt)


def hf_autotokenizer_to_chat_completion_handler(
    pretrained_model_name_or_path: str | os.PathLike[str], add_generation_prompt: bool = True
) -> FormatterHandler:
    """As `hf_autotokenizer_to_chat_formatter`, for `Llama(chat_handler=...)`."""
    return FormatterHandler(
        hf_autotokenizer_to_chat_formatter(pretrained_model_name_or_path, add_generation_prompt)
    )


def _text_of(name: str, file: str) -> str:
    """A file of a folder, or of a repository."""
    folder = Path(name)
    if not folder.is_dir():
        from .models import hub

        folder = hub.fetch(hub.HubFile(name, file)).parent
    path = folder / file
    if not path.is_file():
        raise ModelFileError(f"there is no {file} in {name}")
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot read {path}: {error}") from error
