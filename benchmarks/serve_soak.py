"""Many requests of all kinds to `pyllamacpp serve`, of which most are left early, and what stays.

After each tenth of them the server is left alone until it is idle; then its anonymous memory,
threads, open files, busy sequences and free pages of the cache are noted. No request may run or
wait then, no sequence be busy, and the second half needs no more threads and files than the first.
Memory is to be level in the second half: allocators keep what a peak needed, so that the first
requests make it grow. At the end texts are sent that need all pages: each page must then be free
or hold a part of one of them.
"""

from __future__ import annotations

import math
import random
import re
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from serve_client import LOCAL, ask, free_port, own_command, serving, stream

CONTEXT, PARALLEL, N_CLIENTS, N_POINTS = 512, 4, 16, 10
MOST_GROWTH = 4 << 20  # bytes, in the second half
WORDS = ("the", "sea", "was", "calm", "and", "old", "men", "told", "stories", "of", "ships", "that")
EXPECTED = ("streamed", "left", "cut off", "whole", "refused, 400")
TOOL = {"type": "function", "function": {"name": "sail", "parameters": {"type": "object"}}}


def one(port: int, model: str, dice: random.Random) -> str:
    """A request of some kind; what became of it."""
    text = " ".join(dice.choices(WORDS, k=dice.randrange(1, 300)))
    said = {"messages": [{"role": "user", "content": text}]}
    sampling = {"max_tokens": dice.randrange(1, 48), "seed": dice.randrange(1 << 30)}
    path, body = dice.choice(
        [
            ("/v1/completions", {"prompt": text, **sampling}),
            ("/v1/completions", {"prompt": text, "n": 3, "logprobs": 2, **sampling}),
            ("/v1/chat/completions", {**said, **sampling}),
            ("/v1/chat/completions", {**said, "tools": [TOOL], **sampling}),
            (
                "/v1/chat/completions",
                {**said, "response_format": {"type": "json_object"}, **sampling},
            ),
            ("/v1/messages", {**said, "model": model, "max_tokens": 8}),
            ("/v1/embeddings", {"input": [text, text[:40]]}),
            ("/v1/completions", {"prompt": text, "temperature": -1}),
        ]
    )
    match dice.randrange(4):
        case 0 if path != "/v1/embeddings":
            stream(port, path, body)
            return "streamed"
        case 1 if path != "/v1/embeddings":
            stream(port, path, body, leave_after=dice.choice((0, 0, 1, 2, dice.randrange(3, 30))))
            return "left"
        case 2:
            link = HTTPConnection(LOCAL, port, timeout=600)
            link.putrequest("POST", path)
            link.putheader("Content-Length", "1000")
            link.endheaders(b'{"prompt": ')
            time.sleep(dice.random() / 100)
            link.close()
            return "cut off"
    ask(port, path, body)
    return "whole"


def gauges(port: int) -> dict[str, float]:
    """The server's own figures."""
    with urllib.request.urlopen(f"http://{LOCAL}:{port}/metrics", timeout=600) as answer:
        found = re.findall(r"^pyllamacpp_(\w+) (\S+)$", answer.read().decode(), re.M)
    return {name: float(value) for name, value in found}


def state(port: int, pid: int) -> dict[str, Any]:
    """What is left of requests once nothing runs, or after a minute."""
    for _ in range(600):
        now = gauges(port)
        if not (now["requests_running"] or now["requests_waiting"] or now["sequences_busy"]):
            break
        time.sleep(0.1)
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(re.findall(r"^(\w+):\s+(\d+)", status, re.M))
    return {
        "anonymous_bytes": int(fields["RssAnon"]) * 1024,
        "threads": int(fields["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "running": int(now["requests_running"] + now["requests_waiting"]),
        "sequences_busy": int(now["sequences_busy"]),
        "pages_free": int(now["cache_pages_free"]),
    }


def n_lost_pages(port: int, n_pages: int) -> int:
    """How many belong to no text, once all that were cached had to go for new ones."""

    def fill(i: int) -> None:
        ask(port, "/v1/completions", {"prompt": [1000 + i] * (CONTEXT - 1), "max_tokens": 1})

    with ThreadPoolExecutor(PARALLEL) as clients:
        list(clients.map(fill, range(PARALLEL)))
    page_tokens = PARALLEL * CONTEXT // n_pages
    held = sum(math.ceil(slot["n_cached"] / page_tokens) for slot in ask(port, "/slots"))
    return n_pages - held - int(gauges(port)["cache_pages_free"])


def soak(model: Path, n_requests: int, threads: int) -> dict[str, Any]:
    """Prints a line for each tenth; "is_fine" is False when something is left."""
    port, outcomes = free_port(), Counter[str]()
    lock = threading.Lock()

    def task(i: int) -> None:
        try:
            outcome = one(port, model.stem, random.Random(i))
        except HTTPError as error:
            outcome = f"refused, {error.code}"
        except (OSError, HTTPException) as error:
            outcome = f"{type(error).__name__} {error}"[:60]
        with lock:
            outcomes[outcome] += 1

    command = own_command(model, port, CONTEXT, PARALLEL, threads)
    with tempfile.TemporaryFile() as log, serving(command, port, log) as process:
        states = [state(port, process.pid)]
        for point in range(N_POINTS):
            part = range(point * n_requests // N_POINTS, (point + 1) * n_requests // N_POINTS)
            with ThreadPoolExecutor(N_CLIENTS) as clients:
                list(clients.map(task, part))
            states.append(state(port, process.pid))
            print(f"{part.stop} requests: {states[-1]}", flush=True)
        n_lost = n_lost_pages(port, states[0]["pages_free"])
        log.seek(0)
        logged = log.read().decode(errors="replace")
    growth = states[-1]["anonymous_bytes"] - states[N_POINTS // 2]["anonymous_bytes"]
    halves = states[1 : N_POINTS // 2 + 1], states[N_POINTS // 2 + 1 :]
    most = [{key: max(s[key] for s in half) for key in ("threads", "files")} for half in halves]
    more = [key for key in most[0] if most[1][key] > most[0][key]]
    left = [key for key in ("running", "sequences_busy") if any(state[key] for state in states)]
    # Requests fail as they deserve: 400, or cut off. Anything else is the server's.
    failed = {key for key in outcomes if key not in EXPECTED}
    is_fine = not more and not left and not failed and n_lost == 0 and growth <= MOST_GROWTH
    if failed:
        print(logged[-8000:])
    print(
        f"{dict(outcomes)}; memory in the second half {growth / 2**20:+.1f} MiB; "
        f"{n_lost} pages lost; left: {', '.join(more + left) or 'nothing'}"
    )
    return {
        "requests": n_requests,
        "outcomes": dict(outcomes),
        "states": states,
        "growth_bytes": growth,
        "lost_pages": n_lost,
        "is_fine": is_fine,
    }
