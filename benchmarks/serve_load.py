"""Load on `pyllamacpp serve`, llama-cpp-python's server and llama-server, in turn; and a soak.

    python benchmarks/serve_load.py [MODEL.gguf] [--clients 1 4 16 64] [-r 3]
    python benchmarks/serve_load.py [MODEL.gguf] --soak 2000

Each of so many clients asks twice for a greedy completion of --tokens tokens and streams it. All
servers run, one is asked at a time. Peers are built in the cache folder where they are missing:
half an hour. Writes a record and a plot (pip install '.[bench]'); see README.md beside this file.
The soak asks our server alone, see serve_soak.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from compare import HERE, PEER, PEER_VERSION, default_model, describe_machine, peer_python
from serve_client import LOCAL, OWN, Reply, ask, free_port, own_command, serving, stream
from serve_soak import soak

CONTEXT = 512  # tokens of one text
SLOTS = 16  # texts whose whole contexts have room at a time; llama-server runs no more
SERVER = "llama-server"
PEER_NEEDS = (
    "fastapi",
    "pydantic-settings",
    "pyyaml",
    "sse-starlette",
    "starlette-context",
    "uvicorn",
)
CACHE = Path(os.environ.get("PYLLAMACPP_CACHE", "~/.cache/pyllamacpp")).expanduser()
N_ASKED = 2  # by each client, one after another


def peer_with_server(venv: Path) -> str:
    """The Python of compare.py's peer, with what its server needs."""
    python = peer_python(venv)
    check = [python, "-c", "import llama_cpp.server.app"]
    if subprocess.run(check, check=False, stderr=subprocess.DEVNULL).returncode:
        # By name: a package that was built does not always state its extras.
        subprocess.run([python, "-m", "pip", "install", *PEER_NEEDS], check=True)
    return python


def llama_server(folder: Path) -> str:
    """The llama-server of the sources in the peer's source package, built where there is none."""
    program = folder / "bin" / SERVER
    if program.exists():
        return str(program)
    print(f"Building {SERVER} in {folder}: half an hour.", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    fetch = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", PEER]
    subprocess.run([*fetch, "-d", str(folder), f"{PEER}=={PEER_VERSION}"], check=True)
    (package,) = folder.glob("*.tar.gz")
    with tarfile.open(package) as archive:
        archive.extractall(folder, filter="data")
    (sources,) = folder.glob("*/vendor/llama.cpp")
    configure = ["cmake", "-S", str(sources), "-B", str(folder / "build"), "-G", "Ninja"]
    options = {"CMAKE_BUILD_TYPE": "Release", "BUILD_SHARED_LIBS": "OFF", "LLAMA_OPENSSL": "OFF"}
    options |= {"LLAMA_BUILD_TESTS": "OFF", "LLAMA_BUILD_EXAMPLES": "OFF"}
    options["CMAKE_RUNTIME_OUTPUT_DIRECTORY"] = str(folder / "bin")
    subprocess.run([*configure, *(f"-D{k}={v}" for k, v in options.items())], check=True)
    subprocess.run(["cmake", "--build", str(folder / "build"), "--target", SERVER], check=True)
    return str(program)


def commands(args: argparse.Namespace) -> dict[str, Callable[[int], list[str]]]:
    """Of each engine's server, for a port."""
    model, threads = str(args.model), str(args.threads)

    def peer(port: int) -> list[str]:
        command = [peer_with_server(args.peer_venv), "-m", "llama_cpp.server", "--model", model]
        command += ["--port", str(port), "--n_ctx", str(CONTEXT), "--n_threads", threads]
        # It evaluates one request at a time; by default the next one ends the one before.
        return [*command, "--n_threads_batch", threads, "--interrupt_requests", "false"]

    def server(port: int) -> list[str]:
        program = args.llama_server or llama_server(CACHE / f"llama.cpp-{PEER_VERSION}")
        command = [str(program), "-m", model, "--host", LOCAL, "--port", str(port), "-t", threads]
        return [*command, "-tb", threads, "-np", str(SLOTS), "-c", str(SLOTS * CONTEXT)]

    return {
        OWN: lambda port: own_command(args.model, port, CONTEXT, SLOTS, args.threads),
        PEER: peer,
        SERVER: server,
    }


def n_tokens(port: int, reply: Reply) -> int:
    """Of an answer, counted by the server."""
    if reply.n_tokens >= 0:
        return reply.n_tokens
    count: int = ask(port, "/extras/tokenize/count", {"input": reply.text})["count"]
    return count


def percentile(values: list[float], p: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * p), len(ordered) - 1)] if ordered else 0.0


def measure(port: int, n_clients: int, wanted: int, first_name: int) -> dict[str, Any]:
    """Tokens per second of all clients; seconds to the first piece, and between pieces."""

    def one(i: int) -> Reply:
        # No two begin alike: caches of prefixes help nobody.
        prompt = f"{first_name + i} times upon a time, in a small village by the sea, there"
        body = {"prompt": prompt, "max_tokens": wanted, "temperature": 0}
        return stream(port, "/v1/completions", {**body, "stream_options": {"include_usage": True}})

    with ThreadPoolExecutor(n_clients) as clients:
        began = time.perf_counter()
        replies = list(clients.map(one, range(N_ASKED * n_clients)))
        seconds = time.perf_counter() - began
    found: dict[str, Any] = {"tokens": sum(n_tokens(port, reply) for reply in replies)}
    found["tokens_per_s"] = found["tokens"] / seconds
    gaps = [gap for reply in replies for gap in reply.gaps]
    for name, values in (("first", [reply.first for reply in replies]), ("next", gaps)):
        for p in (50, 99):
            found[f"{name}_p{p}_s"] = percentile(values, p / 100)
    return found


