"""Completions: one or several texts per prompt, and the dicts they are given out as.

The dicts are OpenAI's, as llama-cpp-python lays them out.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from .engine import Engine, FinishReason, Step, Stream
from .log import logger
from .log_prob_text import CompletionLogprobs, Entry, LogProbText
from .params import GenerationParams

if TYPE_CHECKING:
    from typing_extensions import NotRequired

    from .stream import LogProbs


class CompletionUsage(TypedDict):
    """Token counts; an end-of-text token is not counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionChoice(TypedDict):
    """One text. finish_reason is None in every chunk of a stream but the last of its text."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None


class CompletionChunk(TypedDict):
    """One item of a stream: as `Completion`, without usage."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]


class Completion(CompletionChunk):
    """What `create_completion` returns.

    context_shifts: how often a text lost its older half because the context was full, if any did.
    """

    usage: CompletionUsage
    context_shifts: NotRequired[int]


Layout = Callable[[LogProbText, list[Entry]], Any]
"""How log-probabilities are given out: a method of `LogProbText`."""


@dataclass(frozen=True)
class Prompt:
    """The tokens of a prompt, and the text that stands for them where it is echoed.

    pieces: the bytes of each token within that text.
    """

    tokens: list[int]
    text: str
    pieces: list[bytes]


