"""Runs the application in uvicorn."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import FileError
from .app import create_app
from .settings import Settings

_HEAD_TIMEOUT = 15.0  # seconds for the head of a request


class _Protocol(H11Protocol):
    """Closes connections whose request never comes, or a byte at a time."""

    def connection_made(self, transport: Any) -> None:
        """Starts the clock of the first request."""
        super().connection_made(transport)
        self.loop.call_later(_HEAD_TIMEOUT, self._close_unless_asked)

    def _close_unless_asked(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """Ends by itself, not by the signal, once SIGTERM's drain is over."""

    signal_number: int | None = None

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
    async with app.router.lifespan_context(app):
        config = uvicorn.Config(
            app,
            http=_Protocol,
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
        server = _Server(config)
        scheme = "http" if settings.tls_cert is None else "https"
        host, port = listener.getsockname()[:2]
        listener.listen(2048)
        announce(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")
        await server.serve(sockets=[listener])
    if server.signal_number == signal.SIGINT:
        raise KeyboardInterrupt
