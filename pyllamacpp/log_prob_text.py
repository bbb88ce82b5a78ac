"""Log-probabilities of a text in OpenAI's layouts, with exact offsets."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from . import _core
    from .stream import LogProbs


class CompletionLogprobs(TypedDict):
    """Of each token its text, where that begins (characters), and the likeliest in its place.

    A token that is a part of a character has U+FFFD in its text and begins where the character
    does. The first token of a text has no log-probability.
    """

    tokens: list[str]
    text_offset: list[int]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]


class ChatTopLogprob(TypedDict):
    """One of the likeliest tokens."""

    token: str
    bytes: list[int]
    logprob: float


class ChatTokenLogprob(ChatTopLogprob):
    """A token of an answer; an end-of-text token is none."""

    top_logprobs: list[ChatTopLogprob]


class ChatLogprobs(TypedDict):
    """What a chat's choice states of its tokens."""

    content: list[ChatTokenLogprob]
    refusal: None


@dataclass(frozen=True)
class Entry:
    """A token of a text: its bytes, the character it begins at, and what the model thought."""

    data: bytes
    offset: int
    log_probs: LogProbs | None


class LogProbText:
    """Places the tokens of one text, which arrive one by one."""

    def __init__(self, tokenizer: _core.Tokenizer, offset: int = 0) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = offset
        self._entries: list[Entry] = []

    def add(self, data: bytes, log_probs: LogProbs | None) -> None:
        """The next token's bytes."""
        self._entries.append(Entry(data, self._offset, log_probs))
        self._offset += len(self._decoder.decode(data))

    def take(self, end: int | None = None) -> list[Entry]:
        """The tokens since the last call that begin before the character `end`."""
        taken = [e for e in self._entries if end is None or e.offset < end]
        self._entries = self._entries[len(taken) :]
        return taken

    def completion_layout(self, entries: list[Entry]) -> CompletionLogprobs:
        """As completions have it."""
        return {
            "tokens": [_text(entry.data) for entry in entries],
            "text_offset": [entry.offset for entry in entries],
            "token_logprobs": [e.log_probs[0] if e.log_probs else None for e in entries],
            "top_logprobs": [self._top(e) if e.log_probs else None for e in entries],
        }

    def chat_layout(self, entries: list[Entry]) -> ChatLogprobs:
        """As chats have it."""
        content: list[ChatTokenLogprob] = []
        for entry in entries:
            if entry.log_probs is None:
                continue
            chosen, top = entry.log_probs
            tops = [_chat_top(self._tokenizer.piece(token, True), p) for token, p in top]
            content.append({**_chat_top(entry.data, chosen), "top_logprobs": tops})
        return {"content": content, "refusal": None}

    def _top(self, entry: Entry) -> dict[str, float]:
        assert entry.log_probs is not None
        chosen, top = entry.log_probs
        found: dict[str, float] = {}
        for token, log_prob in top:
            # Of tokens that look alike the likelier counts.
            found.setdefault(_text(self._tokenizer.piece(token, True)), log_prob)
        found.setdefault(_text(entry.data), chosen)
        return found


def _chat_top(data: bytes, log_prob: float) -> ChatTopLogprob:
    return {"token": _text(data), "bytes": list(data), "logprob": log_prob}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
