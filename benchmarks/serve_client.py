"""What serve_load.py and serve_soak.py share: servers in processes, and streams taken apart."""

from __future__ import annotations

import json
import socket
import subprocess
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError

LOCAL = "127.0.0.1"
OWN = "pyllamacpp"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(
    command: list[str], port: int, log: int | IO[bytes] = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """A server, once its models are listed; log: where its standard error goes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
    try:
        for _ in range(3000):
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
            with suppress(OSError), urllib.request.urlopen(f"http://{LOCAL}:{port}/v1/models"):
                break
            time.sleep(0.1)
        else:
            raise SystemExit(f"{' '.join(command)}: does not answer")
        yield process
    finally:
        process.kill()
        process.wait()


def own_command(model: Path, port: int, n_ctx: int, parallel: int, threads: int) -> list[str]:
    """Of `pyllamacpp serve`."""
    program = str(Path(sysconfig.get_path("scripts")) / OWN)
    command = [program, "serve", "-m", str(model), "--port", str(port), "-c", str(n_ctx)]
    return [*command, "--parallel", str(parallel), "-t", str(threads)]


def ask(port: int, path: str, body: dict[str, Any] | None = None) -> Any:
    """An answer that comes whole, of JSON."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{LOCAL}:{port}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)


@dataclass
class Reply:
    """A streamed completion. first: seconds to its first piece; gaps: between the pieces.

    n_tokens: as the server states them, -1 if it does not.
    """

    text: str = ""
    first: float = 0.0
    gaps: list[float] = field(default_factory=list)
    n_tokens: int = -1


def stream(port: int, path: str, body: dict[str, Any], leave_after: int | None = None) -> Reply:
    """Asks for a stream. leave_after: goes away after so many events; 0: before the answer's head.

    Raises OSError (HTTPError for a status that is not 200) and HTTPException.
    """
    events: list[tuple[float, bytes]] = []
    link = HTTPConnection(LOCAL, port, timeout=600)
    data = json.dumps({**body, "stream": True})
    began = time.perf_counter()
    try:
        link.request(
            "POST", path, data, {"Content-Type": "application/json", "Connection": "close"}
        )
        if leave_after == 0:
            return Reply()
        answer = link.getresponse()
        if answer.status != 200:
            raise HTTPError(path, answer.status, answer.reason, answer.headers, None)
        # Chunks are whole events: lines of sizes come between. Parsed later, as this costs time.
        for line in answer.fp:
            if line.startswith(b"data: "):
                events.append((time.perf_counter(), line[6:]))
                if len(events) == leave_after or line.startswith(b"data: [DONE]"):
                    break
    finally:
        link.close()
    return _taken_apart(began, events)


def _taken_apart(began: float, events: list[tuple[float, bytes]]) -> Reply:
    reply = Reply()
    last = 0.0
    for now, line in events:
        if line.startswith(b"[DONE]"):
            break
        chunk = json.loads(line)
        if "error" in chunk:
            raise HTTPException(str(chunk["error"]))
        if chunk.get("usage"):
            reply.n_tokens = chunk["usage"].get("completion_tokens", -1)
        choice = (chunk.get("choices") or [{}])[0]
        piece = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        if not piece:
            continue
        reply.text += piece
        if last:
            reply.gaps.append(now - last)
        else:
            reply.first = now - began
        last = now
    return reply
