"""What a machine's state costs: loading, threads, two engines at once, a busy neighbour.

    python benchmarks/machine.py [MODEL ...] [--tests load,threads,pair,neighbour] [-r 3]

load: a process of its own from its start to the first byte of one generated token, and its peak
memory, for each `--repack` and for llama-cpp-python. threads: 2 threads over 1, in turn. pair: two
processes of 2 threads at once, both together over one alone. neighbour: one of 2 threads beside a
process that never rests, over the same alone. MODEL as for compare.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from compare import (
    HERE,
    OWN,
    PAUSE,
    PEER,
    Worker,
    describe_machine,
    find_model,
    measure_start,
    open_default,
    peer_python,
    peer_venv,
)

N_CTX = 512
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "pp512": ("prompt", {"tokens": list(range(1000, 1512))}),
    "tg64": ("greedy", {"tokens": [1000], "n": 64}),
}
PEER_START = f"""
import sys, llama_cpp
llama = llama_cpp.Llama(sys.argv[1], n_ctx={N_CTX}, n_threads=int(sys.argv[2]), verbose=False)
answer = llama.create_completion("The capital of France is", max_tokens=1, temperature=0.0)
print(answer["choices"][0]["text"], flush=True)
"""


def measure_peer_start(python: str, model: Path, threads: int, n: int) -> dict[str, Any]:
    first, peak = [], 0
    for i in range(-1, n):
        start = time.perf_counter()
        command = [python, "-c", PEER_START, str(model), str(threads)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tempfile.gettempdir())
        assert process.stdout
        os.read(process.stdout.fileno(), 1)
        seconds = time.perf_counter() - start
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{PEER}: exit code {process.returncode}")
        if i >= 0:
            first.append(seconds)
            peak = max(peak, usage.ru_maxrss * 1024)
    return {"seconds_to_first_byte": first, "peak_bytes": peak}


def load(model: Path, pythons: dict[str, str], args: argparse.Namespace) -> dict[str, Any]:
    found = {
        f"{OWN}, repack {repack}": measure_start(
            model, args.threads, args.repetitions, "-c", str(N_CTX), "--repack", repack
        )
        for repack in args.repack.split(",")
    }
    if PEER in pythons:
        found[PEER] = measure_peer_start(pythons[PEER], model, args.threads, args.repetitions)
    for name, one in found.items():
        seconds = statistics.median(one["seconds_to_first_byte"])
        print(
            f"| load | {name} | {seconds:.2f} s | {one['peak_bytes'] / 1e6:.0f} MB of a file of "
            f"{model.stat().st_size / 1e6:.0f} MB |"
        )
    return found


Measure = Callable[[str, dict[str, Any]], float]


def alone(worker: Worker) -> Measure:
    return lambda do, arguments: float(worker.ask(do, **arguments))


def together(workers: list[Worker]) -> Measure:
    def measure(do: str, arguments: dict[str, Any]) -> float:
        for worker in workers:
            worker.send(do, **arguments)
        return sum(float(worker.receive()) for worker in workers)

    return measure


def disturbed(worker: Worker) -> Measure:
    def measure(do: str, arguments: dict[str, Any]) -> float:
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            return float(worker.ask(do, **arguments))
        finally:
            busy.kill()
            busy.wait()

    return measure


def states(test: str, workers: list[Worker]) -> dict[str, Measure]:
    """The two that a test compares, in words."""
    first = alone(workers[0])
    match test:
        case "threads":
            return {"1 thread": first, "2 threads": alone(workers[1])}
        case "pair":
            return {"alone": first, "both": together(workers)}
    return {"alone": first, "disturbed": disturbed(workers[0])}


def compare_states(
    test: str, model: Path, pythons: dict[str, str], args: argparse.Namespace
) -> dict[str, Any]:
    """Tokens per second of each engine in either state, in turn, and the second over the first."""
    n_threads = {"threads": [1, 2], "pair": [args.threads] * 2, "neighbour": [args.threads]}[test]
    result: dict[str, Any] = {}
    for engine, python in pythons.items():
        workers = [Worker(python, engine, model, n) for n in n_threads]
        open_default(workers)
        result[engine] = {}
        for row, request in REQUESTS.items():
            runs: dict[str, list[float]] = {}
            for i in range(-1, args.repetitions):  # the first turn is not counted
                for name, measure in states(test, workers).items():
                    speed = measure(*request)
                    if i >= 0:
                        runs.setdefault(name, []).append(speed)
                    time.sleep(PAUSE)
            ratios = [b / a for a, b in zip(*runs.values(), strict=True)]
            ratio = statistics.median(ratios)
            speeds = ", ".join(
                f"{statistics.median(values):.1f} {name}" for name, values in runs.items()
            )
            print(
                f"| {test}, {row} | {engine} | {speeds} | "
                f"**{ratio:.2f}** ({min(ratios):.2f}-{max(ratios):.2f}) |",
                flush=True,
            )
            result[engine][row] = {"tokens_per_s": runs, "ratio": ratio}
        for worker in workers:
            worker.close()
    return result


TESTS = ("load", "threads", "pair", "neighbour")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["q4_0@1.1b"])
    parser.add_argument("--tests", default=",".join(TESTS), help="parted by commas")
    parser.add_argument("--repack", default="never,auto", help="those of load, parted by commas")
    parser.add_argument("--peer-venv", type=Path, default=peer_venv(PEER))
    parser.add_argument("--only", choices=[OWN, PEER], help="measure one engine alone")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--repetitions", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "machine.json")
    args = parser.parse_args()
    unknown = [name for name in args.tests.split(",") if name not in TESTS]
    if unknown:
        raise SystemExit(f"{unknown[0]!r} is no test: {', '.join(TESTS)}")
    pythons = {}
    if args.only != PEER:
        pythons[OWN] = sys.executable
    if args.only != OWN:
        pythons[PEER] = peer_python(args.peer_venv)
    record: dict[str, Any] = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/machine.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "threads": args.threads,
        "models": {},
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for name in args.models:
        model = find_model(name)
        print(f"\n{model.name}\n\n| test | engine | tokens per second | |\n|---|---|---|---|")
        found = record["models"][model.name] = {}
        for test in args.tests.split(","):
            if test == "load":
                found[test] = load(model, pythons, args)
            else:
                found[test] = compare_states(test, model, pythons, args)
            args.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
