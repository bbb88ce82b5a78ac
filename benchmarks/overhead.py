"""What Python costs: per token, per call, in memory; and many texts at a time beside one by one.

    python benchmarks/overhead.py [MODEL.gguf] [--peer-venv DIR | --no-peer] [-r N] [-n N]

The cost of a token and of a call is the processor time of the calling thread outside of the
core's evaluation (`_core.advance`), less that of a bare loop over `_core.advance`, which is what
the measuring costs. Each token's evaluation empties the caches, and so does other work on the
machine: both make it more. Beside it is the wall time of a streamed token less that of one of the
bare core, token by token in turn. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from compare import (
    HERE,
    OWN,
    PAUSE,
    PEER,
    STORY,
    Worker,
    describe_machine,
    find_model,
    peer_python,
    peer_venv,
)

COUNTS = (1, 2, 4, 8, 16)
QUESTION = [{"role": "user", "content": "Tell me a story about an old fisherman."}]
N_PROMPT = 16


class Meter:
    """Processor time of this thread outside of `_core.advance`, in nanoseconds."""

    def __init__(self) -> None:
        reads = [time.thread_time_ns() for _ in range(10_001)]
        self._clock = (reads[-1] - reads[0]) / (len(reads) - 1)
        self._inside = 0
        self._n_calls = 0

    @contextmanager
    def _patched(self) -> Iterator[None]:
        from pyllamacpp import _core

        real: Callable[..., Any] = _core.advance

        def advance(generations: Any) -> Any:
            start = time.thread_time_ns()
            try:
                return real(generations)
            finally:
                self._inside += time.thread_time_ns() - start
                self._n_calls += 1

        _core.advance = advance  # type: ignore[assignment]
        try:
            yield
        finally:
            _core.advance = real  # type: ignore[assignment]

    def outside(self, call: Callable[[], object]) -> float:
        """Of one call; a reading of the clock takes part of its own time, which is taken off."""
        self._inside = self._n_calls = 0
        with self._patched():
            start = time.thread_time_ns()
            call()
            total = time.thread_time_ns() - start
        return total - self._inside - self._n_calls * self._clock


def calls_of(llama: Any) -> dict[str, Callable[[int], object]]:
    """What is measured: from the number of tokens to a call that generates so many."""
    options = {"temperature": 0.0, "ignore_eos": True}

    def streamed(n: int) -> None:
        for _ in llama.create_completion(STORY, max_tokens=n, stream=True, **options):
            pass

    def chat(n: int) -> None:
        for _ in llama.create_chat_completion(QUESTION, max_tokens=n, stream=True, **options):
            pass

    return {
        "create_completion": lambda n: llama.create_completion(STORY, max_tokens=n, **options),
        "create_completion, stream": streamed,
        "create_chat_completion, stream": chat,
        "create_completion, logprobs=0": lambda n: llama.create_completion(
            STORY, max_tokens=n, logprobs=0, **options
        ),
    }


def measure_overhead(model: Path, threads: int, n: int, repetitions: int) -> list[dict[str, Any]]:
    from pyllamacpp import Llama

    rows = []
    with Llama(model, n_ctx=1024, n_threads=threads, verbose=False) as llama:
        meter = Meter()
        bare = bare_loop(llama, threads)
        for name, call in calls_of(llama).items():
            per_call, per_token, bare_token = [], [], []
            for i in range(-1, repetitions):  # the first turn fills the cache and is not counted
                short, token = costs(meter, call, n)
                _, own = costs(meter, bare, n)
                if i >= 0:
                    per_call.append(short)
                    per_token.append(token - own)
                    bare_token.append(own)
            rows.append(
                {
                    "call": name,
                    "microseconds_per_token": per_token,
                    "of_the_bare_loop": bare_token,
                    "microseconds_per_call": per_call,
                }
            )
            print(f"{name} done", file=sys.stderr)
    return rows


def costs(meter: Meter, call: Callable[[int], object], n: int) -> tuple[float, float]:
    """Microseconds of a call for one token, and of each of n more."""
    short = meter.outside(lambda: call(1)) / 1e3
    return short, (meter.outside(lambda: call(n + 1)) / 1e3 - short) / n


def bare_loop(llama: Any, threads: int) -> Callable[[int], object]:
    """The same evaluation with no more Python than it takes."""
    from pyllamacpp import _core

    context = _core.Context(llama.model, n_ctx=1024, n_threads=threads)
    prompt = llama.tokenize(STORY.encode(), special=True)
    greedy = _core.SamplingParams(temperature=0.0)

    def run(n_tokens: int) -> None:
        generation = _core.Generation(
            context, prompt, max_tokens=n_tokens, sampling=greedy, ignore_eos=True
        )
        pairs = [(generation, False)]
        while True:
            (steps,) = _core.advance(pairs)
            if steps and steps[-1][2] is not None:
                return

    return run


def measure_wall(model: Path, threads: int, n: int, repetitions: int) -> dict[str, Any]:
    """Microseconds of a token through a stream and through the bare core, token by token in turn.

    Both are texts of one context, so the machine's moods and the caches' are the same for both.
    """
    from pyllamacpp import Llama, _core

    options: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True, "max_tokens": n + 8}
    greedy = _core.SamplingParams(temperature=0.0)
    found = {}
    with Llama(model, n_ctx=1024, n_threads=threads, n_parallel=2, verbose=False) as llama:
        context = llama.engine.context
        prompt = llama.tokenize(STORY.encode(), special=True)
        calls: dict[str, Callable[[], Iterator[object]]] = {
            "create_completion": lambda: llama.create_completion(STORY, stream=True, **options),
            "create_chat_completion": lambda: llama.create_chat_completion(
                QUESTION, stream=True, **options
            ),
        }
        for name, call in calls.items():
            times: dict[str, list[float]] = {"api": [], "core": []}
            for _ in range(repetitions):
                chunks = call()
                next(chunks)  # the prompt is evaluated, and has its sequence
                free = [i for i, (_, _, own) in enumerate(llama.engine.slots()) if own < 0]
                for sequence in free:
                    context.trim(sequence, 0)
                generation = _core.Generation(
                    context,
                    prompt,
                    sequence=free[0],
                    max_tokens=n + 8,
                    sampling=greedy,
                    ignore_eos=True,
                )
                turns = {"api": partial(next, chunks), "core": generation.next}
                for i in range(-4, n):
                    for side in ("api", "core") if i % 2 else ("core", "api"):
                        start = time.perf_counter()
                        turns[side]()
                        if i >= 0:
                            times[side].append((time.perf_counter() - start) * 1e6)
                for _ in chunks:  # to its end
                    pass
                del generation
            pairs = [a - c for a, c in zip(times["api"], times["core"], strict=True)]
            found[name] = {
                "tokens": len(pairs),
                "api": statistics.median(times["api"]),
                "core": statistics.median(times["core"]),
                "difference": statistics.quantiles(pairs, n=4),
            }
    return found


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_cycles(model: Path, threads: int, n_cycles: int) -> list[dict[str, int]]:
    """Resident memory of this process around several lives of a model; mapped pages count."""
    from pyllamacpp import Llama

    found = []
    for _ in range(n_cycles):
        before = resident_bytes()
        llama = Llama(model, n_ctx=2048, n_threads=threads, verbose=False)
        loaded = resident_bytes()
        llama.create_completion([STORY] * 4, max_tokens=32, temperature=0.0)
        used = resident_bytes()
        llama.close()
        del llama
        gc.collect()
        found.append({"before": before, "loaded": loaded, "used": used, "closed": resident_bytes()})
    return found


def measure_memory(model: Path, threads: int) -> list[dict[str, int]]:
    """`memory_cycles` in a process of its own."""
    command = [sys.executable, __file__, str(model), "--memory-only", "-t", str(threads)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=tempfile.gettempdir()
    )
    cycles: list[dict[str, int]] = json.loads(done.stdout)
    return cycles


def measure_throughput(
    pythons: dict[str, str], model: Path, threads: int, n: int, repetitions: int, text: str
) -> list[dict[str, Any]]:
    """Tokens per second of all texts; each in turn with the others, ratios within a turn."""
    workers = {name: Worker(python, name, model, threads) for name, python in pythons.items()}
    rows = []
    try:
        tokens = {name: worker.ask("tokenize", text=text) for name, worker in workers.items()}
        ids = tokens[OWN]
        if any(found != ids for found in tokens.values()):
            raise SystemExit("the engines tokenize the text differently")
        prompts = [ids[i * N_PROMPT :][:N_PROMPT] for i in range(max(COUNTS))]
        for count in COUNTS:
            runs: dict[str, list[float]] = {"together": [], "in turn": []}
            if PEER in workers:
                runs[PEER] = []
            for i in range(-1, repetitions):
                for name, found in runs.items():
                    worker = workers[PEER if name == PEER else OWN]
                    do = "in_turn" if name == "in turn" else "together"
                    speed = worker.ask(do, prompts=prompts[:count], n=n)
                    if i >= 0:
                        found.append(speed)
                    time.sleep(PAUSE)
            row: dict[str, Any] = {"sequences": count, "tokens_per_s": runs}
            for name in list(runs)[1:]:
                pairs = [a / b for a, b in zip(runs["together"], runs[name], strict=True)]
                row[f"ratio to {name}"] = {
                    "median": statistics.median(pairs),
                    "least": min(pairs),
                    "most": max(pairs),
                }
            rows.append(row)
            print(f"{model.name}: {count} sequences done", file=sys.stderr)
    finally:
        for worker in workers.values():
            worker.close()
    return rows


def print_tables(record: dict[str, Any]) -> None:
    if "overhead" in record:
        print("| call | microseconds per token | bare loop | per call |\n|---|---|---|---|")
        for row in record["overhead"]:
            token, call = row["microseconds_per_token"], row["microseconds_per_call"]
            bare = row["of_the_bare_loop"]
            print(f"| {row['call']} | {median_of(token)} | {median_of(bare)} | {median_of(call)} |")
        for name, wall in record["wall"].items():
            low, middle, high = (f"{x:.0f}" for x in wall["difference"])
            print(
                f"\n{name}, stream: a token takes {wall['api']:.0f} microseconds, "
                f"{wall['core']:.0f} in the bare core; of {wall['tokens']} pairs the difference "
                f"is {middle} in the median, {low} and {high} the quartiles"
            )
    if "memory" in record:
        print("\n| MB resident | before | loaded | after a call | closed |\n|---|---|---|---|---|")
        for i, cycle in enumerate(record["memory"]):
            cells = " | ".join(f"{n_bytes / 1e6:.1f}" for n_bytes in cycle.values())
            print(f"| cycle {i + 1} | {cells} |")
    for name, rows in record.get("throughput", {}).items():
        columns = list(rows[0]["tokens_per_s"])
        ratios = [key for key in rows[0] if key.startswith("ratio")]
        print(f"\n{name}, tokens per second of all texts:\n")
        print("| " + " | ".join(["texts", *columns, *ratios]) + " |")
        print("|" + "---|" * (1 + len(columns) + len(ratios)))
        for row in rows:
            cells = [str(row["sequences"])]
            cells += [f"{statistics.median(row['tokens_per_s'][name]):.0f}" for name in columns]
            for key in ratios:
                ratio = row[key]
                spread = f"({ratio['least']:.2f}-{ratio['most']:.2f})"
                cells.append(f"**{ratio['median']:.2f}** {spread}")
            print("| " + " | ".join(cells) + " |")
    machine = record["machine"]
    print(f"\n{machine['cpu']}, {record['threads']} threads; {record['command']}")


def median_of(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what Python and batching cost.")
    parser.add_argument("model", nargs="?", default="default", help="as for compare.py")
    parser.add_argument("--peer-venv", type=Path, default=peer_venv(PEER))
    parser.add_argument("--no-peer", action="store_true", help="measure this package alone")
    parser.add_argument(
        "--only", choices=["overhead", "memory", "throughput"], help="one part of three"
    )
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--repetitions", type=int, default=7)
    parser.add_argument("-n", "--tokens", type=int, default=128, help="of each text")
    day = datetime.now(timezone.utc).date().isoformat()
    parser.add_argument(
        "-o", "--output", type=Path, default=HERE / "results" / f"overhead-{day}.json"
    )
    args = parser.parse_args()
    model = find_model(args.model)
    if args.memory_only:
        print(json.dumps(memory_cycles(model, args.threads, 5)))
        return
    options = f"-t {args.threads} -r {args.repetitions} -n {args.tokens}"
    record: dict[str, Any] = {
        "date": day,
        "command": f"python benchmarks/overhead.py {model.name} {options}",
        "machine": describe_machine(),
        "model": {"file": model.name, "bytes": model.stat().st_size},
        "threads": args.threads,
    }
    if args.only in (None, "overhead"):
        shape = (model, args.threads, args.tokens, args.repetitions)
        record["overhead"] = measure_overhead(*shape)
        record["wall"] = measure_wall(*shape)
    if args.only in (None, "memory"):
        record["memory"] = measure_memory(model, args.threads)
    if args.only in (None, "throughput"):
        pythons = {OWN: sys.executable}
        if not args.no_peer:
            pythons[PEER] = peer_python(args.peer_venv)
        text = (HERE.parent / "tests" / "data" / "english.txt").read_text(encoding="utf-8")
        record["throughput"] = {
            file.name: measure_throughput(
                pythons, file, args.threads, args.tokens // 2, args.repetitions, text
            )
            for file in (model, find_model("q4_0@135m"))
        }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print_tables(record)
    print(f"\nWritten to {args.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
