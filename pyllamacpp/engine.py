"""A loaded model with one context: what `Llama` and the commands run on.

One sequence, one generation at a time. Calls from several threads are serialised; a stream that
another call has overtaken raises instead of reading a cache that is no longer its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from . import _core
from .errors import ContextFullError, PyllamacppError
from .params import GenerationParams, SamplingParams
from .scores import Scores

FinishReason = Literal["stop", "length"]

_SEQUENCE = 0


@dataclass(frozen=True)
class Step:
    """One step of a generation; the one with a finish_reason is the last.

    text: whole characters only, may be empty. token: the id sampled, None if none was.
    """

    text: str
    token: int | None
    finish_reason: FinishReason | None


class Engine:
    """Evaluates tokens and starts generations on one sequence.

    logits_all keeps the logits of every token in `scores`; otherwise only `evaluate` writes there,
    and only its last row.
    """

    def __init__(self, model: _core.Model, context: _core.Context, *, logits_all: bool = False):
        self.model = model
        self.context = context
        self.lock = threading.RLock()
        self.logits_all = logits_all
        self.scores = Scores(context.n_ctx, model.config.n_vocab)
        self._current: Stream | None = None

    @property
    def tokens(self) -> list[int]:
        """The ids in the cache, oldest first."""
        return self.context.tokens(_SEQUENCE)

    @property
    def length(self) -> int:
        """How many tokens the cache holds."""
        return self.context.length(_SEQUENCE)

    def trim(self, length: int) -> None:
        """Forgets everything from position `length` on."""
        with self.lock:
            self.stop_stream()
            self.context.trim(_SEQUENCE, length)

    def evaluate(self, tokens: Sequence[int]) -> None:
        """Appends `tokens` to the cache and keeps their logits (all, or the last one's).

        Raises ContextFullError when they do not fit, InvalidArgumentError for a bad id.
        """
        with self.lock:
            self.stop_stream()
            self._append(tokens)

    def _append(self, tokens: Sequence[int]) -> None:
        wanted = self.length + len(tokens)
        if wanted > self.context.n_ctx:
            raise ContextFullError(
                f"Requested tokens ({wanted}) exceed context window of {self.context.n_ctx}"
            )
        for start in range(0, len(tokens), self.context.n_batch):
            batch = list(tokens[start : start + self.context.n_batch])
            if self.logits_all:
                self.context.decode([(_SEQUENCE, batch, "all")])
            elif start + len(batch) == len(tokens):
                self.context.decode([(_SEQUENCE, batch, "last")])
            else:
                self.context.decode([(_SEQUENCE, batch, "none")])
                continue
            self.scores.store(self.length, self.context.logits())

    def start(self, prompt: Sequence[int], params: GenerationParams) -> Stream:
        """A generation that continues `prompt`; what the cache holds of it is reused.

        Raises ContextFullError when the prompt leaves no room, InvalidArgumentError for a bad
        prompt or sampling parameter.
        """
        with self.lock:
            self.stop_stream()
            if self.logits_all and len(prompt) < self.context.n_ctx:
                self._keep_prompt_logits(prompt)
            stream = Stream(self, prompt, params)
            self._current = stream
            return stream

    def stop_stream(self) -> None:
        """Ends the stream that is open, if one is."""
        if self._current is not None:
            self._current.overtake()
            self._current = None

    def _keep_prompt_logits(self, prompt: Sequence[int]) -> None:
        """Evaluates all of `prompt` but its last token, which a generation evaluates itself."""
        shared = 0
        for ours, theirs in zip(self.tokens, prompt[:-1], strict=False):
            if ours != theirs:
                break
            shared += 1
        self.context.trim(_SEQUENCE, shared)
        self._append(prompt[shared:-1])


def _native(sampling: SamplingParams) -> _core.SamplingParams:
    values = {entry.name: getattr(sampling, entry.name) for entry in fields(sampling)}
    if sampling.samplers is None:
        del values["samplers"]
    return _core.SamplingParams(**values)


class Stream(Iterator[Step]):
    """The steps of one generation. The first one evaluates the prompt.

    n_generated: tokens so far, without one that ended the text.
    Raises KeyboardInterrupt within a step when Ctrl-C is pressed; the cache stays consistent.
    """

    def __init__(self, engine: Engine, prompt: Sequence[int], params: GenerationParams) -> None:
        self._engine = engine
        self._finished = False
        self._generation: _core.Generation | None = _core.Generation(
            engine.context,
            list(prompt),
            sequence=_SEQUENCE,
            max_tokens=params.max_tokens,
            min_tokens=params.min_tokens,
            stop=list(params.stop),
            sampling=_native(params.sampling),
        )
        self.n_prompt_tokens = self._generation.n_prompt_tokens
        self.n_generated = 0

    def __next__(self) -> Step:
        """The next step. Raises PyllamacppError when another call has used the model since."""
        if self._finished:
            raise StopIteration
        with self._engine.lock:
            if self._generation is None:
                raise PyllamacppError(
                    "this stream ended early: another call has used the same model since"
                )
            text, token, reason = self._generation.next()
            if token >= 0 and not self._engine.model.tokenizer.ends_generation(token):
                self.n_generated += 1
            if self._engine.logits_all:
                self._engine.scores.store(self._engine.length, self._engine.context.logits()[-1:])
            if reason is not None:
                self._finished = True
        return Step(text, None if token < 0 else token, reason)

    def overtake(self) -> None:
        """Lets go of the cache: the engine serves another call now."""
        self._generation = None
