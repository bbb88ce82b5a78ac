"""Converts eight shards of LLaMA 65B's true size, whose weights are holes on the disk.

    python benchmarks/convert_65b.py [--type q4_k_m] [--folder DIR] [--threads N]

Writes some 40 GB (q2_k: 24 GB; chosen where less is free), all of which is removed. What is printed
is time, weights per second, and the peak of memory that the system counted for the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests" / folder) for folder in ("convert", "text")]
from checkpoints import write_sparse_meta  # noqa: E402
from vocab_cases import real  # noqa: E402

PARAMS = {"dim": 8192, "multiple_of": 256, "n_heads": 64, "n_layers": 80, "norm_eps": 1e-5}
N_FF, N_SHARDS = 22016, 8
# The output matrix, all zeros like the embedding, is stored once with it.
N_WEIGHTS = 65_285_660_672 - 32000 * 8192
NEEDED = {"q4_k_m": 42e9, "q2_k": 27e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--type", choices=NEEDED, help="by default the larger that fits")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    free = shutil.disk_usage(arguments.folder).free
    kind = arguments.type or next((name for name, n in NEEDED.items() if n < free), None)
    if kind is None or NEEDED[kind] > free:
        sys.exit(
            f"{arguments.folder} has {free / 1e9:.0f} GB free, {min(NEEDED.values()):.0e} needed"
        )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        source = write_sparse_meta(folder / "65B", PARAMS | {"vocab_size": -1}, N_SHARDS, N_FF)
        vocab, out = real("mistral-common", "tokenizer.model.v1"), folder / "out.gguf"
        command = [sys.executable, "-m", "pyllamacpp", "convert", source, "-o", out]
        command += ["--type", kind, "--vocab", vocab]
        if arguments.threads:
            command += ["--threads", str(arguments.threads)]
        began = time.monotonic()
        subprocess.run(command, check=True, cwd=folder)
        seconds = time.monotonic() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        result = {
            "type": kind,
            "shards": N_SHARDS,
            "weights": N_WEIGHTS,
            "bytes": out.stat().st_size,
            "seconds": round(seconds, 1),
            "million_weights_per_second": round(N_WEIGHTS / seconds / 1e6, 1),
            "peak_memory_mb": round(peak / 1e6),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
