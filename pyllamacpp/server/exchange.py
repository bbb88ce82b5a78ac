"""One request and its answer, on ASGI: limits, the deadline, a client that goes away."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from ..log import logger
from .failure import ApiError, as_api_error

if TYPE_CHECKING:
    from .service import Service

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Handler = Callable[["Exchange", Any], Awaitable[None]]


class Exchange:
    """What a handler has of a request. is_anthropic: whose error objects it gets."""

    def __init__(self, service: Service, scope: Scope, send: Send, *, is_anthropic: bool) -> None:
        self.service = service
        self.scope = scope
        self.is_anthropic = is_anthropic
        self.status = 0  # none is sent yet
        self.started = perf_counter()
        self._send = send

    async def _head(self, status: int, kind: str, headers: dict[str, str]) -> None:
        self.status = status
        named = {"content-type": kind, "x-content-type-options": "nosniff", **headers}
        raw = [(name.lower().encode(), value.encode()) for name, value in named.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def text(
        self, body: str, kind: str, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Answers with a text of a content type."""
        data = body.encode("utf-8", "replace")
        length = {"content-length": str(len(data))}
        await self._head(status, kind, {**length, **(headers or {})})
        await self._send({"type": "http.response.body", "body": data})

    async def json(
        self, value: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """Answers with JSON."""
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        await self.text(text, "application/json", status, headers)

    async def events(self, events: AsyncIterator[str]) -> None:
        """Answers with server-sent events; the head is sent once the first of them is there.

        So what goes wrong before has its status; later it is an event.
        """
        try:
            async for event in events:
                if not self.status:
                    await self._head(200, "text/event-stream", {"cache-control": "no-cache"})
                data = event.encode("utf-8", "replace")
                message = {"type": "http.response.body", "body": data, "more_body": True}
                await self._send(message)
        finally:
            await events.aclose()  # type: ignore[attr-defined]
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, error: ApiError) -> None:
        """Answers with an error, or ends the answer with one."""
        body = error.anthropic_body() if self.is_anthropic else error.body()
        if not self.status:
            await self.json(body, error.status, error.headers)
            return
        name = "event: error\n" if self.is_anthropic else ""
        data = f"{name}data: {json.dumps(body)}\n\n".encode()
        await self._send({"type": "http.response.body", "body": data})


class Endpoint:
    """An ASGI application: one path and method.

    path: as the metrics name it, with the names of what it holds.
    body: the type of the request's JSON, None where it has none.
    """

    def __init__(
        self,
        service: Service,
        path: str,
        handler: Handler,
        body: type[BaseModel] | None,
        *,
        is_open: bool = False,
        is_anthropic: bool = False,
    ) -> None:
        self._service = service
        self._path = path
        self._handler = handler
        self._body = body
        self._is_open = is_open
        self._is_anthropic = is_anthropic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request; only a client that has gone gets no answer."""
        exchange = Exchange(self._service, scope, send, is_anthropic=self._is_anthropic)
        try:
            if self._service.is_draining:
                raise _draining()
            if not self._is_open:
                self._service.keys.check(scope)
            body = None
            if self._body is not None:
                body = _parsed(self._body, await self._read(scope, receive))
                if self._service.settings.log_requests:
                    logger.info("%s %s", scope["path"], body.model_dump_json(exclude_unset=True))
            await self._run(exchange, body, receive)
        except (ConnectionError, _GoneError):
            exchange.status = exchange.status or 499
        except asyncio.CancelledError:  # the time of a drain is over
            await exchange.fail(_draining())
        except Exception as error:
            failure = as_api_error(error)
            await exchange.fail(failure)
        finally:
            self._service.metrics.answered(self._path, exchange)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        settings = self._service.settings
        too_large = ApiError(413, f"a request may have {settings.max_body} bytes at most")
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > settings.max_body:
            raise too_large

        async def read() -> bytes:
            data = bytearray()
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise _GoneError
                data += message.get("body", b"")
                if len(data) > settings.max_body:
                    raise too_large
                if not message.get("more_body"):
                    return bytes(data)

        try:
            return await asyncio.wait_for(read(), settings.body_timeout)
        except asyncio.TimeoutError:
            raise too_slow() from None

    async def _run(self, exchange: Exchange, body: Any, receive: Receive) -> None:
        task = asyncio.ensure_future(self._handler(exchange, body))
        watcher = asyncio.ensure_future(_gone(receive))
        try:
            done, _ = await asyncio.wait(
                {task, watcher},
                timeout=self._service.settings.deadline,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if task in done:
                task.result()
                return
            if watcher in done:
                raise _GoneError
            raise ApiError(
                504, "the request took longer than it may", kind="server_error", code="deadline"
            )
        finally:
            watcher.cancel()
            task.cancel()
            await asyncio.wait({task})  # its text ends with it


def _draining() -> ApiError:
    return ApiError(
        503,
        "the server is shutting down",
        kind="server_error",
        code="draining",
        retry_after=1,
        closes=True,
    )


def too_slow() -> ApiError:
    """For a request that does not arrive."""
    return ApiError(408, "the request took too long to arrive", closes=True)


class _GoneError(Exception):
    """The client has closed the connection."""


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _parsed(body: type[BaseModel], data: bytes) -> BaseModel:
    try:
        return body.model_validate_json(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in found["loc"])
        where = f"{place}: " if place else ""
        codes = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
        raise ApiError(
            400,
            f"{where}{found['msg']}",
            param=place or None,
            code=codes.get(found["type"], "invalid_value"),
        ) from None


class Keys:
    """Who may ask. Compared in a time that does not depend on the keys."""

    def __init__(self, keys: list[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check(self, scope: Scope) -> None:
        """Raises ApiError 401 for a request without one of the keys, if there are any."""
        if not self._digests:
            return
        headers = dict(scope["headers"])
        given = headers.get(b"authorization", b"")
        key = given[7:] if given[:7].lower() == b"bearer " else headers.get(b"x-api-key", b"")
        digest = hashlib.sha256(key.strip()).digest()
        # All are compared, whichever fits.
        if sum([hmac.compare_digest(digest, own) for own in self._digests]) == 0:
            raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key")


class Gate:
    """Lets so many requests be evaluated, and so many more wait in order."""

    def __init__(self, most_running: int, most_waiting: int) -> None:
        self.n_running = 0
        self.n_waiting = 0
        self._most_running = most_running
        self._most_waiting = most_waiting
        self._places = asyncio.Semaphore(most_running)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place. Raises ApiError 429 when too many wait already."""
        with self._waiting():
            await self._places.acquire()
        self.n_running += 1
        try:
            yield
        finally:
            self.n_running -= 1
            self._places.release()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        if self._places.locked() and self.n_waiting >= self._most_waiting:
            raise ApiError(
                429,
                "too many requests wait already",
                kind="rate_limit_error",
                code="queue_full",
                retry_after=1 + self.n_waiting // self._most_running,
            )
        self.n_waiting += 1
        try:
            yield
        finally:
            self.n_waiting -= 1
