"""One conversation on an engine: its history, and answers streamed to stdout."""

from __future__ import annotations

import dataclasses
import random
import sys

import click

from ..chat.format import ChatFormat
from ..engine import Engine, FinishReason
from ..errors import ContextFullError
from ..params import GenerationParams
from .runtime import status, with_grammar


class Conversation:
    """Messages so far. What the cache holds of them is reused by the engine."""

    def __init__(
        self,
        engine: Engine,
        chat_format: ChatFormat,
        params: GenerationParams,
        system: str | None = None,
        grammar: str | None = None,
    ) -> None:
        self._engine = engine
        self._format = chat_format
        self._params = dataclasses.replace(params, stop=chat_format.stop)
        self._grammar = grammar
        self._seeds = random.Random(params.sampling.seed)
        self._first = [] if system is None else [{"role": "system", "content": system}]
        self._messages = list(self._first)

    def clear(self) -> None:
        """Forgets everything but the system message."""
        self._messages = list(self._first)

    def answer_once(self, question: str) -> None:
        """Streams the answer to one question.

        Raises ContextFullError when the question does not fit.
        """
        _, reason = self._stream(question, [])
        self._announce_length(reason)

    def answer(self, question: str) -> None:
        """Streams an answer and keeps both; Ctrl-C stops it and what was said so far is kept."""
        said: list[str] = []
        try:
            _, reason = self._stream(question, said)
        except KeyboardInterrupt:
            click.echo()
            reason = None
            status("stopped")
        except ContextFullError as error:
            status(f"{error}: the question does not fit any more; /clear starts anew")
            return
        if said:
            self._messages += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": "".join(said)},
            ]
        self._announce_length(reason)
        self._next_seed()

    def _stream(self, question: str, said: list[str]) -> tuple[int, FinishReason | None]:
        prompt = self._format.encode([*self._messages, {"role": "user", "content": question}])
        reason = None
        steps = self._engine.start(prompt, with_grammar(self._params, self._grammar, self._engine))
        try:
            for step in steps:
                if step.text:
                    said.append(step.text)
                    sys.stdout.write(step.text)
                    sys.stdout.flush()
                reason = step.finish_reason
        finally:
            steps.cancel()
        click.echo()
        return steps.n_generated, reason

    def _announce_length(self, reason: FinishReason | None) -> None:
        if reason != "length":
            return
        limit = self._params.max_tokens
        n_ctx = self._engine.context.n_ctx
        if limit >= 0 and self._engine.length < n_ctx - 1:
            status(f"the answer was cut at {limit} tokens (-n)")
        else:
            status(f"the context of {n_ctx} tokens is full: the answer was cut (see -c)")

    def _next_seed(self) -> None:
        sampling = dataclasses.replace(self._params.sampling, seed=self._seeds.getrandbits(64))
        self._params = dataclasses.replace(self._params, sampling=sampling)
