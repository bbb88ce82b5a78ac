"""The OpenAI-shaped dicts of chats, made of those of completions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, TypedDict, cast

from .completion import Completion, CompletionChoice, CompletionChunk, CompletionUsage

if TYPE_CHECKING:
    from .engine import FinishReason
    from .log_prob_text import ChatLogprobs


class ChatMessage(TypedDict):
    """The answer."""

    role: Literal["assistant"]
    content: str


class ChatChoice(TypedDict):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
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
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(TypedDict):
    """One item of a streamed `create_chat_completion`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]


def _log_probs(choice: CompletionChoice) -> ChatLogprobs | None:
    # The run was told to lay them out as chats have them.
    return cast("ChatLogprobs | None", choice["logprobs"])


def as_chat(completion: Completion) -> ChatCompletion:
    """The chat form of a completion."""
    return {
        "id": "chat" + completion["id"],
        "object": "chat.completion",
        "created": completion["created"],
        "model": completion["model"],
        "choices": [
            {
                "index": choice["index"],
                "message": {"role": "assistant", "content": choice["text"]},
                "logprobs": _log_probs(choice),
                "finish_reason": choice["finish_reason"],
            }
            for choice in completion["choices"]
        ],
        "usage": completion["usage"],
    }


def _chat_chunk(
    chunk: CompletionChunk,
    index: int,
    delta: ChatDelta,
    log_probs: ChatLogprobs | None = None,
    finish_reason: FinishReason | None = None,
) -> ChatCompletionChunk:
    return {
        "id": "chat" + chunk["id"],
        "object": "chat.completion.chunk",
        "created": chunk["created"],
        "model": chunk["model"],
        "choices": [
            {"index": index, "delta": delta, "logprobs": log_probs, "finish_reason": finish_reason}
        ],
    }


def as_chat_chunks(chunks: Iterator[CompletionChunk]) -> Iterator[ChatCompletionChunk]:
    """The chat form of a stream: of each answer the role, then text, then the finish reason."""
    begun: set[int] = set()
    for chunk in chunks:
        (choice,) = chunk["choices"]
        index, reason = choice["index"], choice["finish_reason"]
        if index not in begun:
            begun.add(index)
            yield _chat_chunk(chunk, index, {"role": "assistant"})
        delta: ChatDelta = {"content": choice["text"]} if reason is None else {}
        yield _chat_chunk(chunk, index, delta, _log_probs(choice), reason)
