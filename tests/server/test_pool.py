"""Which models stay loaded: the memory plan decides."""

import asyncio
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from pyllamacpp.errors import OutOfMemoryError
from pyllamacpp.server import pool as pool_module
from pyllamacpp.server.pool import ModelPool
from pyllamacpp.server.settings import ModelSettings

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
from tiny_model import TinyModel


@pytest.fixture
def pool(tmp_path, monkeypatch) -> ModelPool:
    """Of three models on a machine that has, by its plan, the memory for two of them."""
    settings = []
    for name in "abc":
        path = TinyModel().write(tmp_path / f"{name}.gguf")
        settings.append(ModelSettings(model=str(path), ctx=64, parallel=1))
    found = ModelPool(settings, most_loaded=3)
    real = pool_module._plan

    def plan(entry, ctx, parallel):
        has_room = len(loaded(found)) < 2
        own = real(entry, ctx, parallel)
        return SimpleNamespace(fits=own.fits, fits_in_memory=has_room, most_ctx=own.most_ctx)

    monkeypatch.setattr(pool_module, "_plan", plan)
    return found


def test_a_cache_is_the_models(tmp_path) -> None:
    path = TinyModel().write(tmp_path / "a.gguf")
    settings = ModelSettings(model=str(path), ctx=64, parallel=1, cache="ram", cache_size=1 << 20)
    pool = ModelPool([settings], most_loaded=1)

    async def run() -> list[object]:
        found = []
        for _ in range(2):
            async with pool.use(None) as (llama, _):
                found.append(llama.cache)
                llama("Hello", max_tokens=3)
            pool.entries["a"].llama = None
        return found

    first, second = asyncio.run(run())
    assert first is second
    assert 0 < first.cache_size <= first.capacity_bytes == 1 << 20
    pool.close()


def loaded(pool: ModelPool) -> str:
    return "".join(name for name, entry in pool.entries.items() if entry.llama is not None)


def test_the_one_used_longest_ago_makes_room(pool: ModelPool) -> None:
    async def use(name: str) -> str:
        async with pool.use(name) as (_, found):
            assert found == name
        return loaded(pool)

    async def run() -> list[str]:
        return [await use(name) for name in "abacba"]

    assert asyncio.run(run()) == ["a", "ab", "ab", "ac", "bc", "ab"]
    pool.close()
    assert loaded(pool) == ""


def test_a_model_in_use_is_not_closed(pool: ModelPool) -> None:
    async def run() -> None:
        async with pool.use("a") as (first, _), pool.use("b") as (second, _):
            # Neither can go: the plan is overruled, since weights can also be read from the file.
            async with pool.use("c"):
                assert loaded(pool) == "abc"
            assert first.tokenize(b"x")
            assert second.tokenize(b"x")
        pool._most = 2
        assert pool._evict()
        assert loaded(pool) == "bc"
        async with pool.use("b"), pool.use("c"):
            with pytest.raises(OutOfMemoryError, match="all models that may be loaded"):
                async with pool.use("a"):
                    pass

    asyncio.run(run())
    pool.close()


def test_a_cancelled_caller_waits_for_its_thread(pool: ModelPool) -> None:
    """So that no model is closed under a function that goes on."""
    ended = []

    async def run() -> None:
        begun, asked = threading.Event(), threading.Event()

        def work() -> None:
            begun.set()
            assert asked.wait(60)
            ended.append("work")

        task = asyncio.ensure_future(pool.in_thread(work, asked.set))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ended.append("task")

    asyncio.run(run())
    pool.close()
    assert ended == ["work", "task"]
