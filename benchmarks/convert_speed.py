"""Times conversion of a checkpoint of 1.1B weights beside copying its files on the same disk.

    python benchmarks/convert_speed.py [--types f16 q8_0 q4_k_m] [--folder DIR] [-r N] [--threads N]

The checkpoint is LLaMA 2's layout (bf16, two shards) in TinyLlama's shape, random weights. Turns
alternate: a copy of the shards, flushed to the disk, then a conversion to each type as a process
of its own, start and flushing included. Sources are dropped from the page cache before each turn,
so both read the disk; --warm leaves them there. The share is the copy's time over the conversion's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import describe_machine

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests" / folder) for folder in ("convert", "text")]
from checkpoints import random_weights, write_meta  # noqa: E402
from vocab_cases import real  # noqa: E402

N_VOCAB, N_FF = 32000, 5632
PARAMS = {
    "dim": 2048, "multiple_of": 256, "n_heads": 32, "n_kv_heads": 4, "n_layers": 22,
    "norm_eps": 1e-5, "vocab_size": N_VOCAB,
}  # fmt: skip


def drop_from_cache(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.glob("*.pth"):
        shutil.copyfile(path, target / path.name)
        with (target / path.name).open("rb+") as file:
            os.fsync(file.fileno())


def convert(source: Path, target: Path, kind: str, threads: int | None) -> None:
    command = [sys.executable, "-m", "pyllamacpp", "convert", source, "-o", target / "out.gguf"]
    command += ["--type", kind, "--vocab", real("mistral-common", "tokenizer.model.v1")]
    command += ["--no-checksum"]
    if threads:
        command += ["--threads", str(threads)]
    target.mkdir()
    # Away from the checkout: its source tree must not be imported in place of the package.
    subprocess.run(list(map(str, command)), check=True, cwd=target, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--types", nargs="+", default=["f16", "q8_0", "q4_k_m"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("-r", "--repetitions", type=int, default=3)
    parser.add_argument("-t", "--threads", type=int)
    parser.add_argument("--warm", action="store_true", help="sources stay in the page cache")
    parser.add_argument("-o", "--output", type=Path, help="a JSON file for all that was measured")
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in ("copy", *args.types)}
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        weights = random_weights(PARAMS, N_VOCAB, N_FF, "bf16")
        n_weights = sum(x.size for x in weights.values())
        source = write_meta(folder / "source", weights, PARAMS, 2, "v2", checklist=False)
        del weights
        n_bytes = sum(path.stat().st_size for path in source.glob("*.pth"))
        for _ in range(args.repetitions):
            for kind, times in seconds.items():
                target = folder / "target"
                if not args.warm:
                    drop_from_cache(source)
                os.sync()
                began = time.perf_counter()
                if kind == "copy":
                    copy(source, target)
                else:
                    convert(source, target, kind, args.threads)
                times.append(time.perf_counter() - began)
                shutil.rmtree(target)
    print("| work | seconds (least-most) | GB/s of source | million weights/s | share of copy |")
    print("|---|---|---|---|---|")
    for kind, times in seconds.items():
        middle = statistics.median(times)
        share = statistics.median(a / b for a, b in zip(seconds["copy"], times, strict=True))
        print(
            f"| {kind} | {middle:.2f} ({min(times):.2f}-{max(times):.2f}) "
            f"| {n_bytes / middle / 1e9:.2f} | {n_weights / middle / 1e6:.0f} | {share:.0%} |"
        )
    if args.output is not None:
        record = {"machine": describe_machine(), "bytes": n_bytes, "weights": n_weights}
        args.output.write_text(json.dumps(record | {"seconds": seconds}, indent=2) + "\n")


if __name__ == "__main__":
    main()
