"""The models that requests name: loaded when asked for, given up when others need the memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .. import _core
from ..embedding import LLAMA_POOLING_TYPE_MEAN, pooling_of
from ..errors import OutOfMemoryError, UnsupportedError
from ..llama import Llama
from ..llama_cache import BaseLlamaCache, LlamaDiskCache, LlamaRAMCache
from ..log import logger
from ..models.resolve import resolve_model
from .failure import ApiError
from .settings import ModelSettings

_T = TypeVar("_T")
DEFAULT_CTX = 4096


@dataclass(eq=False)
class Entry:
    """A model that may be loaded. n_users: requests that hold it.

    cache: of its texts; it outlives the model's unloading.
    """

    name: str
    path: Path
    settings: ModelSettings
    cache: BaseLlamaCache | None
    llama: Llama | None = None
    n_users: int = 0
    last_use: int = 0


class ModelPool:
    """Belongs to one event loop; loading and other work of a request goes to a few threads."""

    def __init__(self, models: list[ModelSettings], most_loaded: int) -> None:
        self.entries: dict[str, Entry] = {}
        self._aliases: dict[str, Entry] = {}
        self._most = most_loaded
        self._n_uses = 0
        self._lock = asyncio.Lock()
        self._threads = ThreadPoolExecutor(4, "pyllamacpp-server")
        for settings in models:
            path = resolve_model(settings.model)
            entry = Entry(settings.name or path.stem, path, settings, _cache(settings))
            if entry.name in self.entries:
                raise UnsupportedError(f"two models of the server have the name {entry.name!r}")
            self.entries[entry.name] = entry
            for alias in {settings.model, path.stem} - {None, *self._aliases}:
                self._aliases[str(alias)] = entry

    def submit(self, function: Callable[[], _T]) -> Future[_T]:
        """Runs a function that takes its time."""
        return self._threads.submit(function)

    async def in_thread(
        self, function: Callable[[], _T], on_cancel: Callable[[], None] = lambda: None
    ) -> _T:
        """What such a function returns. on_cancel: asks it to end early.

        A caller that is cancelled waits for the function, so that no model is closed under it.
        """
        work = asyncio.wrap_future(self.submit(function))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            on_cancel()
            await asyncio.gather(work, return_exceptions=True)
            raise

    def find(self, name: str | None) -> Entry:
        """The entry of a name; None: the first. Raises ApiError model_not_found."""
        if name is None:
            return next(iter(self.entries.values()))
        entry = self.entries.get(name) or self._aliases.get(name)
        if entry is None:
            known = ", ".join(self.entries)
            raise ApiError(
                404,
                f"The model {name!r:.80} does not exist; there are: {known}",
                param="model",
                code="model_not_found",
            )
        return entry

    @asynccontextmanager
    async def use(self, name: str | None) -> AsyncIterator[tuple[Llama, str]]:
        """A model, loaded, and its name; it stays loaded meanwhile."""
        entry = self.find(name)
        entry.n_users += 1
        self._n_uses += 1
        entry.last_use = self._n_uses
        try:
            if entry.llama is None:
                # A client that leaves does not stop a loading that others may wait for.
                await asyncio.shield(asyncio.ensure_future(self._load(entry)))
            assert entry.llama is not None
            yield entry.llama, entry.name
        finally:
            entry.n_users -= 1

    async def _load(self, entry: Entry) -> None:
        async with self._lock:
            if entry.llama is not None:
                return
            while len(self.loaded) >= self._most or not await self.in_thread(lambda: _fits(entry)):
                if not self._evict():
                    break
            if len(self.loaded) >= self._most:
                raise OutOfMemoryError("all models that may be loaded at a time are in use")
            entry.llama = await self.in_thread(lambda: _loaded(entry))
            logger.info("loaded %s", entry.name)

    @property
    def loaded(self) -> list[Llama]:
        """The models in memory."""
        return [entry.llama for entry in self.entries.values() if entry.llama is not None]

    def _evict(self) -> bool:
        """Closes the model without users that was used longest ago; False if there is none."""
        idle = [e for e in self.entries.values() if e.llama is not None and e.n_users == 0]
        if not idle:
            return False
        oldest = min(idle, key=lambda entry: entry.last_use)
        assert oldest.llama is not None
        oldest.llama.close()
        oldest.llama = None
        logger.info("closed %s", oldest.name)
        return True

    def close(self) -> None:
        """Ends what runs and frees all models."""
        for entry in self.entries.values():
            if entry.llama is not None:
                entry.llama.close()
                entry.llama = None
        self._threads.shutdown(wait=False, cancel_futures=True)


def _cache(settings: ModelSettings) -> BaseLlamaCache | None:
    if settings.cache == "off":
        return None
    if settings.cache_dir is not None:
        return LlamaDiskCache(settings.cache_dir, settings.cache_size)
    return LlamaRAMCache(settings.cache_size)


def _plan(entry: Entry, ctx: int, parallel: int) -> _core.MemoryPlan:
    s = entry.settings
    return _core.plan_memory(
        str(entry.path),
        n_ctx=ctx,
        n_batch=s.batch,
        n_threads=s.threads or 0,
        type_k=s.type_k,
        type_v=s.type_v,
        n_parallel=parallel,
        n_gpu_layers=-1 if s.n_gpu_layers == "auto" else s.n_gpu_layers,
    )


def _fits(entry: Entry) -> bool:
    plan = _plan(entry, _context(entry), 1)
    return plan.fits and plan.fits_in_memory


def _context(entry: Entry) -> int:
    own = _core.plan_memory(str(entry.path)).n_ctx
    return entry.settings.ctx or min(own, DEFAULT_CTX)


def _loaded(entry: Entry) -> Llama:
    s, ctx = entry.settings, _context(entry)
    parallel = s.parallel
    while parallel > 1 and not _plan(entry, ctx, parallel).fits:
        parallel -= 1
    plan = _plan(entry, ctx, parallel)
    if s.ctx is None and not plan.fits and 0 < plan.most_ctx < ctx:
        ctx = plan.most_ctx
    llama = Llama(
        str(entry.path),
        n_ctx=ctx,
        n_batch=min(s.batch, ctx),
        n_threads=s.threads,
        n_threads_batch=s.threads,
        type_k=s.type_k,
        type_v=s.type_v,
        n_parallel=parallel,
        n_gpu_layers=s.n_gpu_layers,
        chat_format=s.chat_format,
        embedding=True,
        verbose=False,
    )
    llama.set_cache(entry.cache)
    embedder = llama.embedder
    embedder.pooling_type = pooling_of(llama.model, -1) or LLAMA_POOLING_TYPE_MEAN
    return llama
