"""A conversation with a model: what was said, what the model sees of it, and the next answer."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from ...chat.format import ChatFormat
from ...engine import Engine
from ...errors import ContextFullError, InvalidArgumentError
from ...params import GenerationParams
from ..runtime import with_grammar

Message = dict[str, str]


class Listener(Protocol):
    """Who hears an answer while it is made."""

    def text(self, piece: str) -> None:
        """The next whole characters of the answer."""

    def notice(self, sentence: str) -> None:
        """What the user should know, at the time it happens."""


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    n_prompt: tokens the model saw, n_reused of them from the cache; n_tokens: of the answer.
    prompt_seconds: until the first token; decode_seconds: from there to the last.
    n_dropped: messages that the model stopped seeing for this answer; n_shifts: how often the
    older half of the text was dropped while it was written.
    """

    text: str
    finish_reason: Literal["stop", "length", "interrupted"]
    n_prompt: int
    n_reused: int
    n_tokens: int
    prompt_seconds: float
    decode_seconds: float
    n_dropped: int
    n_shifts: int


class Conversation:
    """Messages so far, and how the next answer is made. Nothing here knows a terminal.

    name: under which it was saved or loaded. n_unseen: how many of the oldest messages the model
    no longer sees (params.when_full "shift"). last: the last answer's figures.
    """

    def __init__(
        self,
        engine: Engine,
        chat_format: ChatFormat,
        params: GenerationParams,
        system: str | None = None,
        grammar: str | None = None,
    ) -> None:
        self.system = system
        self.messages: list[Message] = []
        self.name: str | None = None
        self.n_unseen = 0
        self.last: Answer | None = None  # of the model in use
        self.params = params
        self._grammar = grammar
        self.use(engine, chat_format)
        self.reseed(params.sampling.seed)

    def use(self, engine: Engine, chat_format: ChatFormat) -> None:
        """Goes on with another model; what was said stays."""
        self.engine, self._format = engine, chat_format
        self.n_unseen, self.last = 0, None

    def reseed(self, seed: int) -> None:
        """The seed of the next answer; those after it follow from it."""
        self._seeds = random.Random(seed)
        self._seed = seed

    def clear(self) -> None:
        """Forgets everything but the system message."""
        self.set(self.system, [], None)

    def set(self, system: str | None, messages: Sequence[Message], name: str | None) -> None:
        """Becomes another conversation."""
        self.system, self.messages, self.name = system, list(messages), name
        self.n_unseen, self.last = 0, None

    @property
    def last_question(self) -> str | None:
        """What was asked last; None before anything was."""
        return self.messages[-2]["content"] if self.messages else None

    def undo(self) -> str:
        """Takes back the last question with its answer, and returns it.

        Raises InvalidArgumentError when there is none.
        """
        question = self.last_question
        if question is None:
            raise InvalidArgumentError("nothing was asked yet")
        del self.messages[-2:]
        self.n_unseen = min(self.n_unseen, len(self.messages))
        return question

    def n_tokens(self) -> int:
        """Tokens of what the model sees of the conversation so far."""
        return len(self._format.encode(self._seen(self.messages))) if self.messages else 0

    def ask(self, question: str, listener: Listener, *, instead: bool = False) -> Answer | None:
        """Answers and keeps both; what Ctrl-C leaves of an answer is kept, too.

        instead: in place of the last question. None when Ctrl-C came before the first word: the
        conversation is then as it was, as after an error.

        Raises ContextFullError when the question does not fit or, with when_full "error", the
        answer does not; InvalidArgumentError for sampling parameters out of range.
        """
        before = self.messages[: -2 if instead else None]
        old_unseen = self.n_unseen
        self.n_unseen = min(old_unseen, len(before))
        try:
            answer = self._answer([*before, {"role": "user", "content": question}], listener)
        except BaseException:
            self.n_unseen = old_unseen
            raise
        self._seed = self._seeds.getrandbits(64)
        if answer.finish_reason == "interrupted" and not answer.text:
            self.n_unseen = old_unseen
            return None
        self.messages = [
            *before,
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer.text},
        ]
        self.last = answer
        return answer

    def _seen(self, messages: Sequence[Message]) -> list[Message]:
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, *messages[self.n_unseen :]]

    def _answer(self, messages: Sequence[Message], listener: Listener) -> Answer:
        prompt, n_dropped = self._fitting(messages, listener)
        params = replace(
            self.params,
            stop=self._format.stop,
            sampling=replace(self.params.sampling, seed=self._seed),
            n_keep=self._n_keep() if self.params.when_full == "shift" else 0,
        )
        stream = self.engine.start(prompt, with_grammar(params, self._grammar, self.engine))
        pieces: list[str] = []
        began = first = time.perf_counter()
        reason: Literal["stop", "length", "interrupted"] = "interrupted"
        n_shifts = 0
        try:
            for step in stream:
                if not stream.n_taken > 1:
                    first = time.perf_counter()
                if step.text:
                    pieces.append(step.text)
                    listener.text(step.text)
                if stream.n_shifts > n_shifts:
                    n_shifts = stream.n_shifts
                    listener.notice(self._shift_sentence(params.n_keep))
                reason = step.finish_reason or reason
        except KeyboardInterrupt:
            pass
        finally:
            stream.cancel()
        ended = time.perf_counter()
        return Answer(
            text="".join(pieces),
            finish_reason=reason,
            n_prompt=len(prompt),
            n_reused=stream.n_reused,
            n_tokens=stream.n_generated,
            prompt_seconds=(first if stream.n_taken else ended) - began,
            decode_seconds=ended - first if stream.n_taken else 0.0,
            n_dropped=n_dropped,
            n_shifts=n_shifts,
        )

    def _fitting(self, messages: Sequence[Message], listener: Listener) -> tuple[list[int], int]:
        """The prompt, and how many old messages were dropped from it to make it fit."""
        n_ctx = self.engine.context.n_ctx
        prompt = self._format.encode(self._seen(messages))
        if len(prompt) < n_ctx - self._reserve():
            return prompt, 0
        n_before, n_unseen = len(prompt), self.n_unseen
        if self.params.when_full == "shift":
            # Down to half, so that the next questions find their beginning in the cache.
            while len(prompt) > n_ctx // 2 and self.n_unseen + 1 < len(messages):
                self.n_unseen += 2
                prompt = self._format.encode(self._seen(messages))
        if len(prompt) >= n_ctx:
            raise ContextFullError(
                f"the question does not fit any more: the conversation has {len(prompt)} tokens, "
                f"the context {n_ctx}; /clear starts anew, /undo takes back, -c makes room"
            )
        n_dropped = self.n_unseen - n_unseen
        if n_dropped:
            listener.notice(
                f"the context of {n_ctx} tokens is full: the oldest {n_dropped} messages "
                f"({n_before - len(prompt)} tokens) were dropped from what the model sees"
            )
        return prompt, n_dropped

    def _reserve(self) -> int:
        """Tokens kept free for an answer where old messages can make room for it."""
        if self.params.when_full != "shift":
            return 0
        n_ctx = self.engine.context.n_ctx
        wanted = self.params.max_tokens if self.params.max_tokens >= 0 else n_ctx
        return min(wanted, n_ctx // 4)

    def _n_keep(self) -> int:
        """Tokens of the system message: those in which two prompts of nothing else agree."""
        one, other = (
            self._format.encode(self._seen([*[{}] * self.n_unseen, {"role": "user", "content": c}]))
            for c in ("1", "2")
        )
        n_same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
        return min(n_same, self.engine.context.n_ctx // 2)

    def _shift_sentence(self, n_keep: int) -> str:
        kept = f"the first {n_keep} tokens and " if n_keep else ""
        return (
            f"the context of {self.engine.context.n_ctx} tokens is full: the older half was "
            f"dropped, {kept}the newer half stay"
        )

    def cut_sentence(self, answer: Answer) -> str:
        """Why an answer whose finish_reason is "length" ends where it does."""
        limit = self.params.max_tokens
        if answer.n_tokens == limit:
            return f"the answer was cut at {limit} tokens (-n)"
        n_ctx = self.engine.context.n_ctx
        return f"the context of {n_ctx} tokens is full: the answer was cut (see -c, --when-full)"
