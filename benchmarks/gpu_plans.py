"""What of LLaMA's models a small GPU takes: the tables of docs/gpu.md, from files without data.

    python benchmarks/gpu_plans.py [--vram 4]

Writes headers in the models' shapes, with the types that `pyllamacpp quantize` gives each tensor,
and asks the plan. Speeds are arithmetic: bytes over bandwidths, for a card and a memory as named.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from pathlib import Path

import gguf
import numpy as np
from pyllamacpp_convert.mixture import choose_types

from pyllamacpp import _core, kernels

# layers, width, feed-forward width, heads
SHAPES = {
    "7B": (32, 4096, 11008, 32),
    "13B": (40, 5120, 13824, 40),
    "33B": (60, 6656, 17920, 52),
    "65B": (80, 8192, 22016, 64),
}
FILE_TYPES = ("q4_0", "q4_k_m", "q3_k_m", "q2_k")
N_VOCAB = 32000
# What is assumed of a machine, in bytes per second that are really reached, and of a change between
# CPU and GPU, in seconds.
GPU_RATE = 128e9 * 0.6  # a card of 128 GB/s
CPU_RATE = 51.2e9 * 0.8  # two channels of DDR4-3200
CROSSING = 1e-4


def write_header(path: Path, shape: str, file_type: str) -> None:
    """A file of that shape whose weights are a hole: zeros that take no room on the disk."""
    n_layers, dim, n_ff, n_heads = SHAPES[shape]
    tensors: list[tuple[str, tuple[int, ...]]] = [("token_embd.weight", (N_VOCAB, dim))]
    for i in range(n_layers):
        p = f"blk.{i}."
        tensors += [(p + f"attn_{part}.weight", (dim, dim)) for part in ("q", "k", "v", "output")]
        tensors += [(p + f"ffn_{part}.weight", (n_ff, dim)) for part in ("gate", "up")]
        tensors += [(p + "ffn_down.weight", (dim, n_ff))]
        tensors += [(p + f"{part}_norm.weight", (dim,)) for part in ("attn", "ffn")]
    tensors += [("output_norm.weight", (dim,)), ("output.weight", (N_VOCAB, dim))]
    types, _ = choose_types(
        file_type, tensors, n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_heads
    )
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(n_layers)
    w.add_context_length(4096)
    w.add_embedding_length(dim)
    w.add_feed_forward_length(n_ff)
    w.add_head_count(n_heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_tokenizer_model("llama")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    kinds = [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.BYTE] * 256
    tokens += [f"w{i}" for i in range(N_VOCAB - len(tokens))]
    w.add_token_list(tokens)
    w.add_token_scores([0.0] * N_VOCAB)
    w.add_token_types(kinds + [gguf.TokenType.NORMAL] * (N_VOCAB - len(kinds)))
    size = 0
    for name, dims in tensors:
        dtype = types.get(name, "f32")
        row = kernels.bytes_of(dtype, dims[-1])
        n_bytes = row * (dims[0] if len(dims) > 1 else 1)
        raw = gguf.GGMLQuantizationType(kernels.TYPE_IDS[dtype])
        w.add_tensor_info(name, (*dims[:-1], row), np.dtype(np.uint8), n_bytes, raw)
        size += -(-n_bytes // 32) * 32
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    w.close()
    header = -(-path.stat().st_size // 32) * 32
    os.truncate(path, header + size)


def cell(path: Path, n_ctx: int, vram: int) -> str:
    """Layers, gigabytes and tokens per second of a plan."""
    plan = _core.plan_memory(
        str(path),
        n_ctx=n_ctx,
        repack="never",
        n_gpu_layers=-1,
        gpu_available=vram,
        available=1 << 40,
    )
    gpu, parts = plan.gpu, plan.parts
    seconds = sum((p.weights + p.kv) / (GPU_RATE if p.on_gpu else CPU_RATE) for p in parts)
    seconds += CROSSING * sum(a.on_gpu != b.on_gpu for a, b in itertools.pairwise(parts))
    layers = f"{gpu.n_layers} of {len(parts) // 2 + 1}"
    if gpu.n_cpu_ffn:
        layers += f" (-{gpu.n_cpu_ffn})"
    alone = sum(p.weights + p.kv for p in parts) / CPU_RATE
    return f"{layers} | {gpu.total / 1e9:.2f} | {1 / seconds:.1f} | {1 / alone:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vram", type=float, default=4.0, help="GiB of the card")
    parser.add_argument("--write", metavar="SHAPE,TYPE,OUT", help="only write one file, and stop")
    options = parser.parse_args()
    if options.write:
        shape, file_type, out = options.write.split(",")
        write_header(Path(out), shape, file_type)
        return
    with tempfile.TemporaryDirectory() as folder:
        for n_ctx in (2048, 4096):
            print(f"\n{n_ctx} tokens\n")
            print("| model | type | file, GB | layers | GPU, GB | tokens/s | CPU alone |")
            print("|---|---|---|---|---|---|---|")
            for shape in SHAPES:
                for file_type in FILE_TYPES:
                    path = Path(folder) / f"{shape}-{file_type}.gguf"
                    write_header(path, shape, file_type)
                    size = path.stat().st_size / 1e9
                    row = cell(path, n_ctx, int(options.vram * 2**30))
                    print(f"| {shape} | {file_type} | {size:.1f} | {row} |", flush=True)


if __name__ == "__main__":
    main()