def load(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each engine and number of clients: medians, and the runs."""
    rows = []
    with ExitStack() as servers:
        ports = {}
        for engine, command in commands(args).items():
            if engine in args.engines:
                ports[engine] = free_port()
                servers.enter_context(serving(command(ports[engine]), ports[engine]))
        for i, port in enumerate(ports.values()):
            measure(port, 1, args.tokens, 900 + i)
        name = 1000
        for n_clients in args.clients:
            runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ports}
            for _ in range(args.repetitions):
                for engine, port in ports.items():
                    runs[engine].append(measure(port, n_clients, args.tokens, name))
                    time.sleep(1)  # for threads that spin
                name += N_ASKED * n_clients
            for engine, found in runs.items():
                median = {key: statistics.median(run[key] for run in found) for key in found[0]}
                rows.append(
                    {"engine": engine, "clients": n_clients, "median": median, "runs": found}
                )
                print(as_row(rows[-1]), flush=True)
    return rows


HEADER = """\
| engine | clients | tokens/s | first token p50 | p99 | between tokens p50 | p99 |
|---|---|---|---|---|---|---|"""


def as_row(row: dict[str, Any]) -> str:
    median = row["median"]
    times = [median[f"{name}_{p}_s"] for name in ("first", "next") for p in ("p50", "p99")]
    cells = [row["engine"], str(row["clients"]), f"{median['tokens_per_s']:.1f}"]
    return f"| {' | '.join([*cells, *(f'{1000 * seconds:.1f} ms' for seconds in times)])} |"


def print_ratios(rows: list[dict[str, Any]]) -> None:
    rate = {(row["engine"], row["clients"]): row["median"]["tokens_per_s"] for row in rows}
    for (engine, clients), value in rate.items():
        if engine == OWN and clients > 1 and (OWN, 1) in rate:
            print(f"{clients} clients over one: {value / rate[OWN, 1]:.2f}")
        elif engine != OWN and (OWN, clients) in rate:
            print(f"{OWN} over {engine}, {clients} clients: {rate[OWN, clients] / value:.2f}")


def plot(record: dict[str, Any], path: Path) -> None:
    """Tokens per second and times against the number of clients, a line for each engine."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    colours = {OWN: "#0b6e4f", PEER: "#c8553d", SERVER: "#8a7aa8"}
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2))
    panels = (
        ("tokens per second, all clients", {"tokens_per_s": "-"}),
        ("seconds to the first token", {"first_p50_s": "-", "first_p99_s": ":"}),
        ("seconds between tokens", {"next_p50_s": "-", "next_p99_s": ":"}),
    )
    for axis, (title, lines) in zip(axes, panels, strict=True):
        for engine in dict.fromkeys(row["engine"] for row in record["rows"]):
            rows = [row for row in record["rows"] if row["engine"] == engine]
            for key, style in lines.items():
                label = engine + (" (p50)" if "p50" in key else " (p99)" if "p99" in key else "")
                values = [row["median"][key] for row in rows]
                counts = [row["clients"] for row in rows]
                axis.plot(counts, values, style, color=colours[engine], marker=".", label=label)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_formatter(StrMethodFormatter("{x:g}"))
            side.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_xlabel("clients")
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    machine = record["machine"]
    figure.suptitle(
        f"{record['model']}, {record['tokens']} tokens an answer; {machine['cpu']}, "
        f"{record['threads']} threads, {record['date']}",
        fontsize=10,
    )
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    # No version of matplotlib inside, so that the same record gives the same file.
    figure.savefig(path, dpi=100, metadata={"Software": None})


def main() -> int:
    """Runs it all; 1 when the soak found something left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, nargs="?", help="default: the default model")
    parser.add_argument(
        "--engines", nargs="+", choices=[OWN, PEER, SERVER], default=[OWN, PEER, SERVER]
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("-r", "--repetitions", type=int, default=3)
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count())
    parser.add_argument("--soak", type=int, metavar="N", help="instead: N requests to our server")
    parser.add_argument("--peer-venv", type=Path, default=CACHE / f"{PEER}-{PEER_VERSION}")
    parser.add_argument("--llama-server", type=Path, help="the program; built if not given")
    parser.add_argument("-o", "--output", type=Path, help="default: results/serve_load.json")
    parser.add_argument(
        "--plot", type=Path, default=HERE.parent / "docs" / "images" / "serve_load.png"
    )
    parser.add_argument("--only-plot", action="store_true", help="of the record that is there")
    args = parser.parse_args()
    args.model = args.model.resolve() if args.model else default_model()
    output = args.output or HERE / "results" / f"serve_{'soak' if args.soak else 'load'}.json"
    if args.only_plot:
        plot(json.loads(output.read_text()), args.plot)
        return 0
    record: dict[str, Any] = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/serve_load.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "model": args.model.name,
        "threads": args.threads,
    }
    if args.soak:
        record |= soak(args.model, args.soak, args.threads)
    else:
        print(HEADER)
        record |= {"tokens": args.tokens, "slots": SLOTS, "rows": load(args)}
        print_ratios(record["rows"])
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"Written to {output}", file=sys.stderr)
    if not args.soak:
        plot(record, args.plot)
    return 0 if record.get("is_fine", True) else 1


if __name__ == "__main__":
    sys.exit(main())
