"""Writes a GGUF of random weights in the shape of a real model, to time what cannot be fetched.

    python benchmarks/random_model.py q4_k OUT.gguf [--shape tinyllama]

Every matrix is of the type, but for the output matrix of K types, which is q6_k as in the files
that people use. The text such a model writes is noise; its speed is that of the real one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gguf
import numpy as np

from pyllamacpp import kernels

# layers, width, feed-forward width, heads, KV heads, vocabulary
SHAPES = {
    "tinyllama": (22, 2048, 5632, 32, 4, 32000),
    "llama-7b": (32, 4096, 11008, 32, 32, 32000),
}
# Where a block keeps its float16 scales.
SCALES_AT = {
    "q4_0": (0,), "q4_1": (0, 2), "q5_0": (0,), "q5_1": (0, 2), "q8_0": (0,), "iq4_nl": (0,),
    "q2_k": (80, 82), "q3_k": (108,), "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,),
    "iq4_xs": (0,),
}  # fmt: skip


def random_blocks(rng: np.random.Generator, dtype: str, n: int, rms: float) -> np.ndarray:
    """Bytes of n weights of that root mean square."""
    block = 256 if dtype.endswith(("_k", "_xs")) else 32
    raw = rng.integers(0, 256, (n // block, kernels.bytes_of(dtype, block)), np.uint8)

    def set_scales(scale: float) -> None:
        for at in SCALES_AT[dtype]:
            raw[:, at : at + 2] = np.frombuffer(np.float16(scale).tobytes(), np.uint8)

    set_scales(1)
    sample = min(n, 1 << 16)
    size = np.sqrt(np.mean(np.square(kernels.dequantize(dtype, raw.reshape(-1), sample))))
    set_scales(rms / float(size))
    return raw


def write(path: Path, dtype: str, shape: str) -> None:
    n_layers, dim, n_ff, n_heads, n_kv_heads, n_vocab = SHAPES[shape]
    kv_dim = dim // n_heads * n_kv_heads
    rng = np.random.default_rng(0)
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(n_layers)
    w.add_context_length(32768)
    w.add_embedding_length(dim)
    w.add_feed_forward_length(n_ff)
    w.add_head_count(n_heads)
    w.add_head_count_kv(n_kv_heads)
    w.add_rope_dimension_count(dim // n_heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_tokenizer_model("llama")
    byte_tokens = [f"<0x{b:02X}>" for b in range(256)]
    words = [f"w{i}" for i in range(n_vocab - 3 - 256)]
    kinds = gguf.TokenType
    w.add_token_list(["<unk>", "<s>", "</s>", *byte_tokens, *words])
    w.add_token_scores([0.0] * 259 + [-float(i) for i in range(len(words))])
    w.add_token_types(
        [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL]
        + [kinds.BYTE] * 256
        + [kinds.NORMAL] * len(words)
    )
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)

    def matrix(name: str, rows: int, cols: int, kind: str = dtype) -> None:
        blocks = random_blocks(rng, kind, rows * cols, cols**-0.5)
        raw_type = gguf.GGMLQuantizationType(kernels.TYPE_IDS[kind])
        w.add_tensor(name, blocks.reshape(rows, -1), raw_dtype=raw_type)

    def vector(name: str) -> None:
        w.add_tensor(name, np.ones(dim, np.float32))

    matrix("token_embd.weight", n_vocab, dim)
    for i in range(n_layers):
        p = f"blk.{i}."
        vector(p + "attn_norm.weight")
        matrix(p + "attn_q.weight", dim, dim)
        matrix(p + "attn_k.weight", kv_dim, dim)
        matrix(p + "attn_v.weight", kv_dim, dim)
        matrix(p + "attn_output.weight", dim, dim)
        vector(p + "ffn_norm.weight")
        matrix(p + "ffn_gate.weight", n_ff, dim)
        matrix(p + "ffn_up.weight", n_ff, dim)
        matrix(p + "ffn_down.weight", dim, n_ff)
    vector("output_norm.weight")
    matrix("output.weight", n_vocab, dim, "q6_k" if dtype.endswith(("_k", "_xs")) else dtype)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dtype", choices=SCALES_AT)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="tinyllama")
    options = parser.parse_args()
    write(options.out, options.dtype, options.shape)


if __name__ == "__main__":
    main()
