"""The OpenAI-shaped dicts that completions return, as llama-cpp-python lays them out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from .engine import FinishReason


class CompletionUsage(TypedDict):
    """Token counts; an end-of-text token is not counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionChoice(TypedDict):
    """One text. finish_reason is None in every chunk of a stream but the last."""

    text: str
    index: int
    logprobs: None
    finish_reason: FinishReason | None


class CompletionChunk(TypedDict):
    """One item of a stream: as `Completion`, without usage."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]


class Completion(CompletionChunk):
    """What `create_completion` returns."""

    usage: CompletionUsage


class ChatMessage(TypedDict):
    """The answer."""

    role: Literal["assistant"]
    content: str


class ChatChoice(TypedDict):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: None
    finish_reason: FinishReason | None


class ChatCompletion(TypedDict):
    """What `create_chat_completion` returns."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage


class ChatDelta(TypedDict, total=False):
    """The role in the first chunk, text in the next ones, nothing in the last."""

    role: Literal["assistant"]
    content: str


class ChatChunkChoice(TypedDict):
    """The piece of an answer."""

    index: int
    delta: ChatDelta
    logprobs: None
    finish_reason: FinishReason | None


class ChatCompletionChunk(TypedDict):
    """One item of a streamed `create_chat_completion`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]


@dataclass(frozen=True)
class CompletionShape:
    """Writes the dicts of one completion; all of them share its id and time."""

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4()}")
    created: int = field(default_factory=lambda: int(time.time()))

    def chunk(self, text: str, finish_reason: FinishReason | None = None) -> CompletionChunk:
        """One item of a stream."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [
                {"text": text, "index": 0, "logprobs": None, "finish_reason": finish_reason}
            ],
        }

    def whole(
        self, text: str, finish_reason: FinishReason | None, n_prompt: int, n_generated: int
    ) -> Completion:
        """The completion in one piece."""
        return {
            **self.chunk(text, finish_reason),
            "usage": {
                "prompt_tokens": n_prompt,
                "completion_tokens": n_generated,
                "total_tokens": n_prompt + n_generated,
            },
        }


def as_chat(completion: Completion) -> ChatCompletion:
    """The chat form of a completion."""
    choice = completion["choices"][0]
    return {
        "id": "chat" + completion["id"],
        "object": "chat.completion",
        "created": completion["created"],
        "model": completion["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": choice["text"]},
                "logprobs": None,
                "finish_reason": choice["finish_reason"],
            }
        ],
        "usage": completion["usage"],
    }


def _chat_chunk(
    chunk: CompletionChunk, delta: ChatDelta, finish_reason: FinishReason | None
) -> ChatCompletionChunk:
    return {
        "id": "chat" + chunk["id"],
        "object": "chat.completion.chunk",
        "created": chunk["created"],
        "model": chunk["model"],
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }


def as_chat_chunks(chunks: Iterator[CompletionChunk]) -> Iterator[ChatCompletionChunk]:
    """The chat form of a stream: the role first, then the text, then the finish reason."""
    is_first = True
    for chunk in chunks:
        if is_first:
            yield _chat_chunk(chunk, {"role": "assistant"}, None)
            is_first = False
        choice = chunk["choices"][0]
        reason = choice["finish_reason"]
        yield _chat_chunk(chunk, {"content": choice["text"]} if reason is None else {}, reason)
