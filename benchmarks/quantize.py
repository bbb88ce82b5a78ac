"""Measures the quantizers beside llama-cpp-python's: parameters per second, and the error left.

    python benchmarks/quantize.py [MODEL.gguf] [--peer-venv DIR] [--repetitions N] [--threads N]
                                 [--types NAME ...] [--mixtures NAME ...]

MODEL holds floats; by default the default model, expanded to f16. Its weights are cut into rows of
1536, which every type can hold, so that both engines quantize the same numbers in every type. Each
run is a process of its own, timed inside around the one call that quantizes a file; the two
engines take turns, and each ratio is taken within a pair of turns. The error is the root mean
square over all matrices, relative to that of the weights, of pure files (every matrix in the type).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from compare import OWN, PEER, PEER_VERSION, describe_machine, peer_python
from pyllamacpp_convert import quantize_gguf
from pyllamacpp_convert.gguf_file import GgufRows, read_gguf
from pyllamacpp_convert.mixture import FILE_TYPES, is_quantizable
from pyllamacpp_convert.pipeline import Job, write_gguf
from pyllamacpp_convert.writer import TensorSpec

from pyllamacpp.kernels import dequantize
from pyllamacpp.models import resolve_model

HERE = Path(__file__).resolve().parent
COLUMNS = 1536
# Every quantized type, pure; then mixtures as they are used.
PURE = ["q8_0", "q6_k", "q5_1", "q5_k_s", "q5_0", "q4_1", "q4_k_s", "q4_0", "iq4_nl", "iq4_xs"]
PURE += ["q3_k_s", "q2_k"]
MIXED = ["f16", "q4_k_m", "q5_k_m", "q3_k_m", "q2_k"]

OWN_RUN = """
import sys, time
from pyllamacpp_convert import quantize_gguf

source, target, file_type, pure, threads = sys.argv[1:]
began = time.perf_counter()
quantize_gguf(source, target, file_type, pure=pure == "1", n_threads=int(threads), force=True)
print(time.perf_counter() - began)
"""
PEER_RUN = """
import sys, time
import llama_cpp

