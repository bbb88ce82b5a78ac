"""Threads, tasks and cancels at random over one model: each text that ends is what it is alone.

PYLLAMACPP_STRESS_TOKENS: tokens of the texts that end, 24,000 in .ci/full. A file of
tests/system runs the small model under the thread sanitizer.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyllamacpp import Llama
from pyllamacpp.errors import CancelledError
from pyllamacpp.stream import Stream

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
from tiny_model import TinyModel

N_TOKENS = int(os.environ.get("PYLLAMACPP_STRESS_TOKENS", "1200"))
N_THREADS = 8
PATIENCE = 300  # seconds without a text that ends: then something waits for ever
MOST_GROWTH = 24 << 20
PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a small dragon who",
    "def fibonacci(n):\n    ",
    "The quick brown fox jumps over the lazy dog. The quick brown fox",
    "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over the moon and",
    "Water boils at a temperature of",
)


def halve_the_best(_ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
    scores[scores.argmax()] *= 0.5
    return scores


OPTIONS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"seed": 1, "temperature": 1.2},
    {"seed": 2, "repeat_penalty": 1.3, "stop": ["e s", "the"]},
    {"seed": 3, "logprobs": 2, "n": 2},
    {"seed": 4, "logits_processor": halve_the_best},
    {"seed": 5, "regex": "[ a-z]{20,40}"},
)
WORKS = [
    (prompt, {"max_tokens": 20 + 4 * i, **options})
    for prompt in PROMPTS
    for i, options in enumerate(OPTIONS)
]


@dataclass
class Progress:
    """What the threads have done, counted under a lock of their own."""

    n_tokens: int = 0
    n_finished: int = 0
    n_cancelled: int = 0
    errors: list[BaseException] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def finished(self, result: dict[str, Any]) -> None:
        with self.lock:
            self.n_finished += 1
            self.n_tokens += result["usage"]["completion_tokens"]

    def cancelled(self) -> None:
        with self.lock:
            self.n_cancelled += 1


def essence(result: Any) -> list[Any]:
    """Of a result what does not depend on when it was made."""
    return result["choices"]  # type: ignore[no-any-return]


class Worker:
    """A thread that does works at random, in one of six ways each."""

    def __init__(
        self, llama: Llama, expected: list[dict[str, Any]], progress: Progress, seed: int
    ) -> None:
        self.llama, self.expected, self.progress = llama, expected, progress
        self.random = random.Random(seed)

    def run(self) -> None:
        ways: list[Callable[[int], None]] = [
            self.whole,
            self.streamed,
            self.given_up,
            self.cancelled_by_another,
            self.as_task,
            self.together,
        ]
        try:
            while self.progress.n_tokens < N_TOKENS and not self.progress.errors:
                self.random.choice(ways)(self.random.randrange(len(WORKS)))
        except BaseException as error:
            self.progress.errors.append(error)

    def check(self, i: int, result: Any) -> None:
        assert essence(result) == essence(self.expected[i]), WORKS[i]
        self.progress.finished(self.expected[i])

    def whole(self, i: int) -> None:
        prompt, options = WORKS[i]
        self.check(i, self.llama.create_completion(prompt, **options))

    def streamed(self, i: int) -> None:
        prompt, options = WORKS[i]
        texts: dict[int, str] = {}
        for chunk in self.llama.create_completion(prompt, stream=True, **options):
            (choice,) = chunk["choices"]
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
        expected = {c["index"]: c["text"] for c in essence(self.expected[i])}
        assert texts == expected, WORKS[i]
        self.progress.finished(self.expected[i])

    def given_up(self, i: int) -> None:
        prompt, options = WORKS[i]
        chunks = self.llama.create_completion(prompt, stream=True, **options)
        for _ in range(self.random.randrange(4)):
            next(chunks, None)
        if self.random.random() < 0.5:
            chunks.close()
        del chunks
        self.progress.cancelled()

    def cancelled_by_another(self, i: int) -> None:
        prompt, options = WORKS[i]
        job = self.llama.start_completion(prompt, **options)
        timer = threading.Timer(self.random.expovariate(10), job.cancel)
        timer.start()
        try:
            result = job.finish()
        except CancelledError:
            self.progress.cancelled()
        else:
            self.check(i, result)
        finally:
            timer.cancel()
            timer.join()

    def as_task(self, i: int) -> None:
        prompt, options = WORKS[i]
        delay = self.random.expovariate(5)

        async def run() -> Any:
            task = asyncio.ensure_future(self.llama.acreate_completion(prompt, **options))
            await asyncio.wait([task], timeout=delay)
            task.cancel()
            return await task

        try:
            result = asyncio.run(run())
        except asyncio.CancelledError:
            self.progress.cancelled()
        else:
            self.check(i, result)

    def together(self, i: int) -> None:
        _, options = WORKS[i]
        same = [j for j, (_, other) in enumerate(WORKS) if other == options]
        assert i in same
        prompts = [WORKS[j][0] for j in same]
        result = self.llama.create_completion(prompts, **options)
        n = options.get("n", 1)
        for at, j in enumerate(same):
            own = [
                {**choice, "index": choice["index"] - at * n}
                for choice in result["choices"][at * n : (at + 1) * n]
            ]
            self.check(j, {"choices": own})


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module", params=["small", "default"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "small":
        return TinyModel().write(tmp_path_factory.mktemp("stress") / "small.gguf")
    path: Path = request.getfixturevalue("default_model")
    return path


def test_threads_and_cancels(model: Path) -> None:
    sizes = {"n_ctx": 384, "n_threads": 2, "verbose": False}
    with Llama(model, **sizes) as alone:
        expected = []
        for prompt, options in WORKS:
            alone.reset()
            expected.append(alone.create_completion(prompt, **options))
    # Less memory than eight texts need: some are interrupted and evaluated again.
    llama = Llama(model, **sizes)
    engine = llama.engine
    context = engine.context
    n_pages = context.n_free_pages
    progress = Progress()
    workers = [Worker(llama, expected, progress, seed) for seed in range(N_THREADS)]
    threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    size_early, last, since = 0, -1, time.monotonic()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.02)
        done = progress.n_finished + progress.n_cancelled
        if done != last:
            last, since = done, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            faulthandler.dump_traceback()
            pytest.fail(f"nothing has ended for {PATIENCE} s: {progress}")
        if not size_early and progress.n_tokens > N_TOKENS // 4:
            size_early = resident_bytes()
    for error in progress.errors:
        raise error
    assert progress.n_tokens >= N_TOKENS
    assert progress.n_cancelled > 0

    # The engine's thread for listeners ends by itself.
    while any(thread.name == "pyllamacpp-engine" for thread in threading.enumerate()):
        assert time.monotonic() - since < PATIENCE
        time.sleep(0.01)
    growth = resident_bytes() - size_early
    if N_TOKENS >= 10_000 and "small" not in model.name:  # else the allocator's noise is more
        assert growth < MOST_GROWTH, f"{growth / 2**20:.1f} MiB"
    print(f"{progress.n_finished} calls ended, {progress.n_cancelled} cancelled, {growth} bytes")
    assert engine.n_waiting == 0
    assert all(own < 0 for _, own, _ in engine.slots())
    for sequence in range(context.max_sequences):
        context.trim(sequence, 0)
    assert context.n_free_pages == n_pages
    workers.clear()
    gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Stream)]
    llama.close()
