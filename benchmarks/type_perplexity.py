"""Perplexity and KL divergence of the default model in every file type, beside llama-cpp-python's.

    python benchmarks/type_perplexity.py [--windows 12] [--types q5_k_m,q6_k] [--wide]

Of each file three runs are made: ours, the peer's, and one in float32 arithmetic on the same
weights, which the gguf package expands (float32 keys and values, our engine). The KL divergence of
either engine is from that run's predictions, which tells the arithmetic's error alone, and from
those of the float32 file, which adds the type's own.

The peer writes the files: the default model's weights as float32, then each type from that. Rows of
the model have 576 values, which blocks of 256 do not divide: of the K types' files only the
feed-forward's down projections (1536) are of the type itself, the rest is what the peer falls back
to. With --wide the float32 file is widened with zeros to 768, and to 12 heads of which 3 do
nothing, which changes no logit: then every matrix is of the type. Exit code 1 if a perplexity
differs from the peer's or from float32 arithmetic's by more than half a percent.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from compare import (
    HERE,
    N_CTX,
    OWN,
    PEER,
    PEER_VERSION,
    Worker,
    default_model,
    describe_machine,
    peer_python,
    peer_venv,
    windows_of,
)

MOST = 0.005
EXACT = "float32 arithmetic"
# File types by the numbers of llama.cpp's enum llama_ftype.
TYPES = {
    "f32": 0,
    "f16": 1,
    "bf16": 32,
    "q8_0": 7,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 8,
    "q5_1": 9,
    "q2_k": 10,
    "q3_k_s": 11,
    "q3_k_m": 12,
    "q3_k_l": 13,
    "q4_k_s": 14,
    "q4_k_m": 15,
    "q5_k_s": 16,
    "q5_k_m": 17,
    "q6_k": 18,
    "iq4_nl": 25,
    "iq4_xs": 30,
}
QUANTIZE = """
import sys, llama_cpp
source, target, number = sys.argv[1:]
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = int(number)
params.allow_requantize = True
sys.exit(llama_cpp.llama_model_quantize(source.encode(), target.encode(), params))
"""


def quantize(python: str, source: Path, target: Path, number: int) -> None:
    command = [python, "-c", QUANTIZE, str(source), str(target), str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{PEER} could not write {target.name}: {done.stderr[-500:]}")


WIDE, N_HEADS, N_KV_HEADS = 768, 12, 4


def padded(values: np.ndarray, *shape: int) -> np.ndarray:
    return np.pad(values, [(0, n - m) for n, m in zip(shape, values.shape, strict=True)])


def widen(source: Path, target: Path) -> None:
    """A float32 LLaMA file with zeros for the columns and heads that fill blocks of 256.

    The mean of squares that a norm divides by is of more values then: its weights and epsilon make
    up for that.
    """
    reader = gguf.GGUFReader(source)
    dim = int(reader.fields["llama.embedding_length"].contents())
    head_dim = dim // int(reader.fields["llama.attention.head_count"].contents())
    changes = {
        "llama.embedding_length": WIDE,
        "llama.attention.head_count": N_HEADS,
        "llama.attention.head_count_kv": N_KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": reader.fields[
            "llama.attention.layer_norm_rms_epsilon"
        ].contents()
        * dim
        / WIDE,
    }
    writer = gguf.GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, changes.get(name, field.contents()), kind, sub_type=inner)
    q_rows, kv_rows = N_HEADS * head_dim, N_KV_HEADS * head_dim
    for tensor in reader.tensors:
        values = np.array(tensor.data, dtype=np.float32)
        if values.ndim == 1:
            wide = padded(values, WIDE) * np.float32(math.sqrt(dim / WIDE))
        elif "attn_q" in tensor.name:
            wide = padded(values, q_rows, WIDE)
        elif "attn_k" in tensor.name or "attn_v" in tensor.name:
            wide = padded(values, kv_rows, WIDE)
        elif "attn_output" in tensor.name:
            wide = padded(values, WIDE, q_rows)
        elif "ffn_down" in tensor.name:
            wide = padded(values, WIDE, values.shape[1])
        else:
            wide = padded(values, values.shape[0], WIDE)
        writer.add_tensor(tensor.name, wide)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def expand(source: Path, target: Path) -> None:
    """The same weights in float32."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, np.ascontiguousarray(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Run:
    """Log-probabilities [n, n_vocab], float32, of every window in files of a folder."""

    def __init__(self, folder: Path, worker: Worker, kv: str, windows: list[list[int]]) -> None:
        self.folder = folder
        folder.mkdir()
        worker.ask("open", n_ctx=N_CTX, kv=kv, n_seq=1)
        for i, window in enumerate(windows):
            path = folder / f"{i}.npy"
            worker.ask("window_logits", tokens=window, path=str(path))
            logits = np.load(path)
            logits -= logits.max(axis=1, keepdims=True)
            logits -= np.log(np.exp(logits).sum(axis=1, dtype=np.float64))[:, None]
            np.save(path, logits)
        worker.close()

    def log_probs(self, window: int) -> np.ndarray:
        values: np.ndarray = np.load(self.folder / f"{window}.npy", mmap_mode="r")
        return values

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def measure(
    runs: dict[str, Run], exact: dict[str, Run], windows: list[list[int]]
) -> dict[str, dict[str, float]]:
    """Perplexity of each run, and mean KL divergence and share of equal best tokens to `exact`."""
    sums: dict[str, dict[str, list[float]]] = {name: {} for name in runs}

    def add(name: str, key: str, values: np.ndarray) -> None:
        sums[name].setdefault(key, []).extend(values.astype(np.float64).tolist())

    for i, window in enumerate(windows):
        targets = np.array(window[len(window) // 2 + 1 :])
        right = {name: run.log_probs(i) for name, run in exact.items()}
        probs = {name: np.exp(values) for name, values in right.items()}
        best = {name: values.argmax(axis=1) for name, values in right.items()}
        for name, run in runs.items():
            found = run.log_probs(i)
            add(name, "nll", -found[np.arange(targets.size), targets])
            for other in exact:
                if run is exact[other]:
                    continue
                divergence = np.einsum("ij,ij->i", probs[other], right[other] - found)
                add(name, f"kl_{other}", divergence)
                add(name, f"same_best_{other}", best[other] == found.argmax(axis=1))
    result: dict[str, dict[str, float]] = {}
    for name, lists in sums.items():
        means = {key: float(np.mean(values)) for key, values in lists.items()}
        result[name] = {"perplexity": math.exp(means.pop("nll"))} | means
    # Of the difference between ours and the peer's, position by position.
    for key in (f"kl_{other}" for other in exact):
        differences = np.subtract(sums[OWN][key], sums[PEER][key])
        error = float(differences.std(ddof=1)) / math.sqrt(differences.size)
        result[OWN][f"{key}_less_peer_error"] = error
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-venv", type=Path, default=peer_venv(PEER))
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--types", default=",".join(TYPES), help="file types, parted by commas")
    parser.add_argument("--wide", action="store_true", help="K types in every matrix")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results/type_perplexity.json")
    args = parser.parse_args()
    python = peer_python(args.peer_venv)
    text = (HERE.parent / "tests" / "data" / "english.txt").read_text(encoding="utf-8")
    worst = 0.0
    record: dict[str, Any] = {
        "command": shlex.join(["python", "benchmarks/type_perplexity.py", *sys.argv[1:]]),
        "machine": describe_machine(),
        "windows": args.windows,
        "types": {},
    }
    heads = [f"perplexity, {EXACT}", f"{OWN}", f"{PEER} {PEER_VERSION}", f"{OWN} to {EXACT}"]
    heads += ["to the peer", f"KL to {EXACT}, {OWN}", "peer", "difference"]
    heads += [f"KL to the f32 file, {OWN}", "peer", "difference"]
    print("| file type | " + " | ".join(heads) + " |\n|" + "---|" * (len(heads) + 1))
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        base = here / "base.gguf"
        quantize(python, default_model(), base, TYPES["f32"])
        if args.wide:
            narrow = base.rename(base.with_name("narrow.gguf"))
            widen(narrow, base)
            narrow.unlink()

        def worker(engine: str, path: Path) -> Worker:
            return Worker(sys.executable if engine == OWN else python, engine, path, args.threads)

        first = worker(OWN, base)
        windows = windows_of(first.ask("tokenize", text=text), args.windows)
        record["isa"] = first.ask("describe")["isa"]
        float32 = Run(here / "float32", first, "f32", windows)
        for name in args.types.split(","):
            path, exact = base, float32
            if name != "f32":
                path, expanded = here / f"{name}.gguf", here / "expanded.gguf"
                quantize(python, base, path, TYPES[name])
                expand(path, expanded)
                exact = Run(here / "exact", worker(OWN, expanded), "f32", windows)
                expanded.unlink()
            runs = {EXACT: exact}
            for engine in (OWN, PEER):
                runs[engine] = Run(here / engine, worker(engine, path), "f16", windows)
            found = measure(runs, {"exact": exact, "float32": float32}, windows)
            for run in runs.values():
                if run is not float32:
                    run.remove()
            if path != base:
                path.unlink()
            own, peer, right = found[OWN], found[PEER], found[EXACT]
            ratios = [own["perplexity"] / other["perplexity"] for other in (right, peer)]
            worst = max(worst, *(abs(math.log(ratio)) for ratio in ratios))
            record["types"][name] = found
            cells = [f"{one['perplexity']:.4f}" for one in (right, own, peer)]
            cells += [f"{ratio:.4f}" for ratio in ratios]
            for kl in ("kl_exact", "kl_float32"):
                less, error = own[kl] - peer[kl], own[f"{kl}_less_peer_error"]
                cells += [f"{own[kl]:.6f}", f"{peer[kl]:.6f}", f"{less:+.6f} (error {error:.6f})"]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text(json.dumps(record, indent=2) + "\n")
    if worst > math.log1p(MOST):
        sys.exit("a perplexity differs by more than half a percent")


if __name__ == "__main__":
    main()