source, target, file_type, pure, threads = sys.argv[1:]
params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.pure, params.nthread = int(file_type), pure == "1", int(threads)
began = time.perf_counter()
code = llama_cpp.llama_model_quantize(source.encode(), target.encode(), params)
print(time.perf_counter() - began)
sys.exit(code)
"""


def seconds(python: str, code: str, *arguments: object) -> float:
    # Away from the checkout: its source tree must not be imported in place of the package.
    done = subprocess.run(
        [python, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tempfile.gettempdir(),
    )
    if done.returncode != 0:
        raise SystemExit(f"{arguments[2]}: {done.stderr[-500:]}")
    return float(done.stdout.split()[-1])


class Recut:
    """The weights of a matrix, in rows of COLUMNS; what does not fill a row is left out."""

    def __init__(self, tensor: GgufRows) -> None:
        self._tensor = tensor
        self.dtype = tensor.dtype
        self.shape = (math.prod(tensor.shape) // COLUMNS, COLUMNS)

    def read(self, first: int, last: int) -> np.ndarray:
        columns = self._tensor.shape[-1]
        begin, end = first * COLUMNS, last * COLUMNS
        rows = self._tensor.read(begin // columns, -(-end // columns)).reshape(-1)
        start = begin - begin // columns * columns
        return rows[start : start + end - begin].reshape(-1, COLUMNS)


def recut(source: Path, target: Path, threads: int) -> None:
    model = read_gguf(source)
    jobs = []
    for name, tensor in model.tensors.items():
        rows = Recut(tensor) if is_quantizable(name, tensor.shape) else tensor
        jobs.append(Job(TensorSpec(name, rows.shape, rows.dtype), rows))
    metadata = model.metadata | {
        "general.architecture": model.metadata["general.architecture"].value
    }
    write_gguf(target, metadata, jobs, n_threads=threads, identity={})


def relative_error(source: Path, quantized: Path) -> float:
    error = energy = 0.0
    stored = read_gguf(quantized).tensors
    for name, tensor in read_gguf(source).tensors.items():
        if not is_quantizable(name, tensor.shape):
            continue
        rows = max(1, (1 << 22) // tensor.shape[-1])
        for first in range(0, tensor.shape[0], rows):
            last = min(first + rows, tensor.shape[0])
            x, y = (
                dequantize(t.dtype, t.read(first, last), (last - first) * t.shape[-1])
                for t in (tensor, stored[name])
            )
            error += float(np.sum(np.square(x - y), dtype=np.float64))
            energy += float(np.sum(np.square(x), dtype=np.float64))
    return math.sqrt(error / energy)


def measure(
    python: str, base: Path, file_type: str, pure: bool, repetitions: int, threads: int
) -> dict[str, Any]:
    """Millions of parameters per second in each turn, and the errors of pure files."""
    n_params = sum(math.prod(tensor.shape) for tensor in read_gguf(base).tensors.values())
    targets = {OWN: base.with_name("own.gguf"), PEER: base.with_name("peer.gguf")}
    speeds: dict[str, list[float]] = {OWN: [], PEER: []}
    for _ in range(repetitions):
        for engine, target in targets.items():
            own = engine == OWN
            took = seconds(
                sys.executable if own else python,
                OWN_RUN if own else PEER_RUN,
                *(base, target, file_type if own else FILE_TYPES[file_type].number),
                *(int(pure), threads),
            )
            speeds[engine].append(n_params / took / 1e6)
    ratios = [a / b for a, b in zip(speeds[OWN], speeds[PEER], strict=True)]
    found: dict[str, Any] = {
        "pure": pure,
        "million_per_s": speeds,
        "speed_ratio": statistics.median(ratios),
    }
    if pure:
        errors = {engine: relative_error(base, target) for engine, target in targets.items()}
        found |= {"error": errors, "error_ratio": errors[OWN] / errors[PEER]}
    for target in targets.values():
        target.unlink()
    return found


def row(file_type: str, found: dict[str, Any]) -> str:
    speeds = [statistics.median(found["million_per_s"][engine]) for engine in (OWN, PEER)]
    cells = [f"{file_type}{' --pure' if found['pure'] else ''}"]
    cells += [*(f"{speed:.0f}" for speed in speeds), f"{found['speed_ratio']:.2f}"]
    if found["pure"]:
        cells += [*(f"{found['error'][e]:.5f}" for e in (OWN, PEER)), f"{found['error_ratio']:.4f}"]
    else:
        cells += ["", "", ""]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    cache = Path(os.environ.get("PYLLAMACPP_CACHE", "~/.cache/pyllamacpp")).expanduser()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--peer-venv", type=Path, default=cache / f"{PEER}-{PEER_VERSION}")
    parser.add_argument("-r", "--repetitions", type=int, default=3)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--types", nargs="*", choices=PURE, default=PURE, help="pure files")
    parser.add_argument("--mixtures", nargs="*", choices=MIXED, default=MIXED)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results/quantize.json")
    args = parser.parse_args()
    python = peer_python(args.peer_venv)
    runs = [(name, True) for name in args.types] + [(name, False) for name in args.mixtures]
    record: dict[str, Any] = {"machine": describe_machine(), "threads": args.threads, "rows": {}}
    with tempfile.TemporaryDirectory() as folder:
        source, base = args.model, Path(folder) / "base.gguf"
        if source is None:
            source = Path(folder) / "f16.gguf"
            quantize_gguf(resolve_model(None), source, "f16")
        recut(source, base, args.threads)
        print(f"| type | {OWN}, million/s | {PEER} {PEER_VERSION} | ratio | error | its | ratio |")
        print("|---|---|---|---|---|---|---|")
        for name, pure in runs:
            found = measure(python, base, name, pure, args.repetitions, args.threads)
            record["rows"][f"{name}{' --pure' if pure else ''}"] = found
            print(row(name, found), flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=2) + "\n")
    worse = [name for name, found in record["rows"].items() if found.get("error_ratio", 0) > 1]
    if worse:
        sys.exit(f"larger errors than the peer's: {', '.join(worse)}")


if __name__ == "__main__":
    main()
