"""Measures pyllamacpp beside its peers in one run and in turn.

    python benchmarks/compare.py [MODEL.gguf ...] [--peers NAMES] [--rows ROWS] [-r N] [-t N]

MODEL is a file, `default`, TYPE@1.1b (random weights in TinyLlama's shape) or TYPE@135m (the
default model's weights in another type); the last two are written where missing.
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
import re
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
CACHE = Path(os.environ.get("PYLLAMACPP_CACHE", "~/.cache/pyllamacpp")).expanduser()
PEER = "llama-cpp-python"
PEER_VERSION = "0.3.36"
AVX2_PEER = "llama-cpp-python-avx2"
IK_PEER = "ik-llama-cpp-python"
OWN = "pyllamacpp"
WINDOW = 512
# As compare_worker.py's.
N_CTX, N_FILL = 2048, 512
# Greedy, this goes on for more than 128 tokens without an end of text.
STORY = "Once upon a time, in a small village by the sea, there lived an old fisherman who"
PAUSE = 0.3  # seconds between turns, for the other engine's threads to stop spinning


@dataclass(frozen=True)
class Peer:
    """Where a peer comes from; `flags`: CMAKE_ARGS of its build."""

    package: str
    version: str
    built: bool
    flags: str = ""


PEERS = {
    PEER: Peer(PEER, PEER_VERSION, built=True),
    AVX2_PEER: Peer(
        PEER,
        PEER_VERSION,
        built=True,
        flags="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"
        " -DGGML_AVX512=OFF",
    ),
    IK_PEER: Peer(IK_PEER, "0.1.5", built=False),
}


@dataclass(frozen=True)
class Row:
    """A test, as its name says: api-pp512, tg64@d4096:q8_0."""

    name: str
    api: bool
    kind: str
    n: int
    depth: int
    kv: str

    @staticmethod
    def parse(name: str) -> Row:
        found = re.fullmatch(r"(api-)?(pp|tg)(\d+)(?:@d(\d+))?(?::(\w+))?", name)
        if found is None:
            raise SystemExit(f"{name!r} is no row: for example pp512, api-tg128, tg64@d4096:q8_0")
        api, kind, n, depth, kv = found.groups()
        row = Row(name, bool(api), kind, int(n), int(depth or 0), kv or "f16")
        if row.depth % N_FILL or (row.api and (row.depth or kv)):
            raise SystemExit(f"{name!r}: depths are multiples of {N_FILL}, and not for api- rows")
        return row

    @property
    def needs(self) -> str:
        """What an engine must be able to do."""
        if self.api:
            return "api"
        return "depth" if self.depth or self.kv != "f16" else "engine"

    @property
    def context(self) -> dict[str, Any]:
        room = self.depth + N_FILL * math.ceil((self.n + 64) / N_FILL) if self.depth else 0
        return {"n_ctx": max(N_CTX, room), "kv": self.kv, "n_seq": 1}


class Worker:
    """compare_worker.py in a process, asked one thing at a time."""

    def __init__(
        self,
        python: str,
        engine: str,
        model: Path,
        threads: int,
        *,
        isa: str = "",
        repack: str = "auto",
    ) -> None:
        self.engine = engine
        kind = PEERS[engine].package if engine in PEERS else engine
        command = [python, str(HERE / "compare_worker.py"), kind, str(model)]
        command += ["--threads", str(threads), "--repack", repack]
        # Away from the checkout: its source tree must not be imported in place of the package.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tempfile.gettempdir(),
            env=os.environ | ({"PYLLAMACPP_ISA": isa} if isa else {}),
        )
        self.can: list[str] = self.ask("describe")["can"]

    def send(self, do: str, **arguments: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.engine}: the worker ended; see its message above")
        return json.loads(line)

    def ask(self, do: str, **arguments: Any) -> Any:
        self.send(do, **arguments)
        return self.receive()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def peer_venv(name: str) -> Path:
    peer = PEERS[name]
    return CACHE / name.replace(peer.package, f"{peer.package}-{peer.version}")


def peer_python(venv: Path, name: str = PEER) -> str:
    """The Python of a virtual environment with the peer in it, made where there is none."""
    peer = PEERS[name]
    python = venv / "bin" / "python"
    if not python.exists():
        work = "Building, about ten minutes" if peer.built else "Installing"
        print(f"{peer.package} {peer.version} in {venv}: {work}.", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        install = [str(python), "-m", "pip", "install", f"{peer.package}=={peer.version}"]
        if peer.built:
            # A wheel that pip has built with other flags must not be taken.
            install += ["--no-cache-dir", "--no-binary", peer.package]
        env = os.environ | ({"CMAKE_ARGS": peer.flags} if peer.flags else {})
        subprocess.run(install, check=True, env=env)
    code = f"from importlib.metadata import version; print(version({peer.package!r}))"
    found = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    if found.stdout.strip() != peer.version:
        raise SystemExit(f"{venv}: {peer.package} {found.stdout.strip()}, expected {peer.version}")
    return str(python)


def default_model() -> Path:
    from pyllamacpp.models import resolve_model

    return resolve_model(None)


def find_model(name: str) -> Path:
    """A file, the default model for "default", or what TYPE@SHAPE stands for, made where missing.

    @1.1b: random weights in TinyLlama's shape; @135m: the default model's weights in another type.
    """
    if name == "default":
        return default_model()
    dtype, at, shape = name.partition("@")
    if not at:
        return Path(name).resolve()
    path = CACHE / "random" / f"{shape}-{dtype}.gguf"
    if path.exists():
        return path
    print(f"Writing {path}", file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    if shape == "1.1b":
        from random_model import SCALES_AT, write

        if dtype not in SCALES_AT:
            raise SystemExit(f"{name!r}: the types are {', '.join(SCALES_AT)}")
        write(part, dtype, "tinyllama")
    elif shape == "135m":
        command = [sys.executable, "-m", "pyllamacpp", "quantize", "--allow-requantize"]
        command += ["--force", str(default_model()), str(part), dtype]
        # Away from the checkout, as the workers.
        if subprocess.run(command, cwd=tempfile.gettempdir(), check=False).returncode:
            raise SystemExit(f"{name!r}: the default model was not written in {dtype}")
    else:
        raise SystemExit(f"{name!r}: the shapes are @1.1b and @135m")
    return part.replace(path)


def tokenize(workers: list[Worker], text: str) -> list[int]:
    tokens = [worker.ask("tokenize", text=text) for worker in workers]
    if any(ids != tokens[0] for ids in tokens):
        raise SystemExit("the engines tokenize the text differently; a comparison means nothing")
    ids: list[int] = tokens[0]
    return ids


def measure_row(
    row: Row, workers: list[Worker], text: list[int], story: list[int], repetitions: int
) -> dict[str, Any]:
    """One row by those engines that can do it, in turn; contexts are open."""
    started = time.perf_counter()
    able = [worker for worker in workers if row.needs in worker.can]
    request = ("api_" if row.api else "") + ("prompt" if row.kind == "pp" else "greedy")
    own = next((worker for worker in workers if worker.engine == OWN), None)
    what = {"test": row.kind, "n": row.n, "depth": row.depth, "kv": row.kv}
    limits = [own.ask("limits")] if own else []
    runs: dict[str, list[float]] = {worker.engine: [] for worker in able}
    for i in range(-1, repetitions):  # the first turn warms up and is not counted
        # Another stretch of text each time: no engine can find it in its prefix cache.
        arguments: dict[str, Any] = {"tokens": text[(i + 1) * 64 :][: row.n]}
        if row.kind == "tg":
            arguments = {"tokens": story[:1] if row.depth else story, "n": row.n}
        if row.depth:
            arguments["depth"] = row.depth
        for worker in able:
            speed = worker.ask(request, **arguments)
            if i >= 0:
                runs[worker.engine].append(speed)
            time.sleep(PAUSE)
    limits += [own.ask("limits")] if own else []
    result = {"test": row.name, "kv": row.kv, "tokens_per_s": runs} | summary(runs)
    if own:
        best = {name: max(found[name] for found in limits) for name in limits[0]}
        allowed = own.ask("allowed", limits=best, **what)
        result["limits"] = best
        result["limit_tokens_per_s"] = allowed
        result["share_of_limit"] = {e: speed / allowed for e, speed in result["median"].items()}
    result["seconds"] = round(time.perf_counter() - started, 1)
    print(f"{row.name} done in {result['seconds']:.0f} s", file=sys.stderr)
    return result


def measure_speeds(
    workers: list[Worker], rows: list[Row], text: list[int], story: list[int], repetitions: int
) -> list[dict[str, Any]]:
    results = []
    opened: dict[str, Any] = {}
    for row in rows:
        if not row.api and row.context | {"depth": row.depth} != opened:
            for worker in workers:
                if row.needs in worker.can:
                    worker.ask("open", **row.context)
                    if row.depth:
                        worker.ask("fill", n=row.depth)
            opened = row.context | {"depth": row.depth}
        results.append(measure_row(row, workers, text, story, repetitions))
    return results


def summary(runs: dict[str, list[float]]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "median": {engine: statistics.median(speeds) for engine, speeds in runs.items()},
        "ratio": {},
    }
    for peer, speeds in runs.items():
        if peer != OWN and OWN in runs:
            pairs = [own / other for own, other in zip(runs[OWN], speeds, strict=True)]
            result["ratio"][peer] = {
                "median": statistics.median(pairs),
                "least": min(pairs),
                "most": max(pairs),
            }
    return result


def windows_of(text: list[int], n_windows: int) -> list[list[int]]:
    return [text[i * WINDOW :][:WINDOW] for i in range(min(n_windows, len(text) // WINDOW))]


def open_default(workers: list[Worker]) -> None:
    for worker in workers:
        worker.ask("open", n_ctx=N_CTX, kv="f16", n_seq=1)


def measure_perplexity(workers: list[Worker], text: list[int], n_windows: int) -> dict[str, float]:
    open_default(workers)
    return {
        worker.engine: math.exp(
            statistics.fmean(
                worker.ask("window_nll", tokens=window) for window in windows_of(text, n_windows)
            )
        )
        for worker in workers
    }


def measure_start(model: Path, threads: int, repetitions: int, *options: str) -> dict[str, Any]:
    """`pyllamacpp generate -n 1` as a user runs it: seconds to the first byte, and peak memory."""
    command = [sys.executable, "-m", "pyllamacpp", "generate", "-m", str(model)]
    command += ["-p", "The capital of France is", "-n", "1", "-t", str(threads), "--temp", "0"]
    command += options
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


def print_table(model: dict[str, Any]) -> None:
    engines = list(model["engines"])
    peers = [engine for engine in engines if engine != OWN] if OWN in engines else []
    print(f"\n{model['file']}, {model['bytes'] / 1e6:.0f} MB\n")
    header = ["test", *(f"{engine}, tok/s (of limit)" for engine in engines)]
    header += [f"to {peer} (least-most)" for peer in peers]
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in model["speeds"]:
        cells = [row["test"]]
        for engine in engines:
            speed = row["median"].get(engine)
            share = row.get("share_of_limit", {}).get(engine)
            cells.append("" if speed is None else f"{speed:.1f}")
            cells[-1] += f" ({share:.0%})" if share else ""
        for peer in peers:
            ratio = row["ratio"].get(peer)
            text = "**{median:.2f}** ({least:.2f}-{most:.2f})"
            cells.append(text.format(**ratio) if ratio else "")
        print("| " + " | ".join(cells) + " |")
    found = model["perplexity"]
    if found:
        cells = [f"perplexity, {model['n_windows']} windows of {WINDOW}"]
        cells += [f"{found[engine]:.4f}" for engine in engines]
        cells += [f"{found[OWN] / found[peer]:.4f}" for peer in peers]
        print("| " + " | ".join(cells) + " |")
    if "start" in model:
        start = model["start"]
        print(
            f"\n`pyllamacpp generate -n 1`, warm: first byte after "
            f"{statistics.median(start['seconds_to_first_byte']):.2f} s, exit after "
            f"{statistics.median(start['seconds_to_exit']):.2f} s (medians); peak memory "
            f"{start['peak_bytes'] / 1e6:.0f} MB, the file has {start['file_bytes'] / 1e6:.0f} MB"
        )


def measure_model(
    model: Path, pythons: dict[str, str], args: argparse.Namespace, rows: list[Row]
) -> dict[str, Any]:
    started = time.perf_counter()
    result: dict[str, Any] = {"file": model.name, "bytes": model.stat().st_size}
    workers: list[Worker] = []
    try:
        for name, python in pythons.items():
            isa = args.isa if name == OWN else ""
            worker = Worker(python, name, model, args.threads, isa=isa, repack=args.repack)
            workers.append(worker)
        result["engines"] = {worker.engine: worker.ask("describe") for worker in workers}
        text = tokenize(workers, args.text.read_text(encoding="utf-8"))
        n_needed = args.repetitions * 64 + max((row.n for row in rows), default=0)
        if len(text) < n_needed:
            raise SystemExit(f"{args.text}: {len(text)} tokens, {n_needed} are needed")
        result["n_windows"] = min(args.windows, len(text) // WINDOW)
        result["perplexity"] = (
            measure_perplexity(workers, text, args.windows) if args.windows else {}
        )
        story = tokenize(workers, STORY)
        result["speeds"] = measure_speeds(workers, rows, text, story, args.repetitions)
    finally:
        for worker in workers:
            worker.close()
    if args.start and OWN in pythons:
        result["start"] = measure_start(model, args.threads, args.repetitions)
    result["seconds"] = round(time.perf_counter() - started, 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare pyllamacpp with its peers.")
    parser.add_argument(
        "models",
        nargs="*",
        default=["default"],
        metavar="MODEL",
        help="files, `default` for the default model, TYPE@1.1b for random weights (q4_k@1.1b), "
        "TYPE@135m for the default model's weights in another type",
    )
    parser.add_argument(
        "--peers",
        default=PEER,
        help=f"of {', '.join(PEERS)}, parted by commas; built or installed in the cache folder "
        "where missing (default: %(default)s)",
    )
    parser.add_argument("--peer-venv", type=Path, help=f"virtual environment with {PEER}")
    parser.add_argument("--only", choices=[OWN, *PEERS], help="measure one engine alone")
    parser.add_argument(
        "--rows",
        default="pp512,tg128,api-pp512,api-tg128",
        help="[api-](pp|tg)N[@dDEPTH][:KV_TYPE], parted by commas (default: %(default)s)",
    )
    parser.add_argument("--start", action="store_true", help="seconds to a command's first byte")
    parser.add_argument("--isa", default="", help="the tier that pyllamacpp is forced to")
    parser.add_argument("--repack", default="auto", help="of pyllamacpp (default: %(default)s)")
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
    rows = [Row.parse(name) for name in args.rows.split(",") if name]
    names = [args.only] if args.only else [OWN, *(name for name in args.peers.split(",") if name)]
    unknown = [name for name in names if name != OWN and name not in PEERS]
    if unknown:
        raise SystemExit(f"{unknown[0]!r} is no peer: {', '.join(PEERS)}")
    pythons = {}
    for name in names:
        venv = args.peer_venv if args.peer_venv and name == PEER else None
        pythons[name] = (
            sys.executable if name == OWN else peer_python(venv or peer_venv(name), name)
        )
    models = [find_model(name) for name in args.models]
    record: dict[str, Any] = {
        "date": day,
        "command": shlex.join(["python", "benchmarks/compare.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "threads": args.threads,
        "repetitions": args.repetitions,
        "models": [],
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for model in models:
        record["models"].append(measure_model(model, pythons, args, rows))
        # After each model: a run that is stopped has those before.
        args.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print_table(record["models"][-1])
    machine = record["machine"]
    print(f"\n{machine['cpu']}, {args.threads} threads of {machine['cores']}; {record['command']}")
    print(f"\nWritten to {args.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
