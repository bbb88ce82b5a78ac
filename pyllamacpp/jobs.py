"""A call that runs: to its end, chunk by chunk, or for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import ClassVar, Generic, TypeVar, cast
from weakref import WeakKeyDictionary

from .completion import Completion, CompletionChunk, Run

ResultT = TypeVar("ResultT")
ChunkT = TypeVar("ChunkT")
_T = TypeVar("_T")


class Job(Generic[ResultT, ChunkT]):
    """A run, and how its dicts are given out.

    new_chunks: makes what turns each chunk of a completion into those of this job; None: they are
    the same.
    """

    def __init__(
        self,
        run: Run,
        as_result: Callable[[Completion], ResultT],
        new_chunks: Callable[[], Callable[[CompletionChunk], Iterable[ChunkT]]] | None,
    ) -> None:
        self.run = run
        self._as_result = as_result
        self._new_chunks = new_chunks

    def new_chunks(self) -> Callable[[CompletionChunk], Iterable[ChunkT]]:
        """What turns each chunk of a completion into those of this job."""
        if self._new_chunks is not None:
            return self._new_chunks()
        return lambda chunk: [cast("ChunkT", chunk)]

    def finish(self) -> ResultT:
        """The result, once it is there."""
        return self._as_result(self.run.finish())

    def chunks(self) -> Iterator[ChunkT]:
        """The result in pieces."""
        if self._new_chunks is None:
            return cast("Iterator[ChunkT]", self.run.chunks())
        return self._chunks(self._new_chunks())

    def _chunks(self, as_chunks: Callable[[CompletionChunk], Iterable[ChunkT]]) -> Iterator[ChunkT]:
        for chunk in self.run.chunks():
            yield from as_chunks(chunk)

    def cancel(self) -> None:
        """Ends it; any thread may call it, and what waits for it gets CancelledError."""
        self.run.cancel()


class ChunkIterator(Iterator[ChunkT]):
    """The chunks of a job.

    close() and cancel() end it; so does giving up the last reference to it.
    """

    def __init__(self, job: Job[ResultT, ChunkT]) -> None:
        self._cancel = job.cancel
        self._chunks = job.chunks()

    def __next__(self) -> ChunkT:
        """The next chunk. Raises CancelledError once another thread has cancelled."""
        return next(self._chunks)

    def cancel(self) -> None:
        """Ends the evaluation, also during the prompt. Any thread may call it."""
        self._cancel()

    def close(self) -> None:
        """Ends the evaluation; there are no more chunks."""
        self._cancel()
        self._chunks = iter(())

    def __del__(self) -> None:
        self._cancel()


async def _in_thread(function: Callable[[], _T]) -> _T:
    """Calls a function in a thread of its own: however many wait, all are evaluated together."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(value: _T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value, error = None, None
        try:
            value = function()
        except BaseException as raised:
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, daemon=True).start()
    return await future


async def acall(function: Callable[[], _T]) -> _T:
    """What a function returns; it runs on when the task that waits is cancelled."""
    return await _in_thread(function)


async def acall_while_wanted(function: Callable[[Callable[[], bool]], _T]) -> _T:
    """`acall` of a function that asks what it is given whether the task has stopped waiting."""
    is_over = threading.Event()
    try:
        return await acall(lambda: function(is_over.is_set))
    finally:
        is_over.set()


async def aiterate(items: Iterator[_T]) -> AsyncIterator[_T]:
    """The items of an iterator that takes its time."""
    end = object()
    while True:
        item = await _in_thread(lambda: next(items, end))
        if item is end:
            return
        yield cast("_T", item)


class _Bell:
    """Sets events of a loop from another thread. Waking the loop costs, so one ring is for all."""

    of_loops: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, _Bell]] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._due: deque[asyncio.Event] = deque()
        self._is_ringing = False

    def ring(self, loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
        """Has an event of the loop set soon; any thread may call it."""
        self._due.append(event)
        if not self._is_ringing:
            self._is_ringing = True
            try:
                loop.call_soon_threadsafe(self._set_all)
            except RuntimeError:  # the loop was closed: nobody waits, and events keep a loop alive
                self._due.clear()
                self._is_ringing = False

    def _set_all(self) -> None:
        self._is_ringing = False  # first: what is due from now on rings again
        while self._due:
            self._due.popleft().set()


class _Arrivals:
    """Tells a task that a run, evaluated by the engine's own thread, has something to take."""

    def __init__(self, run: Run) -> None:
        loop, self._event = asyncio.get_running_loop(), asyncio.Event()
        bell = _Bell.of_loops.setdefault(loop, _Bell())
        run.listen(lambda: bell.ring(loop, self._event))

    async def next(self) -> None:
        await self._event.wait()
        self._event.clear()


async def aresult(job: Job[ResultT, ChunkT]) -> ResultT:
    """The result of a job; cancelling the task that waits cancels it."""
    try:
        arrivals = _Arrivals(job.run)
        while not all(text.stream.is_finished for text in job.run.texts):
            await arrivals.next()
        return job.finish()
    finally:
        job.cancel()


async def achunks(job: Job[ResultT, ChunkT]) -> AsyncIterator[ChunkT]:
    """The chunks of a job; leaving the iteration early cancels it."""
    try:
        run, as_chunks = job.run, job.new_chunks()
        arrivals = _Arrivals(run)
        for chunk in run.opening():
            for piece in as_chunks(chunk):
                yield piece
        unread = list(run.texts)
        while unread:
            for text in list(unread):
                while (step := run.poll(text)) is None:
                    await arrivals.next()
                for chunk in run.pieces(text, step):
                    for piece in as_chunks(chunk):
                        yield piece
                if step.finish_reason is not None:
                    unread.remove(text)
    finally:
        job.cancel()