@dataclass(frozen=True)
class Shape:
    """What the dicts of one call share."""

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4()}")
    created: int = field(default_factory=lambda: int(time.time()))

    def chunk(self, *choices: CompletionChoice) -> CompletionChunk:
        """A dict with these choices."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": list(choices),
        }


class Text:
    """One choice: a stream of steps, and what is made of them."""

    def __init__(
        self,
        index: int,
        prompt: Prompt,
        stream: Stream,
        *,
        echo: bool,
        suffix: str,
        layout: Layout | None,
    ) -> None:
        self.index = index
        self.prompt = prompt
        self.stream = stream
        self.text = prompt.text if echo else ""
        self.log_probs: LogProbText | None = None
        self.sum_of_log_probs = 0.0
        self._suffix = suffix
        self._echo = echo
        self._start = 0 if echo else len(prompt.text)
        if layout is not None:
            self._layout = layout
            self.log_probs = LogProbText(stream.tokenizer, self._start)

    def take(self, step: Step) -> str:
        """Adds a step; returns the text it brings."""
        is_first = self.stream.n_taken == 1
        if self.log_probs is not None and self._echo and is_first:
            found: list[LogProbs | None] = [None, *self.stream.prompt_log_probs]
            for data, log_probs in zip(self.prompt.pieces, found, strict=True):
                self.log_probs.add(data, log_probs)
        if step.log_probs is not None and step.token is not None:
            tokenizer = self.stream.tokenizer
            self.sum_of_log_probs += step.log_probs[0]
            if self.log_probs is not None and not tokenizer.ends_generation(step.token):
                is_shown = step.token in self.stream.params.shown
                self.log_probs.add(tokenizer.piece(step.token, is_shown), step.log_probs)
        text = step.text + (self._suffix if step.finish_reason is not None else "")
        self.text += text
        return text

    def choice(self, text: str, finish_reason: FinishReason | None) -> CompletionChoice:
        """The dict of the text since the last one."""
        log_probs = None
        if self.log_probs is not None:
            entries = self.log_probs.take(self._start + len(self.text))
            log_probs = self._layout(self.log_probs, entries)
        return {
            "text": text,
            "index": self.index,
            "logprobs": log_probs,
            "finish_reason": finish_reason,
        }

    @property
    def mean_log_prob(self) -> float:
        """By which the best of several texts is chosen."""
        return self.sum_of_log_probs / max(1, self.stream.n_generated)


class Run:
    """The texts of one call, generated together.

    params_of: parameters of the j-th text of prompt i. best_of: texts per prompt, of which the n
    with the best mean log-probability are given out. layout: of log-probabilities, None for none.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: list[Prompt],
        params_of: Callable[[int, int], GenerationParams],
        shape: Shape,
        *,
        n: int = 1,
        best_of: int = 1,
        echo: bool = False,
        suffix: str = "",
        layout: Layout | None = None,
        keeps_up: bool = False,
        reports: bool = False,
    ) -> None:
        self.shape = shape
        self.n = n
        self.prompts = prompts
        self.texts: list[Text] = []
        self._engine = engine
        self._echo = echo
        self._reports = reports
        self._started = time.perf_counter()
        try:
            for i, prompt in enumerate(prompts):
                for j in range(best_of):
                    params = params_of(i, j)
                    if best_of > n and params.n_log_probs is None:
                        params = replace(params, n_log_probs=0)
                    stream = engine.start(prompt.tokens, params, keeps_up=keeps_up)
                    self.texts.append(
                        Text(
                            i * best_of + j,
                            prompt,
                            stream,
                            echo=echo,
                            suffix=suffix,
                            layout=layout,
                        )
                    )
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Ends what has not finished: whoever reads it gets CancelledError.

        Any thread may call it.
        """
        for text in self.texts:
            text.stream.cancel()

    @property
    def n_prompt_tokens(self) -> int:
        """Tokens of all prompts, each counted once."""
        return sum(len(prompt.tokens) for prompt in self.prompts)

    @property
    def n_generated(self) -> int:
        """Tokens of all texts so far."""
        return sum(text.stream.n_generated for text in self.texts)

    def finish(self) -> Completion:
        """Generates to the end."""
        try:
            for text in self.texts:
                for step in text.stream:
                    text.take(step)
        except BaseException:
            self.cancel()
            raise
        best_of = len(self.texts) // len(self.prompts)
        chosen: list[Text] = []
        for i in range(len(self.prompts)):
            texts = self.texts[i * best_of : (i + 1) * best_of]
            if best_of > self.n:
                texts = sorted(texts, key=lambda text: -text.mean_log_prob)
            chosen += texts[: self.n]
        choices = []
        for index, text in enumerate(chosen):
            text.index = index
            choices.append(text.choice(text.text, text.stream.finish_reason))
        self._report()
        chunk = self.shape.chunk(*choices)
        completion: Completion = {
            "id": chunk["id"],
            "object": chunk["object"],
            "created": chunk["created"],
            "model": chunk["model"],
            "choices": chunk["choices"],
            "usage": {
                "prompt_tokens": self.n_prompt_tokens,
                "completion_tokens": self.n_generated,
                "total_tokens": self.n_prompt_tokens + self.n_generated,
            },
        }
        n_shifts = sum(text.stream.n_shifts for text in self.texts)
        if n_shifts:
            completion["context_shifts"] = n_shifts
        return completion

    def _report(self) -> None:
        if self._reports:
            logger.info(
                "%d prompt tokens, %d generated in %.2f s",
                self.n_prompt_tokens,
                self.n_generated,
                time.perf_counter() - self._started,
            )

    def chunks(self) -> Iterator[CompletionChunk]:
        """Gives texts out as they come, in turn."""
        try:
            yield from self.opening()
            unread = list(self.texts)
            while unread:
                for text in list(unread):
                    step = next(text.stream)
                    yield from self.pieces(text, step)
                    if step.finish_reason is not None:
                        unread.remove(text)
            self._report()
        finally:
            self.cancel()

    def opening(self) -> list[CompletionChunk]:
        """What comes before the first steps: prompts that are echoed."""
        if not self._echo:
            return []
        echoed = [text for text in self.texts if text.log_probs is None and text.text]
        return [self.shape.chunk(text.choice(text.text, None)) for text in echoed]

    def pieces(self, text: Text, step: Step) -> list[CompletionChunk]:
        """The chunks of a step that was taken from a text's stream."""
        chunks = []
        new = text.take(step)
        if self._echo and text.log_probs is not None and text.stream.n_taken == 1:
            new = text.text
        if new:
            chunks.append(self.shape.chunk(text.choice(new, None)))
        if step.finish_reason is not None:  # a chunk of its own, without text
            chunks.append(self.shape.chunk(text.choice("", step.finish_reason)))
        return chunks

    def listen(self, listener: Callable[[], None]) -> None:
        """Has the texts evaluated while nobody waits for them: see `Engine.listen`."""
        for text in self.texts:
            self._engine.listen(text.stream, listener)

    def poll(self, text: Text) -> Step | None:
        """A step of a text if there is one already, after `listen`."""
        return self._engine.poll(text.stream)
