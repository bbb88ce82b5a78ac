"""Speed of a model on this machine, held against what the machine can do.

Limits are measured in the same run, before and after each test: reading memory in order, and the
arithmetic of the tier in use (int8, and float32 for float weights). What is held against them is
the work of a token, `_core.Work`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .. import _core
from .._core import Work, work_of
from ..errors import InvalidArgumentError


@dataclass(frozen=True)
class Limits:
    """Of all threads together, per second: bytes read, int8 and float32 operations."""

    read_bytes: float
    int8_ops: float
    float_ops: float

    def best(self, other: Limits) -> Limits:
        """The higher of each."""
        return Limits(
            max(self.read_bytes, other.read_bytes),
            max(self.int8_ops, other.int8_ops),
            max(self.float_ops, other.float_ops),
        )

    def prompt_seconds(self, work: Work, n: int, depth: int) -> float:
        """What n tokens of a prompt take at these limits, after `depth` others."""
        int8_ops, float_ops = work.prompt_ops(n, depth)
        return n * (int8_ops / self.int8_ops + float_ops / self.float_ops)


@dataclass(frozen=True)
class Result:
    """One test: the median of tokens_per_s over n_reps, its least and most.

    amount: operations (prompts) or bytes (generation) per token; limit: the rate of them that the
    machine reached; share_of_limit: the time the limit allows over the time taken.
    """

    test: str
    n_threads: int
    tokens_per_s: float
    least: float
    most: float
    n_reps: int
    amount: float
    limit: float
    share_of_limit: float
    limits: Limits

    @property
    def rate(self) -> float:
        """Operations or bytes per second."""
        return self.amount * self.tokens_per_s


def measure_limits(probe: _core.CpuLimitProbe) -> Limits:
    """What the machine can do now."""
    limits = probe.measure()
    return Limits(limits.bytes_per_second, limits.int_ops_per_second, limits.float_ops_per_second)


class Bench:
    """Runs tests on one model; probe_bytes: as `_core.CpuLimitProbe` has them.

    Raises what loading a model and making a context raise.
    """

    def __init__(
        self,
        model: _core.Model,
        *,
        n_ctx: int,
        n_threads: int = 0,
        n_batch: int = 512,
        type_k: str = "f16",
        type_v: str = "f16",
        probe_bytes: int = 0,
    ) -> None:
        self.model = model
        self.context = _core.Context(
            model,
            n_ctx=n_ctx,
            n_batch=n_batch,
            n_threads=n_threads,
            n_threads_batch=n_threads,
            type_k=type_k,
            type_v=type_v,
        )
        self.work = work_of(model, type_k, type_v)
        self._probe = _core.CpuLimitProbe(self.context.n_threads, probe_bytes)
        self._rng = np.random.default_rng(0)
        self._warm = False

    def prompt(self, n: int, depth: int = 0, n_reps: int = 5) -> Result:
        """Evaluates n tokens after `depth` others, the last one's logits wanted."""
        self._check_room(depth + n)
        self._fill(depth)

        def once() -> float:
            self.context.trim(0, depth)
            tokens = self._random_tokens(n)
            start = time.perf_counter()
            self.context.decode([(0, tokens, "last")])
            return time.perf_counter() - start

        seconds, limits = self._measure(once, n_reps)
        ops = sum(self.work.prompt_ops(n, depth))
        limit_seconds = limits.prompt_seconds(self.work, n, depth) / n
        return self._result(_name("pp", n, depth), n, seconds, ops, limit_seconds, limits)

    def generate(self, n: int, depth: int = 0, n_reps: int = 5) -> Result:
        """Generates n tokens greedily after `depth` others: sampling and text included."""
        self._check_room(depth + n)
        prompt = self._fill(max(depth, 1))

        def once() -> float:
            # The last token of the prompt is evaluated again; the rest is found in the cache.
            generation = _core.Generation(
                self.context,
                prompt,
                max_tokens=n,
                sampling=_core.SamplingParams(temperature=0.0),
                ignore_eos=True,
            )
            start = time.perf_counter()
            for _ in range(n):
                generation.next()
            return time.perf_counter() - start

        seconds, limits = self._measure(once, n_reps)
        n_bytes = self.work.token_bytes(n, depth)
        limit_seconds = n_bytes / limits.read_bytes
        return self._result(_name("tg", n, depth), n, seconds, n_bytes, limit_seconds, limits)

    def _check_room(self, n_tokens: int) -> None:
        if n_tokens > self.context.n_ctx:
            raise InvalidArgumentError(
                f"the test needs {n_tokens} tokens of context, there are {self.context.n_ctx}"
            )

    def _measure(self, once: Callable[[], float], n_reps: int) -> tuple[list[float], Limits]:
        if not self._warm:
            once()
            self._warm = True
        before = measure_limits(self._probe)
        seconds = [once() for _ in range(n_reps)]
        return seconds, before.best(measure_limits(self._probe))

    def _fill(self, n: int) -> list[int]:
        """An empty cache, then n tokens in it."""
        self.context.trim(0, 0)
        tokens = self._random_tokens(n)
        if tokens:
            self.context.decode([(0, tokens, "none")])
        return tokens

    def _random_tokens(self, n: int) -> list[int]:
        ids: list[int] = self._rng.integers(0, self.model.config.n_vocab, n).tolist()
        return ids

    def _result(
        self,
        test: str,
        n: int,
        seconds: list[float],
        amount: float,
        limit_seconds: float,
        limits: Limits,
    ) -> Result:
        median = statistics.median(seconds)
        return Result(
            test=test,
            n_threads=self.context.n_threads,
            tokens_per_s=n / median,
            least=n / max(seconds),
            most=n / min(seconds),
            n_reps=len(seconds),
            amount=amount,
            limit=amount / limit_seconds,
            share_of_limit=limit_seconds * n / median,
            limits=limits,
        )


def run(
    bench: Bench, prompts: list[int], generations: list[int], depths: list[int], n_reps: int
) -> Iterator[Result]:
    """All tests one after another: at each depth, each prompt and then each generation."""
    for depth in depths:
        for n in prompts:
            yield bench.prompt(n, depth, n_reps)
        for n in generations:
            yield bench.generate(n, depth, n_reps)


def _name(kind: str, n: int, depth: int) -> str:
    return f"{kind}{n}@d{depth}" if depth else f"{kind}{n}"
