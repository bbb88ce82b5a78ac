"""Instructions of a prompt and of a decode step, counted by valgrind's callgrind: no noise.

    python benchmarks/instructions.py [MODEL ...] [--isa avx2] [--repack auto]

Counts are differences between runs of a process of its own that load the model and then evaluate
nothing, a prompt of 32 tokens, or that prompt and 4 more tokens one by one, each after the greedy
choice of the last (numpy's argmax is counted). One thread, so that no waiting is counted. valgrind
knows no AVX-512: the tier is avx2 unless named. Needs valgrind; takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compare import HERE, describe_machine, find_model

N_PROMPT, N_STEPS = 32, 4
RUN = """
import sys
from pyllamacpp import _core
path, isa, repack, n_prompt, n_steps = sys.argv[1:]
if _core.isa() != isa:
    sys.exit(f"the tier is {_core.isa()}, not {isa}")
model = _core.Model(path, n_threads=1, repack=repack)
context = _core.Context(model, n_ctx=512, n_threads=1, n_threads_batch=1)
batches = [list(range(1000, 1000 + int(n_prompt)))] if int(n_prompt) else []
for i in range(len(batches) + int(n_steps)):
    batch = batches[0] if i == 0 else [int(context.logits()[0].argmax())]
    context.decode([(0, batch, "last")])
"""


def count(model: Path, isa: str, repack: str, n_prompt: int, n_steps: int) -> int:
    """Instructions of a whole process."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        command += [sys.executable, "-c", RUN, str(model), isa, repack]
        command += [str(n_prompt), str(n_steps)]
        # Not the same hashes in two runs would be other work for Python.
        env = os.environ | {"PYLLAMACPP_ISA": isa, "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, check=False
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        raise SystemExit(f"{shlex.join(command[:3])}: {done.stderr[-1000:]}")
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=["default"], help="as for compare.py")
    parser.add_argument("--isa", default="avx2")
    parser.add_argument("--repack", default="auto")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "instructions.json")
    args = parser.parse_args()
    record: dict[str, Any] = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/instructions.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "version": version("pyllamacpp"),
        "isa": args.isa,
        "repack": args.repack,
        "models": {},
    }
    print(f"| file | Python, load and pack | prompt of {N_PROMPT} tokens | one decode step |")
    print("|---|---|---|---|")
    for name in args.models:
        model = find_model(name)
        load = count(model, args.isa, args.repack, 0, 0)
        prompt = count(model, args.isa, args.repack, N_PROMPT, 0)
        steps = count(model, args.isa, args.repack, N_PROMPT, N_STEPS)
        found = {"load": load, "prompt": prompt - load, "step": (steps - prompt) / N_STEPS}
        record["models"][model.name] = found
        cells = [f"{value / 1e6:.1f} M" for value in found.values()]
        print(f"| {model.name} | " + " | ".join(cells) + " |", flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
