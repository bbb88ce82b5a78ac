"""Tokens per second against the rows of one batch, beside llama-cpp-python, in turn.

    python benchmarks/batch_rows.py [MODEL ...] [--seconds 0.3] [--only pyllamacpp]

"rows": one sequence, a prompt of so many tokens from an empty cache, the last one's logits wanted.
"sequences": one token of each of so many sequences, all logits wanted. MODEL as for compare.py. The
limit is the least of what reading the weights once a batch and what the arithmetic allow, by the
limits that `pyllamacpp bench` measures. plots.py draws the result.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from compare import (
    HERE,
    N_CTX,
    OWN,
    PAUSE,
    PEER,
    Worker,
    describe_machine,
    find_model,
    peer_python,
    peer_venv,
)

ROWS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
SEQUENCES = (1, 2, 4, 8, 16, 32, 64)


def measure_model(model: Path, pythons: dict[str, str], args: argparse.Namespace) -> dict[str, Any]:
    workers: list[Worker] = []
    result: dict[str, Any] = {"file": model.name, "bytes": model.stat().st_size, "curves": {}}
    try:
        workers += [Worker(python, name, model, args.threads) for name, python in pythons.items()]
        own = next((worker for worker in workers if worker.engine == OWN), None)
        for curve, counts in (("rows", ROWS), ("sequences", SEQUENCES)):
            for worker in workers:
                n_seq = max(counts) if curve == "sequences" else 1
                worker.ask("open", n_ctx=N_CTX, kv="f16", n_seq=n_seq)
            limits = own.ask("limits") if own else None
            points = []
            for n in counts:
                point: dict[str, Any] = {"n": n, "tokens_per_s": {}}
                for worker in workers:
                    point["tokens_per_s"][worker.engine] = worker.ask(
                        "rows",
                        tokens=list(range(1000, 1000 + n)),
                        sequences=curve == "sequences",
                        seconds=args.seconds,
                    )
                    time.sleep(PAUSE if len(workers) > 1 else 0)
                if own:
                    what = {"limits": limits, "depth": 0, "kv": "f16"}
                    # Every sequence needs the output matrix, a prompt of one token as well.
                    n_prompt = 1 if curve == "sequences" else n
                    point["limit_tokens_per_s"] = min(
                        n * own.ask("allowed", test="tg", n=1, **what),
                        own.ask("allowed", test="pp", n=n_prompt, **what),
                    )
                points.append(point)
            result["curves"][curve] = {"limits": limits, "points": points}
    finally:
        for worker in workers:
            worker.close()
    return result


def print_table(model: dict[str, Any]) -> None:
    for curve, found in model["curves"].items():
        points = found["points"]
        engines = list(points[0]["tokens_per_s"])
        print(f"\n{model['file']}\n\n| {curve} | " + " | ".join([*engines, "limit"]) + " |")
        print("|" + "---|" * (len(engines) + 2))
        for point in points:
            speeds = [*point["tokens_per_s"].values(), point.get("limit_tokens_per_s", 0.0)]
            print(f"| {point['n']} | " + " | ".join(f"{speed:.0f}" for speed in speeds) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["default", "q4_0@1.1b", "q4_k@1.1b"])
    parser.add_argument("--peer-venv", type=Path, default=peer_venv(PEER))
    parser.add_argument("--only", choices=[OWN, PEER], help="measure one engine alone")
    parser.add_argument("--seconds", type=float, default=0.3, help="a point, at least 3 batches")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "batch_rows.json")
    args = parser.parse_args()
    pythons = {}
    if args.only != PEER:
        pythons[OWN] = sys.executable
    if args.only != OWN:
        pythons[PEER] = peer_python(args.peer_venv)
    record: dict[str, Any] = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/batch_rows.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "threads": args.threads,
        "models": [],
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for name in args.models:
        record["models"].append(measure_model(find_model(name), pythons, args))
        args.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print_table(record["models"][-1])


if __name__ == "__main__":
    main()
