"""Load on `pyllamacpp serve`: concurrent streaming clients, requests that are cancelled, kill -9.

python benchmarks/serve_load.py MODEL.gguf [--peer-python VENV/bin/python] [--requests 2000]

Prints a line per number of clients (aggregate tokens/s, time to the first token) and, unless
--requests is 0, whether the server is as before after requests of which half are left early, and
after it was killed and started again. Exits with 1 if it is not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

CONTEXT = 512  # tokens of one text


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server, once it answers."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} ended with {process.returncode}")
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models"):
                break
            time.sleep(0.1)
        else:
            raise SystemExit(f"{command[0]} does not answer")
        yield process
    finally:
        process.kill()
        process.wait()


def own_command(model: str, port: int) -> list[str]:
    """Of `pyllamacpp serve`."""
    program = str(Path(sysconfig.get_path("scripts")) / "pyllamacpp")
    return [program, "serve", "-m", model, "--port", str(port), "-c", str(CONTEXT)]


def ask(port: int, name: int, n_tokens: int, leave_after: int | None = None) -> tuple[float, int]:
    """Streams a completion: seconds to the first token (0: none came), and how many came."""
    body = {"prompt": f"Story {name}: once upon a time", "max_tokens": n_tokens, "stream": True}
    link = HTTPConnection("127.0.0.1", port, timeout=600)
    began, first, n = time.perf_counter(), 0.0, 0
    try:
        link.request(
            "POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"}
        )
        for line in link.getresponse():
            if line.startswith(b"data: {") and b'"finish_reason":null' in line.replace(b": ", b":"):
                n += 1
                first = first or time.perf_counter() - began
            if leave_after is not None and n >= leave_after:
                break
    finally:
        link.close()
    return first, n


def measure(what: str, port: int, n_clients: int, n_tokens: int) -> None:
    """Each client asks twice; prints tokens per second of all and times to the first token."""
    with ThreadPoolExecutor(n_clients) as clients:
        began = time.perf_counter()
        found = list(clients.map(lambda i: ask(port, i, n_tokens), range(2 * n_clients)))
        seconds = time.perf_counter() - began
    firsts = sorted(first for first, _ in found)
    p50, p95 = (firsts[min(int(len(firsts) * p), len(firsts) - 1)] for p in (0.5, 0.95))
    rate = sum(n for _, n in found) / seconds
    print(
        f"{what} {n_clients:3} clients {rate:8.1f} tokens/s, "
        f"first token p50 {p50:.3f} s p95 {p95:.3f} s"
    )


def resident(pid: int) -> int:
    """Bytes in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def is_idle(port: int) -> bool:
    """Whether the server answers and no request is left in it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/slots", timeout=60) as answer:
        return not any(slot["is_processing"] for slot in json.load(answer))


def stress(port: int, pid: int, n_requests: int) -> bool:
    """Requests of which half are left early; True if nothing of them stays."""
    dice = random.Random(1)
    plan = [dice.choice((None, 0, 1, dice.randrange(16))) for _ in range(n_requests)]
    failed = threading.Event()

    def one(i: int) -> None:
        try:
            ask(port, i, 16, plan[i])
        except (OSError, HTTPException):
            failed.set()

    sizes = []
    for part in (range(n_requests // 2), range(n_requests // 2, n_requests)):
        with ThreadPoolExecutor(16) as clients:
            list(clients.map(one, part))
        for _ in range(300):
            if is_idle(port):
                break
            time.sleep(0.1)
        sizes.append(resident(pid))
    growth = sizes[1] - sizes[0]
    fine = is_idle(port) and not failed.is_set() and growth < 32 << 20
    print(
        f"stress: {n_requests} requests, "
        f"memory {growth / 2**20:+.1f} MiB in the second half: {fine}"
    )
    return fine


def main() -> int:
    """Runs it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--requests", type=int, default=2000, help="of the stress; 0: none")
    parser.add_argument("--peer-python", help="a Python that has llama-cpp-python's server")
    options = parser.parse_args()
    port = free_port()
    fine = True
    with serving(own_command(options.model, port), port) as process:
        for n_clients in options.clients:
            measure("pyllamacpp", port, n_clients, options.tokens)
        if options.requests:
            fine = stress(port, process.pid, options.requests)
            with ThreadPoolExecutor(1) as clients:
                last = clients.submit(ask, port, 0, CONTEXT - 32)
                time.sleep(0.5)
                process.send_signal(signal.SIGKILL)
                process.wait()
                with suppress(OSError, HTTPException):
                    last.result()
    if options.requests:
        with serving(own_command(options.model, port), port):
            again = ask(port, 0, 8)[1] > 0
        print(f"killed and started again, it answers: {again}")
        fine = fine and again
    if options.peer_python:
        port = free_port()
        peer = [options.peer_python, "-m", "llama_cpp.server", "--model", options.model]
        with serving([*peer, "--port", str(port), "--n_ctx", str(CONTEXT)], port):
            for n_clients in options.clients:
                measure("llama-cpp-python", port, n_clients, options.tokens)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
