"""One text being generated: its steps, as the engine makes them and a caller takes them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from time import monotonic
from typing import Literal, NamedTuple, Protocol

from . import _core
from .errors import CancelledError, ContextFullError
from .params import GenerationParams, SamplingParams

FinishReason = Literal["stop", "length"]

LogProbs = tuple[float, list[tuple[int, float]]]
"""The log-probability of a token, and (token, log-probability) of the likeliest, best first."""


class Step(NamedTuple):
    """One step of a generation; the one with a finish_reason is the last.

    text: whole characters only, may be empty. token: the id sampled, None if none was.
    log_probs: where the parameters ask for them.
    """

    text: str
    token: int | None
    finish_reason: FinishReason | None
    log_probs: LogProbs | None = None


class Steps(Protocol):
    """Who makes the steps: the engine."""

    model: _core.Model
    context: _core.Context
    tokenizer: _core.Tokenizer

    def next_step(self, stream: Stream) -> Step:
        """The next step of a stream."""

    def cancel(self, stream: Stream) -> None:
        """Ends a stream."""

    def settle(self) -> None:
        """Does what may wait until a last step has been taken."""


class Stream(Iterator[Step]):
    """The steps of one generation, made while somebody waits for them.

    n_generated: tokens so far, without one that ended the text.
    keeps_up: whether the engine stops after a few steps that nobody has taken.
    n_taken: steps that the caller has. finish_reason: of the last step that was made.
    listener: told by the thread that evaluates that there is something to take; see
        `Engine.listen`.

    A caller that gives a stream up before its last step must `cancel` it.
    """

    def __init__(
        self, engine: Steps, prompt: Sequence[int], params: GenerationParams, *, keeps_up: bool
    ) -> None:
        self.prompt = list(prompt)
        self.params = params
        self.keeps_up = keeps_up
        self.tokenizer = engine.tokenizer
        self.n_generated = 0
        self.n_taken = 0
        self.finish_reason: FinishReason | None = None
        self.generation: _core.Generation | None = None
        self.error: BaseException | None = None
        self.is_cancelled = False
        self.is_finished = False
        self.steps: deque[Step] = deque()
        self.listener: Callable[[], None] | None = None
        self._engine = engine
        # Whether a token is sampled only after Python has looked at the logits.
        self.by_python = bool(
            params.processors or params.criteria or params.token_filter is not None
        )
        self._prompt_is_through = False
        self._deadline = math.inf

    @property
    def n_prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt)

    @property
    def n_reused(self) -> int:
        """Tokens of the prompt that were found in the cache."""
        return 0 if self.generation is None else self.generation.n_reused

    @property
    def stop_string(self) -> str:
        """The stop string that ended the text; empty if none did."""
        return "" if self.generation is None else self.generation.stop_string

    @property
    def n_shifts(self) -> int:
        """How often the older half of the text was dropped because the context was full."""
        return 0 if self.generation is None else self.generation.n_shifts

    @property
    def prompt_log_probs(self) -> list[LogProbs]:
        """With prompt_log_probs: of the prompt's second token and those after it."""
        return [] if self.generation is None else self.generation.prompt_log_probs

    def __next__(self) -> Step:
        """The next step; the first one evaluates the prompt.

        Raises CancelledError once cancelled, KeyboardInterrupt within a step when Ctrl-C is
        pressed (the step can be taken again), and what evaluating and sampling raise.
        """
        try:
            return self._engine.next_step(self)
        except StopIteration:
            self._engine.settle()
            raise

    def cancel(self) -> None:
        """Ends the stream, within the time of one layer also while its prompt is evaluated.

        Any thread may call it, also more than once and after the last step.
        """
        self._engine.cancel(self)

    def fail(self, error: BaseException) -> None:
        """Ends with an error, which the next step raises."""
        if not self.is_finished:
            self.error = error
            self.is_finished = True
            self.tell()

    def tell(self) -> None:
        """Calls the listener, if there is one."""
        if self.listener is not None:
            self.listener()

    def take(self) -> Step | None:
        """A step that was made already; None while there is none and more will come.

        Raises what the stream ended with, StopIteration after the last step.
        """
        if self.is_cancelled:
            raise CancelledError("the generation was cancelled")
        if self.steps:
            self.n_taken += 1
            return self.steps.popleft()
        if self.error is not None:
            raise self.error
        if self.is_finished:
            raise StopIteration
        return None

    # -- the engine's side ---------------------------------------------------------------------

    @property
    def wants_steps(self) -> bool:
        """Whether another step is of use now."""
        return not self.is_finished and (not self.keeps_up or len(self.steps) < _AHEAD)

    def begin(self, context: _core.Context, sequence: int) -> None:
        """Becomes the text of a sequence. Raises what `_core.Generation` raises."""
        p = self.params
        if p.time_limit is not None:
            self._deadline = monotonic() + p.time_limit
        self.generation = _core.Generation(
            context,
            self.prompt,
            sequence=sequence,
            max_tokens=p.max_tokens,
            min_tokens=p.min_tokens,
            stop=list(p.stop),
            sampling=native(p.sampling),
            ignore_eos=p.ignore_eos,
            n_log_probs=-1 if p.n_log_probs is None else p.n_log_probs,
            prompt_log_probs=p.prompt_log_probs,
            when_full="shift" if p.when_full == "shift" else "stop",
            n_keep=p.n_keep,
            shown=list(p.shown),
        )

    def guess(self) -> None:
        """Asks the drafter, if there is one, what comes next."""
        drafter, generation = self.params.drafter, self.generation
        if drafter is None or generation is None or self.by_python:
            return
        if generation.n_generated > 0 and generation.n_pending == 1:
            held = self._engine.context.tokens(generation.sequence)
            generation.guess(drafter.guess([*held, *generation.pending]))

    def report_progress(self) -> None:
        """Tells how far the prompt is, until it is through."""
        report, generation = self.params.prompt_progress, self.generation
        if report is None or generation is None or self._prompt_is_through:
            return
        self._prompt_is_through = generation.n_generated > 0
        n_pending = 0 if self._prompt_is_through else generation.n_pending
        report(len(self.prompt) - n_pending, len(self.prompt))

    def add(self, found: _core.GenerationSteps) -> None:
        """Takes in steps that were made; whoever calls it must `tell`.

        Raises ContextFullError where the text has filled the context and that is an error.
        """
        is_limited = self._deadline < math.inf
        if is_limited and found and found[-1][2] is None and monotonic() > self._deadline:
            assert self.generation is not None
            text, token, _, log_probs = found[-1]
            found[-1] = (text + self.generation.end(), token, "length", log_probs)
        for text, token, reason, log_probs in found:
            # A token that ends texts has a reason, unless it is to be ignored.
            is_end = reason is not None and token >= 0 and self.tokenizer.ends_generation(token)
            if token >= 0 and (self.params.ignore_eos or not is_end):
                self.n_generated += 1
            if reason == "length" and self.params.when_full == "error":
                n_ctx = self._engine.context.n_ctx
                is_full = self.n_prompt_tokens + self.n_generated > n_ctx
                if is_full and self.n_generated != self.params.max_tokens:
                    raise ContextFullError(f"the text has filled the context of {n_ctx} tokens")
            self.steps.append(Step(text, None if token < 0 else token, reason, log_probs))
            if reason is not None:
                self.finish_reason = reason
                self.is_finished = True

    def sample_if_ready(self) -> _core.GenerationSteps:
        """The token that only Python can sample, none while the prompt is not through.

        Raises what sampling, a filter, a processor or a criterion raises.
        """
        generation, p = self.generation, self.params
        assert generation is not None
        if not generation.ready:
            return []
        if not self.by_python:
            return generation.sample()  # the core has tried, and left the error to be raised here
        import numpy as np

        ids = np.array(self._engine.context.tokens(generation.sequence), dtype=np.intc)
        logits = generation.logits()
        for processor in p.processors:
            logits = np.asarray(processor(ids, logits), dtype=np.single)
        allowed = None
        if p.token_filter is not None:
            mask = np.zeros((self._engine.model.config.n_vocab + 31) // 32, dtype=np.uint32)
            allowed = mask if p.token_filter.fill(mask) else None
        steps = generation.sample(logits if p.processors else None, allowed)
        text, token, reason, log_probs = steps[-1]
        if p.token_filter is not None and reason is None:
            p.token_filter.accept(token)
        if reason is None and p.criteria:
            ids = np.append(ids, np.intc(token))
            if any(criterion(ids, logits) for criterion in p.criteria):
                steps[-1] = (text + generation.end(), token, "stop", log_probs)
        return steps


_AHEAD = 4


def native(sampling: SamplingParams) -> _core.SamplingParams:
    """The parameters as the core takes them."""
    values = {entry.name: getattr(sampling, entry.name) for entry in fields(sampling)}
    if sampling.samplers is None:
        del values["samplers"]
    return _core.SamplingParams(**values)
