"""The OpenAI-shaped dicts of chats, made of those of completions: text, and calls of tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict, cast

from .chat.calls import CallPiece
from .completion import Completion, CompletionChoice, CompletionChunk, CompletionUsage
from .log import logger

if TYPE_CHECKING:
    from .chat.handler import Prepared
    from .engine import FinishReason
    from .log_prob_text import ChatLogprobs, ChatTokenLogprob

ChatFinishReason = Literal["stop", "length", "tool_calls", "function_call"]


class ChatCompletionMessageToolCallFunction(TypedDict):
    """Which function is called. arguments: the text of a JSON object, as the model wrote it."""

    name: str
    arguments: str


class ChatCompletionMessageToolCall(TypedDict):
    """A call, answered by a tool message with its id."""

    id: str
    type: Literal["function"]
    function: ChatCompletionMessageToolCallFunction


class _ChatMessage(TypedDict):
    role: Literal["assistant"]
    content: str | None


class ChatMessage(_ChatMessage, total=False):
    """The answer. content is None where calls are all there is.

    reasoning_content: what the model thought before, where reasoning_format tells it apart.
    function_call: the first call, if the request had `functions`.
    """

    reasoning_content: str
    tool_calls: list[ChatCompletionMessageToolCall]
    function_call: ChatCompletionMessageToolCallFunction


class ChatChoice(TypedDict):
    """One answer. finish_reason "tool_calls" where it ended with calls."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason | None


class ChatCompletion(TypedDict):
    """What `create_chat_completion` returns."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage


class FunctionDelta(TypedDict, total=False):
    """The name in a call's first piece; the next piece of its arguments."""

    name: str
    arguments: str


class _ToolCallDelta(TypedDict):
    index: int


class ToolCallDelta(_ToolCallDelta, total=False):
    """A piece of the call `index`; id, type and name in its first one."""

    id: str
    type: Literal["function"]
    function: FunctionDelta


class ChatDelta(TypedDict, total=False):
    """The role in the first chunk, thoughts, text and calls in the next, nothing in the last."""

    role: Literal["assistant"]
    reasoning_content: str
    content: str
    tool_calls: list[ToolCallDelta]
    function_call: FunctionDelta


class ChatChunkChoice(TypedDict):
    """The piece of an answer."""

    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason | None


