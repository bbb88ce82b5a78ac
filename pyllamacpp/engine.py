"""A loaded model with one context: what `Llama` and the commands run on.

Several texts at a time, each in a sequence of the context. There is no thread of the engine's own:
of the threads that wait for steps one takes the lead, evaluates one batch for all texts, and wakes
the others. So a single text costs no hand-over, and texts of several threads share each pass over
the weights. Streams that are listened to (asyncio's) have one thread that waits for all of them,
while there are any. What a finished text leaves in the cache stays until its memory or its sequence
is needed; a prompt that begins alike shares it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

from . import _core
from .errors import (
    CancelledError,
    ContextFullError,
    InvalidArgumentError,
    OutOfMemoryError,
    PyllamacppError,
    UnsupportedError,
)
from .params import Adapters, GenerationParams
from .scores import Scores
from .state import LlamaState, Origin, head_of, require_fit, state_of
from .stream import FinishReason, Step, Stream, native

__all__ = ["Engine", "FinishReason", "Step", "Stream"]

# Tokens that a prompt in evaluation must share, beyond what is there, to be waited for.
_WORTH_WAITING = 32
# Seconds between looks at whether a text can be evaluated.
_PATIENCE = 0.02


class PrefixStore(Protocol):
    """Evaluated texts outside of the context. Only the thread in the lead calls it."""

    def load(self, sequence: int, tokens: Sequence[int]) -> None:
        """Puts what there is of `tokens` into a sequence, if that holds less of them."""

    def save(self, sequence: int) -> None:
        """Keeps the text of a sequence."""


class Engine:
    """Evaluates tokens and runs generations.

    logits_all keeps the logits of every token in `scores`, one text at a time; otherwise only
    `evaluate` writes there, and only its last row. adapters: what `evaluate` uses; a change forgets
    the current text.
    """

    def __init__(self, model: _core.Model, context: _core.Context, *, logits_all: bool = False):
        self.model = model
        self.context = context
        self.logits_all = logits_all
        self.adapters: Adapters = ()
        self.store: PrefixStore | None = None
        self.scores = Scores(context.n_ctx, model.config.n_vocab)
        self.tokenizer = model.tokenizer
        self._lock = threading.RLock()
        self._turn = threading.Condition(self._lock)  # what waits for the lead, or for a step
        self._n_asleep = 0  # threads that wait there
        self._has_cancelled = False  # a text was cancelled that the thread in the lead may touch
        self._is_busy = False  # a thread has the lead; it alone touches what follows
        self._listened: set[Stream] = set()
        self._waiting: deque[Stream] = deque()  # any thread may append and remove, with the lock
        self._running: list[Stream] = []  # in order of arrival
        self._unsaved: list[int] = []  # sequences with finished texts that the store is to get
        n_sequences = 1 if logits_all else context.max_sequences
        self._owners: list[Stream | None] = [None] * n_sequences  # of the sequences
        self._last_use = [0] * n_sequences
        self._n_uses = 0
        self._current = 0  # the sequence that began a text last

    # -- the current sequence ------------------------------------------------------------------

    @property
    def tokens(self) -> list[int]:
        """The ids in the cache of the text that was begun last, oldest first."""
        return self.context.tokens(self._current)

    @property
    def length(self) -> int:
        """How many these are."""
        return self.context.length(self._current)

    def trim(self, length: int) -> None:
        """Forgets what they are from position `length` on; a stream of theirs ends."""
        with self._lead():
            self._free_current()
            self.context.trim(self._current, length)

    def evaluate(self, tokens: Sequence[int]) -> None:
        """Appends `tokens` to the current text and keeps their logits (all, or the last one's).

        Raises ContextFullError when they do not fit, InvalidArgumentError for a bad id.
        """
        with self._lead():
            self._free_current()
            self.context.set_adapters(self._current, self.adapters)
            self._append(tokens)

    def _append(self, tokens: Sequence[int]) -> None:
        sequence, n_batch = self._current, self.context.n_batch
        wanted = self.length + len(tokens)
        if wanted > self.context.n_ctx:
            raise ContextFullError(
                f"Requested tokens ({wanted}) exceed context window of {self.context.n_ctx}"
            )
        self._last_use[sequence] = self._next_use()
        while self.context.pages_to_append(sequence, len(tokens)) > self.context.n_free_pages:
            if not self._evict(sequence) and not self._interrupt_paused():
                raise ContextFullError(
                    f"{len(tokens)} tokens do not fit beside the texts that are being generated"
                )
        for start in range(0, len(tokens), n_batch):
            batch = list(tokens[start : start + n_batch])
            is_last = start + len(batch) == len(tokens)
            wants: _core.WantLogits = "all" if self.logits_all else "last" if is_last else "none"
            self._decode(sequence, batch, wants)
            if wants != "none":
                self.scores.store(self.length, self.context.logits())

    def _decode(self, sequence: int, tokens: list[int], wants: _core.WantLogits) -> None:
        while True:
            with suppress(CancelledError):  # a stream's that came too late for its own evaluation
                self.context.decode([(sequence, tokens, wants)])
                return

    def _free_current(self) -> None:
        owner = self._owners[self._current]
        if owner is not None:
            owner.fail(PyllamacppError("this stream ended early: its context was changed"))
            self._retire(owner)

    def save_state(self, seed: int) -> LlamaState:
        """The current text, with the logits that `scores` has of its end.

        Raises UnsupportedError for one with adapters, or whose keys and values a GPU holds.
        """
        with self._lead():
            if self.context.n_adapters(self._current):
                raise UnsupportedError("a text with LoRA adapters cannot be saved")
            n_scores = min(self.length, self.length if self.logits_all else 1)
            head = head_of(
                self.context,
                Origin.of(self.model, self.context),
                self.length,
                n_vocab=self.model.config.n_vocab,
                n_scores=n_scores,
                seed=seed,
            )
            scores = self.scores.rows[self.length - n_scores : self.length]
            return state_of(self.context, self._current, head, scores)

    def load_state(self, state: LlamaState) -> None:
        """Makes a saved text the current one, in place of what that was.

        Raises InvalidArgumentError for one of another model or layout, ContextFullError.
        """
        with self._lead():
            require_fit(state, Origin.of(self.model, self.context), self.context)
            self._free_current()
            self.context.trim(self._current, 0)
            self.context.set_adapters(self._current, ())
            n_pages = state.head.n_pages
            while n_pages > self.context.n_free_pages:
                if not self._evict(self._current) and not self._interrupt_paused():
                    raise ContextFullError(
                        f"{state.n_tokens} tokens do not fit beside the texts being generated"
                    )
            self.context.load(self._current, state.input_ids.tolist(), state.pages(state.n_tokens))
            self._last_use[self._current] = self._next_use()
            if len(state.scores) and state.head.n_vocab == self.model.config.n_vocab:
                self.scores.store(state.n_tokens, state.scores)

    # -- generations ---------------------------------------------------------------------------

    def start(
        self, prompt: Sequence[int], params: GenerationParams, *, keeps_up: bool = True
    ) -> Stream:
        """A generation that continues `prompt`; what the cache holds of it is reused.

        keeps_up: see `Stream`.

        Raises ContextFullError when the prompt leaves no room, InvalidArgumentError for a bad
        prompt or sampling parameter.
        """
        self._check(prompt, params)
        stream = Stream(self, prompt, params, keeps_up=keeps_up)
        if params.max_tokens == 0:
            stream.steps.append(Step("", None, "length"))
            stream.finish_reason = "length"
            stream.is_finished = True
            return stream
        with self._lock:
            self._waiting.append(stream)
        return stream

    def _check(self, prompt: Sequence[int], params: GenerationParams) -> None:
        n_ctx, n_vocab = self.context.n_ctx, self.model.config.n_vocab
        if len(prompt) == 0:
            raise InvalidArgumentError("the prompt has no tokens")
        if len(prompt) > n_ctx:
            raise ContextFullError(
                f"Requested tokens ({len(prompt)}) exceed context window of {n_ctx}"
            )
        for token in (min(prompt), max(prompt)):
            if not 0 <= token < n_vocab:
                raise InvalidArgumentError(f"token {token} is outside the vocabulary of {n_vocab}")
        if not 0 <= params.n_keep < n_ctx:
            raise InvalidArgumentError(
                f"n_keep must lie in 0 .. {n_ctx - 1}, found {params.n_keep}"
            )
        native(params.sampling).check()

    def next_step(self, stream: Stream) -> Step:
        """The next step of a stream: made already, by the thread in the lead, or by this one."""
        while True:
            with self._lock:
                while True:
                    step = stream.take()
                    if step is not None:
                        return step
                    if not self._is_busy:
                        self._is_busy = True
                        break
                    self._sleep()
            try:
                has_advanced = self._advance()
            finally:
                self._give_up_lead()
            if not has_advanced:  # others hold what this stream needs, until they are taken from
                with self._lock:
                    self._sleep(_PATIENCE)

    def _sleep(self, seconds: float | None = None) -> None:
        """Waits for `_wake`, the lock being held and given up meanwhile."""
        self._n_asleep += 1
        try:
            self._turn.wait(seconds)
        finally:
            self._n_asleep -= 1

    def _wake(self) -> None:
        if self._n_asleep:
            self._turn.notify_all()

    def listen(self, stream: Stream, listener: Callable[[], None]) -> None:
        """Has a stream evaluated without a thread that waits for its steps.

        The listener is called, by another thread, whenever there may be something to `poll`; it
        must return at once.
        """
        with self._lock:
            stream.listener = listener
            is_first = not self._listened
            self._listened.add(stream)
            self._wake()
        if is_first:
            threading.Thread(target=self._drive, name="pyllamacpp-engine", daemon=True).start()

    def poll(self, stream: Stream) -> Step | None:
        """The next step if it is made already; None: the listener will say. Raises as `take`."""
        with self._lock:
            wanted = stream.wants_steps
            try:
                return stream.take()
            finally:
                if stream.wants_steps and not wanted:
                    self._wake()

    def _drive(self) -> None:
        """Evaluates as long as somebody listens."""
        while True:
            with self._lock:
                while self._is_busy or not any(s.wants_steps for s in self._listened):
                    self._listened = {s for s in self._listened if not s.is_finished}
                    if not self._listened:
                        return
                    self._sleep()
                self._is_busy = True
            has_advanced = False
            try:
                has_advanced = self._advance()
                self._save_finished()  # its listeners have their last steps
            except Exception as error:  # of the evaluation, so of all its texts
                for stream in [s for s in self._running if s.listener is not None]:
                    stream.fail(error)
                    self._retire(stream)
            finally:
                self._give_up_lead()
            if not has_advanced:
                with self._lock:
                    self._sleep(_PATIENCE)

    @property
    def n_waiting(self) -> int:
        """Texts that wait for a sequence."""
        return len(self._waiting)

    def slots(self) -> list[tuple[int, int, int]]:
        """Of the sequences: how many tokens are cached; of a text's, its prompt's and its own.

        A sequence without a text has -1 for both.
        """
        found = []
        for i, owner in enumerate(list(self._owners)):
            own = (-1, -1) if owner is None else (owner.n_prompt_tokens, owner.n_generated)
            found.append((self.context.length(i), *own))
        return found

    def settle(self) -> None:
        """Gives finished texts to the store, which takes its time: called after a last step."""
        if not self._unsaved:
            return
        with self._lock:
            if self._is_busy:
                return  # whoever has the lead does it next
            self._is_busy = True
        try:
            self._save_finished()
        finally:
            self._give_up_lead()

    def cancel(self, stream: Stream) -> None:
        """Ends a stream; see `Stream.cancel`."""
        self._cancel(stream)
        self.settle()

    def _cancel(self, stream: Stream) -> None:
        with self._lock:
            if stream.is_finished and not stream.steps:
                return
            stream.is_cancelled = stream.is_finished = True
            if stream in self._waiting:
                self._waiting.remove(stream)
            elif not self._is_busy:
                self._retire(stream)
            else:
                self._has_cancelled = True
                if stream in self._running:
                    self.context.cancel()
            stream.tell()
            self._wake()

    def close(self) -> None:
        """Ends all streams; their next steps raise PyllamacppError."""
        with self._lead():
            for stream in [*self._running, *self._waiting]:
                stream.steps.clear()
                stream.fail(PyllamacppError("the model was closed"))
            self._running.clear()
            self._waiting.clear()

    @contextmanager
    def _lead(self) -> Iterator[None]:
        """Nobody else evaluates or changes sequences meanwhile."""
        with self._lock:
            while self._is_busy:
                self._sleep()
            self._is_busy = True
        try:
            self._save_finished()
            yield
        finally:
            self._give_up_lead()

    def _give_up_lead(self) -> None:
        with self._lock:
            if self._has_cancelled:
                self._has_cancelled = False
                for stream in [s for s in self._running if s.is_cancelled]:
                    self._retire(stream)
            self._is_busy = False
            self._wake()

    # -- what the thread in the lead does --------------------------------------------------------

    def _advance(self) -> bool:
        """One evaluation for the texts that want steps; False if there are none."""
        # What a token costs in Python is little beside its evaluation because it does little: an
        # evaluation leaves nothing of Python in the caches, and each call is paid for anew.
        if self._unsaved:
            self._save_finished()
        if self._waiting:
            self._admit()
        batch = [s for s in self._running if s.wants_steps]
        for stream in batch:
            if stream.params.drafter is not None:
                stream.guess()
        found = None
        try:
            while found is None:
                if not batch:
                    return False
                found = _core.advance([(s.generation, s.by_python) for s in batch])
                if found is None:
                    self._make_room(batch)
        except CancelledError:
            # A stream was cancelled, now or too late for its own evaluation, and maybe another
            # since: that one ends, and the rest is evaluated again.
            return True
        for stream, steps in zip(batch, found, strict=True):
            self._deliver(stream, steps)
        for stream in batch:  # once all are there: who is told takes time from the rest
            stream.tell()
        return True

    def _deliver(self, stream: Stream, steps: _core.GenerationSteps) -> None:
        try:
            stream.add(steps or stream.sample_if_ready())
            if stream.params.prompt_progress is not None:
                stream.report_progress()
            if self.logits_all and stream.n_generated:
                self.scores.store(self.length, self.context.logits()[-1:])
        except Exception as error:  # of this text alone: a filter, a processor, bad logits
            stream.fail(error)
        if stream.is_finished:
            self._retire(stream)
            is_whole = stream.error is None and not stream.is_cancelled
            if self.store is not None and is_whole and self._uses_store(stream):
                assert stream.generation is not None
                self._unsaved.append(stream.generation.sequence)

    def _save_finished(self) -> None:
        """Comes first in every lead, before a sequence can be given to another text."""
        while self._unsaved:
            sequence = self._unsaved.pop()
            if self.store is not None:
                self.store.save(sequence)

    def _admit(self) -> None:
        """Gives sequences to texts that wait, in order."""
        with self._lock:  # others append and cancel meanwhile
            waiting = [s for s in self._waiting if s.wants_steps or s.is_finished]
        for stream in waiting:
            if stream.is_finished:
                self._leave_queue(stream)
                continue
            text = stream.prompt if stream.generation is None else stream.generation.pending
            wanted = [] if stream.params.prompt_log_probs else text[:-1]
            adapters = stream.params.adapters
            source, n_shared = self.context.best_match(wanted, adapters)
            if self._is_soon_there(wanted, n_shared, adapters):
                return
            if None not in self._owners and not self._interrupt_paused():
                return
            sequence = self._choose_sequence(source, n_shared)
            n_new = len(text) - n_shared
            if self._running and not self._has_room(n_new, sequence, source):
                return
            if self._leave_queue(stream):
                self._begin(stream, sequence, source if n_shared else sequence)

    def _leave_queue(self, stream: Stream) -> bool:
        """Whether the stream still waited: a cancelled one is gone."""
        with self._lock:
            if stream not in self._waiting:
                return False
            self._waiting.remove(stream)
            return True

    def _begin(self, stream: Stream, sequence: int, source: int) -> None:
        self._owners[sequence] = stream
        self._running.append(stream)
        self._current = sequence
        try:
            if source != sequence:
                self.context.fork(source, sequence)
            self.context.set_adapters(sequence, stream.params.adapters)
            if stream.generation is not None:  # it was interrupted
                stream.generation.resume(sequence)
                return
            if self.logits_all:
                self._keep_prompt_logits(stream)
            elif self._uses_store(stream) and self.store is not None:
                self.store.load(sequence, stream.prompt[:-1])
            stream.begin(self.context, sequence)
        except PyllamacppError as error:
            stream.fail(error)
            self._retire(stream)

    def _uses_store(self, stream: Stream) -> bool:
        return not stream.params.adapters and not stream.params.prompt_log_probs

    def _keep_prompt_logits(self, stream: Stream) -> None:
        """Evaluates all of a prompt but its last token, which a generation evaluates itself."""
        prompt = stream.prompt
        _, n_shared = self.context.best_match(prompt[:-1], stream.params.adapters)
        self.context.trim(self._current, n_shared)
        self._append(prompt[n_shared:-1])

    def _is_soon_there(self, prompt: Sequence[int], n_shared: int, adapters: Adapters) -> bool:
        """Whether a prompt that is being evaluated begins so alike that waiting for it pays."""
        enough = n_shared + _WORTH_WAITING
        for other in self._running:
            generation = other.generation
            if generation is None or generation.n_pending <= 1 or len(prompt) < enough:
                continue
            if other.params.adapters == adapters and prompt[:enough] == other.prompt[:enough]:
                return True
        return False

    def _choose_sequence(self, source: int, n_shared: int) -> int:
        """A sequence without owner: the one to continue, else an empty one, else the oldest."""
        free = [i for i, owner in enumerate(self._owners) if owner is None]
        if n_shared and source in free and self.context.length(source) == n_shared:
            return source
        others = [i for i in free if i != source or not n_shared] or free
        return min(others, key=lambda i: (self.context.length(i) > 0, self._last_use[i]))

    def _has_room(self, n_tokens: int, sequence: int, source: int) -> bool:
        """Whether so many more tokens fit, once old and paused texts are given up."""
        n_pages = n_tokens // self.context.page_tokens + 2
        while self.context.n_free_pages < n_pages:
            if not self._evict(sequence, source) and not self._interrupt_paused():
                return False
        return True

    def _make_room(self, batch: list[Stream]) -> None:
        """Pages for what the batch appends: an old or a paused text goes, or its youngest waits."""
        if self._evict() or self._interrupt_paused(batch):
            return
        youngest = batch.pop()
        if batch:
            self._interrupt(youngest)
        else:
            youngest.fail(OutOfMemoryError("the cache has no room for this text"))
            self._retire(youngest)

    def _interrupt_paused(self, batch: Sequence[Stream] = ()) -> bool:
        """Interrupts a text whose steps nobody takes; False if there is none.

        batch: is left alone; a text of it may have been cancelled since.
        """
        paused = [s for s in self._running if not s.wants_steps and s not in batch]
        if paused:
            self._interrupt(paused[-1])
        return bool(paused)

    def _interrupt(self, stream: Stream) -> None:
        """Takes a text's memory; it is evaluated again later, to the same bits."""
        assert stream.generation is not None
        stream.generation.interrupt()
        self._running.remove(stream)
        self._owners[stream.generation.sequence] = None
        with self._lock:
            self._waiting.appendleft(stream)

    def _evict(self, *keep: int) -> bool:
        """Empties the sequence without owner that was used longest ago; False if there is none."""
        old = [
            i
            for i, owner in enumerate(self._owners)
            if owner is None and i not in keep and self.context.length(i) > 0
        ]
        if not old:
            return False
        self.context.trim(min(old, key=self._last_use.__getitem__), 0)
        return True

    def _retire(self, stream: Stream) -> None:
        """The text is complete, or given up; its sequence is free."""
        if stream not in self._running:
            return
        self._running.remove(stream)
        sequence = next(i for i, owner in enumerate(self._owners) if owner is stream)
        self._owners[sequence] = None
        self._last_use[sequence] = self._next_use()

    def _next_use(self) -> int:
        self._n_uses += 1
        return self._n_uses
