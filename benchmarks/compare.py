"""Measures pyllamacpp beside llama-cpp-python, built natively here, in one run and in turn.

    python benchmarks/compare.py [MODEL.gguf] [--peer-venv DIR] [--repetitions N] [--threads N]

Each engine lives in a process of its own (compare_worker.py). Only one works at a time, in turn,
and each ratio is taken within a pair of turns, so that a machine that speeds up or slows down
during the run does not show in it. See README.md beside this file for what the rows mean.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEER = "llama-cpp-python"
PEER_VERSION = "0.3.36"
OWN = "pyllamacpp"
WINDOW = 512
N_PROMPT = 512
N_DECODE = 128
# Greedy, this goes on for more than N_DECODE tokens without an end of text.
STORY = "Once upon a time, in a small village by the sea, there lived an old fisherman who"
PAUSE = 0.3  # seconds between turns, for the other engine's threads to stop spinning


@dataclass(frozen=True)
class Row:
    name: str
    level: str
    request: str


ROWS = [
    Row(f"pp{N_PROMPT}", "engine", "engine_prompt"),
    Row(f"tg{N_DECODE}", "engine", "engine_decode"),
    Row(f"pp{N_PROMPT}", "Python API", "api_prompt"),
    Row(f"tg{N_DECODE}", "Python API", "api_decode"),
]


class Worker:
    """compare_worker.py in a process, asked one thing at a time."""

    def __init__(self, python: str, engine: str, model: Path, threads: int) -> None:
        self.engine = engine
        command = [python, str(HERE / "compare_worker.py"), engine, str(model)]
        command += ["--threads", str(threads)]
        # Away from the checkout: its source tree must not be imported in place of the package.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tempfile.gettempdir(),
        )

    def ask(self, do: str, **arguments: Any) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                f"{self.engine}: the worker ended during {do!r}; see its message above"
            )
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def peer_python(venv: Path) -> str:
    """The Python of a virtual environment with the peer in it, made where there is none."""
    python = venv / "bin" / "python"
    if not python.exists():
        print(f"Building {PEER} {PEER_VERSION} in {venv}: about ten minutes.", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        install = [str(python), "-m", "pip", "install", "--no-binary", PEER]
        subprocess.run([*install, f"{PEER}=={PEER_VERSION}"], check=True)
    code = f"from importlib.metadata import version; print(version({PEER!r}))"
    found = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    if found.stdout.strip() != PEER_VERSION:
        raise SystemExit(f"{venv}: {PEER} {found.stdout.strip()}, expected {PEER_VERSION}")
    return str(python)


def default_model() -> Path:
    from pyllamacpp.models import resolve_model

    return resolve_model(None)


def tokenize(workers: list[Worker], text: str) -> list[int]:
    tokens = [worker.ask("tokenize", text=text) for worker in workers]
    if any(ids != tokens[0] for ids in tokens):
        raise SystemExit("the engines tokenize the text differently; a comparison means nothing")
    ids: list[int] = tokens[0]
    return ids


def measure_speeds(
    workers: list[Worker], text: list[int], story: list[int], repetitions: int
) -> list[dict[str, Any]]:
    rows = []
    for row in ROWS:
        runs: dict[str, list[float]] = {worker.engine: [] for worker in workers}
        for i in range(-1, repetitions):  # the first turn warms up and is not counted
            # Another stretch of text each time: no engine can find it in its prefix cache.
            stretch = text[(i + 1) * 64 :][:N_PROMPT]
            for worker in workers:
                arguments = (
                    {"tokens": stretch}
                    if row.request.endswith("prompt")
                    else {"tokens": story, "n": N_DECODE}
                )
                speed = worker.ask(row.request, **arguments)
                if i >= 0:
                    runs[worker.engine].append(speed)
                time.sleep(PAUSE)
        print(f"{row.level} {row.name} done", file=sys.stderr)
        rows.append({"test": row.name, "level": row.level, "tokens_per_s": runs} | summary(runs))
    return rows


def summary(runs: dict[str, list[float]]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "median": {engine: statistics.median(speeds) for engine, speeds in runs.items()}
    }
    if len(runs) == 2:
        pairs = [own / peer for own, peer in zip(runs[OWN], runs[PEER], strict=True)]
        result["ratio"] = {
            "median": statistics.median(pairs),
            "least": min(pairs),
            "most": max(pairs),
        }
    return result


def measure_perplexity(workers: list[Worker], text: list[int], n_windows: int) -> dict[str, float]:
    windows = [text[i * WINDOW :][:WINDOW] for i in range(min(n_windows, len(text) // WINDOW))]
    return {
        worker.engine: math.exp(
            statistics.fmean(worker.ask("window_nll", tokens=window) for window in windows)
        )
        for worker in workers
    }


def measure_start(model: Path, threads: int, repetitions: int) -> dict[str, Any]:
    """`pyllamacpp generate -n 1` as a user runs it: seconds to the first byte, and peak memory."""
    command = [sys.executable, "-m", "pyllamacpp", "generate", "-m", str(model)]
    command += ["-p", "The capital of France is", "-n", "1", "-t", str(threads), "--temp", "0"]
    first, whole, peak = [], [], []
    for i in range(-1, repetitions):  # the first run fills the page cache and is not counted
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tempfile.gettempdir()
        )
        assert process.stdout
        seen = os.read(process.stdout.fileno(), 1)
        to_first = time.perf_counter() - start
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)  # before Popen reaps it: it has the peak
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0 or not seen:
            raise SystemExit(f"{shlex.join(command)}: exit code {process.returncode}")
        if i >= 0:
            first.append(to_first)
            whole.append(time.perf_counter() - start)
            peak.append(usage.ru_maxrss * 1024)  # KiB on Linux
    return {
        "command": shlex.join(["python", *command[1:4], "-m", model.name, *command[6:]]),
        "seconds_to_first_byte": first,
        "seconds_to_exit": whole,
        "peak_bytes": max(peak),
        "file_bytes": model.stat().st_size,
    }


def describe_machine() -> dict[str, Any]:
    fields: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
    wanted = ("avx2", "fma", "f16c", "avx512", "vnni", "bf16", "amx", "asimd", "i8mm", "sve")
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "cpu": fields.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "instruction_sets": [f for f in flags if f.startswith(wanted) or f.endswith("vnni")],
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def print_tables(record: dict[str, Any]) -> None:
    engines = list(record["engines"])
    both = len(engines) == 2
    header = ["test", "level", *(f"{engine}, tok/s" for engine in engines)]
    header += ["ratio (least-most)"] if both else []
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in record["speeds"]:
        cells = [row["test"], row["level"], *(f"{row['median'][e]:.1f}" for e in engines)]
        if both:
            ratio = row["ratio"]
            cells.append(f"**{ratio['median']:.2f}** ({ratio['least']:.2f}-{ratio['most']:.2f})")
        print("| " + " | ".join(cells) + " |")
    cells = ["perplexity", f"{record['n_windows']} windows of {WINDOW}"]
    cells += [f"{record['perplexity'][engine]:.4f}" for engine in engines]
    if both:
        cells.append(f"{record['perplexity'][OWN] / record['perplexity'][PEER]:.4f}")
    print("| " + " | ".join(cells) + " |")
    if "start" in record:
        start = record["start"]
        print(
            f"\n`pyllamacpp generate -n 1`, warm: first byte after "
            f"{statistics.median(start['seconds_to_first_byte']):.2f} s, exit after "
            f"{statistics.median(start['seconds_to_exit']):.2f} s (medians); peak memory "
            f"{start['peak_bytes'] / 1e6:.0f} MB, the file has {start['file_bytes'] / 1e6:.0f} MB"
        )
    machine = record["machine"]
    threads = f"{record['threads']} threads of {machine['cores']}"
    print(f"\n{machine['cpu']}, {threads}; {record['command']}")


def main() -> None:
    cache = Path(os.environ.get("PYLLAMACPP_CACHE", "~/.cache/pyllamacpp")).expanduser()
    parser = argparse.ArgumentParser(description="Compare pyllamacpp with llama-cpp-python.")
    parser.add_argument("model", type=Path, nargs="?", help="default: the default model")
    parser.add_argument(
        "--peer-venv",
        type=Path,
        default=cache / f"{PEER}-{PEER_VERSION}",
        help="virtual environment with the peer; made if missing (default: %(default)s)",
    )
    parser.add_argument("--only", choices=[OWN, PEER], help="measure one engine alone")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--repetitions", type=int, default=7)
    parser.add_argument("--windows", type=int, default=10, help="windows of the perplexity")
    parser.add_argument(
        "-f", "--text", type=Path, default=HERE.parent / "tests" / "data" / "english.txt"
    )
    day = datetime.now(timezone.utc).date().isoformat()
    parser.add_argument(
        "-o", "--output", type=Path, default=HERE / "results" / f"compare-{day}.json"
    )
    args = parser.parse_args()
    model = args.model.resolve() if args.model else default_model()
    options = f"-t {args.threads} -r {args.repetitions} --windows {args.windows}"

    pythons = {}
    if args.only != PEER:
        pythons[OWN] = sys.executable
    if args.only != OWN:
        pythons[PEER] = peer_python(args.peer_venv)
    record: dict[str, Any] = {
        "date": day,
        "command": f"python benchmarks/compare.py {model.name} {options}",
        "machine": describe_machine(),
        "model": {"file": model.name, "bytes": model.stat().st_size},
        "threads": args.threads,
        "repetitions": args.repetitions,
    }
    workers = [Worker(python, name, model, args.threads) for name, python in pythons.items()]
    try:
        record["engines"] = {worker.engine: worker.ask("describe") for worker in workers}
        text = tokenize(workers, args.text.read_text(encoding="utf-8"))
        n_needed = args.repetitions * 64 + N_PROMPT
        if len(text) < n_needed:
            raise SystemExit(f"{args.text}: {len(text)} tokens, {n_needed} are needed")
        record["n_windows"] = min(args.windows, len(text) // WINDOW)
        record["perplexity"] = measure_perplexity(workers, text, args.windows)
        story = tokenize(workers, STORY)
        record["speeds"] = measure_speeds(workers, text, story, args.repetitions)
    finally:
        for worker in workers:
            worker.close()
    if OWN in pythons:
        record["start"] = measure_start(model, args.threads, args.repetitions)

    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print_tables(record)
    print(f"\nWritten to {args.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
