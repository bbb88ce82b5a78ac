"""Runs the application in uvicorn."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import FileError
from .app import create_app
from .exchange import too_slow
from .failure import ApiError
from .settings import Settings

_HEAD_TIMEOUT = 15.0  # seconds for the head of a request, at most
_LINGER = 2.0  # seconds for which a drain leaves idle connections to be told of it


class _Protocol(H11Protocol):
    """Ends connections whose next request never comes, or a byte at a time.

    head_timeout: seconds from the connection's start, or the last answer's end, to a whole head.
    """

    head_timeout = _HEAD_TIMEOUT
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Starts the clock of the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Stops it once there is a whole head."""
        super().data_received(data)
        self._watch()

    def eof_received(self) -> None:
        """Refuses what its client ended too early; one that waits for an answer has gone."""
        is_in_body = self._is_answering and self.cycle.more_body
        is_in_head = not self._is_answering and bool(self.conn.trailing_data[0])
        if is_in_head or (is_in_body and not self.cycle.response_started):
            self._refuse(ApiError(400, "the request ended before it was whole", closes=True))

    def on_response_complete(self) -> None:
        """Starts the clock of the next request; a body that goes on is none."""
        super().on_response_complete()
        self._watch()

    def shutdown(self) -> None:
        """Begins the drain: a request on a connection that was kept is still told of it."""
        if self._is_answering:
            super().shutdown()
        else:
            self.loop.call_later(_LINGER, self._close_drained)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        if self._is_answering or self.transport.is_closing():
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = self.loop.call_later(self.head_timeout, self._close_late)

    def _close_late(self) -> None:
        if self._is_answering or self.transport.is_closing():
            return
        is_in_body = self.cycle is not None and self.cycle.more_body  # of an answered request
        if not is_in_body and self.conn.trailing_data[0]:
            self._refuse(too_slow())
        self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        body = json.dumps(error.body()).encode()
        status = f"{error.status} {HTTPStatus(error.status).phrase}"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _close_drained(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()


class _Server(uvicorn.Server):
    """Ends by itself, not by the signal, once SIGTERM's drain is over.

    on_drain: called when that begins.
    """

    signal_number: int | None = None

    def __init__(self, config: uvicorn.Config, on_drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_drain = on_drain

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C let requests end; a second Ctrl-C does not."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        self.signal_number = number
        self._on_drain()
        self.handle_exit(number, frame)


def serve(settings: Settings, announce: Any) -> None:
    """Serves until a signal. announce: told the address once requests are answered.

    Raises FileError for an address or TLS files that cannot be used, KeyboardInterrupt after
    Ctrl-C, and what loading the model raises.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        sentence = f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        raise FileError(sentence) from error
    with listener:
        asyncio.run(_serve(settings, listener, announce))


async def _serve(settings: Settings, listener: socket.socket, announce: Any) -> None:
    app = create_app(settings)

    class Protocol(_Protocol):
        head_timeout = min(_HEAD_TIMEOUT, settings.body_timeout)

    def drain() -> None:
        app.state.service.is_draining = True

    async with app.router.lifespan_context(app):
        config = uvicorn.Config(
            app,
            http=Protocol,
            lifespan="off",
            log_config=None,
            access_log=False,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
            timeout_graceful_shutdown=max(1, round(settings.drain)),
            server_header=False,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            raise FileError(f"cannot use the TLS files: {error}") from error
        server = _Server(config, drain)
        scheme = "http" if settings.tls_cert is None else "https"
        host, port = listener.getsockname()[:2]
        listener.listen(2048)
        announce(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")
        await server.serve(sockets=[listener])
        # What outlasts the drain is cancelled, and has its text to end before the models go.
        await asyncio.gather(*server.server_state.tasks, return_exceptions=True)
    if server.signal_number == signal.SIGINT:
        raise KeyboardInterrupt