class ChatCompletionChunk(TypedDict):
    """One item of a streamed `create_chat_completion`."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]


def as_chat(completion: Completion, request: Prepared) -> ChatCompletion:
    """The chat form of a completion, its calls taken out of the text.

    Where the request had `functions`, the first call is the message's `function_call`; others are
    dropped with a warning.
    """
    choices: list[ChatChoice] = []
    for choice in completion["choices"]:
        answer = _Answer(request)
        deltas = [*answer.deltas(choice["text"]), *answer.rest()]
        choices.append(
            {
                "index": choice["index"],
                "message": _message(deltas),
                "logprobs": _log_probs(choice),
                "finish_reason": answer.finish_reason(choice["finish_reason"]),
            }
        )
    return {
        "id": "chat" + completion["id"],
        "object": "chat.completion",
        "created": completion["created"],
        "model": completion["model"],
        "choices": choices,
        "usage": completion["usage"],
    }


class ChatChunks:
    """The chat form of a stream: of each answer the role, text and calls, the finish reason.

    Log-probabilities come with the next chunk of their answer, also where their text is held back.
    """

    def __init__(self, request: Prepared) -> None:
        self._request = request
        self._answers: dict[int, _Answer] = {}

    def of(self, chunk: CompletionChunk) -> list[ChatCompletionChunk]:
        """What comes of the next chunk of a completion."""
        (choice,) = chunk["choices"]
        index, reason = choice["index"], choice["finish_reason"]
        found = []
        if index not in self._answers:
            self._answers[index] = _Answer(self._request)
            found.append(_chat_chunk(chunk, index, {"role": "assistant"}))
        answer = self._answers[index]
        answer.keep(_log_probs(choice))
        deltas = answer.deltas(choice["text"])
        if reason is not None:
            deltas += answer.rest()
        found += [_chat_chunk(chunk, index, delta, answer.log_probs()) for delta in deltas]
        if reason is not None:
            end = answer.finish_reason(reason)
            found.append(_chat_chunk(chunk, index, {}, answer.log_probs(), end))
        return found


def _log_probs(choice: CompletionChoice) -> ChatLogprobs | None:
    # The run was told to lay them out as chats have them.
    return cast("ChatLogprobs | None", choice["logprobs"])


class _Answer:
    """The deltas of one answer."""

    def __init__(self, request: Prepared) -> None:
        self._thoughts = request.new_thought_reader()
        self._parser = request.new_parser()
        self._is_legacy = request.is_legacy
        self._is_single = request.is_single
        self._log_probs: list[ChatTokenLogprob] | None = None

    def keep(self, log_probs: ChatLogprobs | None) -> None:
        """Log-probabilities for the next chunk."""
        if log_probs is not None:
            self._log_probs = (self._log_probs or []) + log_probs["content"]

    def log_probs(self) -> ChatLogprobs | None:
        """Those that no chunk had yet."""
        kept, self._log_probs = self._log_probs, None
        return None if kept is None else {"content": kept, "refusal": None}

    def deltas(self, text: str) -> list[ChatDelta]:
        if self._thoughts is not None:
            return self._parted(*self._thoughts.feed(text))
        if self._parser is None:
            return [{"content": text}] if text else []
        return self._of(self._parser.feed(text))

    def rest(self) -> list[ChatDelta]:
        """What the end of the answer decides."""
        deltas = [] if self._thoughts is None else self._parted(*self._thoughts.finish())
        return deltas if self._parser is None else [*deltas, *self._of(self._parser.finish())]

    def _parted(self, thought: str, text: str) -> list[ChatDelta]:
        if self._thoughts is not None and self._thoughts.is_over:
            self._thoughts = None
        found: list[ChatDelta] = [{"reasoning_content": thought}] if thought else []
        return [*found, *self.deltas(text)] if text else found

    def finish_reason(self, reason: FinishReason | None) -> ChatFinishReason | None:
        if reason != "stop" or self._parser is None or not self._parser.n_calls:
            return reason
        return "function_call" if self._is_legacy else "tool_calls"

    def _of(self, pieces: list[str | CallPiece]) -> list[ChatDelta]:
        out: list[ChatDelta] = []
        for piece in pieces:
            if isinstance(piece, str):
                out.append({"content": piece})
                continue
            if self._is_single and piece.index > 0:
                continue
            function: FunctionDelta = {"arguments": piece.arguments}
            if piece.name is not None:
                function = {"name": piece.name, "arguments": piece.arguments}
            if not self._is_legacy:
                call: ToolCallDelta = {"index": piece.index, "function": function}
                if piece.id is not None:
                    call = {
                        "index": piece.index,
                        "id": piece.id,
                        "type": "function",
                        "function": function,
                    }
                out.append({"tool_calls": [call]})
            elif piece.index == 0:
                out.append({"function_call": function})
            elif piece.id is not None:
                logger.warning(
                    "the answer calls %s too, which function_call has no place for: use tools",
                    piece.name,
                )
        return out


def _message(deltas: list[ChatDelta]) -> ChatMessage:
    """What the deltas of an answer come to."""
    thoughts: list[str] = []
    texts: list[str] = []
    calls: list[ChatCompletionMessageToolCall] = []
    legacy: list[FunctionDelta] = []
    for delta in deltas:
        if "reasoning_content" in delta:
            thoughts.append(delta["reasoning_content"])
        if "content" in delta:
            texts.append(delta["content"])
        if "function_call" in delta:
            legacy.append(delta["function_call"])
        for piece in delta.get("tool_calls", ()):
            function = piece["function"]
            if "id" in piece:
                calls.append(
                    {
                        "id": piece["id"],
                        "type": "function",
                        "function": {"name": function["name"], "arguments": ""},
                    }
                )
            calls[-1]["function"]["arguments"] += function["arguments"]
    message: ChatMessage = {"role": "assistant", "content": "".join(texts)}
    if not texts and (calls or legacy):
        message["content"] = None
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    if legacy:
        arguments = "".join(piece["arguments"] for piece in legacy)
        message["function_call"] = {"name": legacy[0]["name"], "arguments": arguments}
    return message


def _chat_chunk(
    chunk: CompletionChunk,
    index: int,
    delta: ChatDelta,
    log_probs: ChatLogprobs | None = None,
    finish_reason: ChatFinishReason | None = None,
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
