"""Seeds for fuzz_gguf: tiny models of many types and variants, split ones, and a dictionary.

    python tests/native/fuzz_seeds.py CORPUS_FOLDER DICTIONARY

Each model has a vocabulary of a few tokens and rows of 32 or 256 values, so that most of a file is
header; the fuzzer does the mutating.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "oracle"))
from tiny_model import TinyModel

Q = gguf.GGMLQuantizationType
NEXT_PART = b"\n--next part--\n"  # kNextPart of fuzz_gguf.cpp

SPM = {
    "model": "llama",
    "tokens": ["<unk>", "<s>", "</s>", "\u2581", "a", "b", "\u2581a", "ab", "<0x41>", "<|user|>"],
    "types": [2, 3, 3, 1, 1, 1, 1, 1, 6, 4],
}
# The characters that stand for bytes in byte-level vocabularies.
VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTES = [chr(b) for b in VISIBLE] + [chr(0x100 + i) for i in range(256 - len(VISIBLE))]
BPE = {
    "model": "gpt2",
    "tokens": [*BYTES, "ab", "\u0120a", "<|im_end|>"],
    "types": [1] * 258 + [3],
    "merges": ["a b", "\u0120 a"],
}
PRE_TOKENIZERS = ("llama-bpe", "smollm", "gpt-2", "qwen2", "deepseek-llm")

SHAPE = {"n_layers": 1, "n_embd": 32, "n_ff": 32, "n_heads": 2, "n_kv_heads": 1, "n_ctx": 64}
YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 16,
}
LONGROPE = {"rope.scaling.type": "longrope", "rope.scaling.attn_factor": 1.2}
FACTORS = {
    f"rope_factors_{which}.weight": np.linspace(1, 2, 8, dtype=np.float32)
    for which in ("short", "long")
}


def write(path: Path, model: TinyModel, vocab: dict, type_: Q, pre: str, parts: int = 1) -> Path:
    """Writes the model with this vocabulary and type of matrices; returns the path."""
    split = {"split_max_tensors": 6, "small_first_shard": False} if parts > 1 else {}
    writer = gguf.GGUFWriter(path, model.architecture, **split)
    writer.add_block_count(model.n_layers)
    writer.add_context_length(model.n_ctx)
    writer.add_embedding_length(model.n_embd)
    writer.add_feed_forward_length(model.n_ff)
    writer.add_head_count(model.n_heads)
    writer.add_head_count_kv(model.n_kv_heads)
    writer.add_layer_norm_rms_eps(model.norm_eps)
    writer.add_rope_freq_base(model.rope_theta)
    if model.head_dim:
        writer.add_key_length(model.head_dim)
        writer.add_value_length(model.head_dim)
    for key, value in model.metadata.items():
        name = f"{model.architecture}.{key}"
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_float32(name, value)
    writer.add_tokenizer_model(vocab["model"])
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocab["tokens"])
    writer.add_token_scores([-float(i) for i in range(len(vocab["tokens"]))])
    writer.add_token_types(vocab["types"])
    if "merges" in vocab:
        writer.add_token_merges(vocab["merges"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)
    rng = np.random.default_rng(1)
    for name, tensor in model.weights().items():
        by_token = name in ("token_embd.weight", "output.weight")
        values = tensor[: len(vocab["tokens"])] if by_token else tensor
        if values.ndim == 1 or type_ == Q.F32:
            writer.add_tensor(name, values)
            continue
        block, size = gguf.GGML_QUANT_SIZES[type_]
        # A matrix whose rows are no multiple of a block is stored in a smaller one.
        used = type_ if values.shape[1] % block == 0 else Q.Q8_0
        try:
            data = gguf.quants.quantize(values, used)
        except NotImplementedError:
            data = rng.integers(0, 60, (len(values), values.shape[1] // block * size), np.uint8)
        writer.add_tensor(name, data, raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if parts > 1:
        files = sorted(path.parent.glob(f"{path.stem}-*.gguf"))
        content = NEXT_PART.join(file.read_bytes() for file in files)
        for file in files:
            file.unlink()
        path.write_bytes(content)
    return path


def seeds(folder: Path) -> Iterator[Path]:
    variants = {
        "plain": TinyModel(**SHAPE),
        "tied": TinyModel(**SHAPE, tied=True),
        "two-layers": TinyModel(**SHAPE | {"n_layers": 2, "n_kv_heads": 2}),
        "window": TinyModel(**SHAPE, metadata={"attention.sliding_window": 4}),
        "yarn": TinyModel(**SHAPE, metadata=YARN),
        "linear": TinyModel(**SHAPE, metadata={"rope.scale_linear": 2.0}),
        "longrope": TinyModel(**SHAPE, metadata=LONGROPE, tensors=FACTORS),
        "qwen2": TinyModel("qwen2", **SHAPE, qkv_bias=True),
        "qwen3": TinyModel("qwen3", **SHAPE, qk_norm=True, head_dim=16),
    }
    for name, model in variants.items():
        yield write(folder / f"{name}.gguf", model, SPM, Q.Q4_0, "")
    for pre in PRE_TOKENIZERS:
        yield write(folder / f"pre-{pre}.gguf", variants["tied"], BPE, Q.Q4_0, pre)
    for type_ in (Q.F32, Q.F16, Q.BF16, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.IQ4_NL):
        yield write(folder / f"{type_.name}.gguf", variants["plain"], SPM, type_, "")
    wide = TinyModel(**SHAPE | {"n_embd": 256, "head_dim": 16}, tied=True)
    for type_ in (Q.Q2_K, Q.Q3_K, Q.Q4_K, Q.Q5_K, Q.Q6_K, Q.IQ4_XS):
        yield write(folder / f"{type_.name}.gguf", wide, SPM, type_, "")
    yield write(folder / "split.gguf", variants["plain"], SPM, Q.Q8_0, "", parts=2)


def quoted(data: bytes) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in data) + '"'


def main(folder: Path, dictionary: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    words: set[bytes] = {NEXT_PART, b"split.count", b"split.no", b"split.tensors.count"}
    # The corpus may hold more than the seeds.
    for path in seeds(folder):
        reader = gguf.GGUFReader(path)
        words |= {key.encode() for key in reader.fields if not key.startswith("GGUF.")}
        words |= {tensor.name.encode() for tensor in reader.tensors}
    words |= {b"rope.scaling.yarn_beta_fast", b"tokenizer.ggml.padding_token_id", b"expert_count"}
    # Strings with the length that the format puts before them, and types and small numbers.
    entries = [struct.pack("<Q", len(word)) + word for word in sorted(words)]
    entries += [struct.pack("<I", n) for n in (*range(40), 2**31, 2**32 - 1)]
    entries += [struct.pack("<Q", n) for n in (0, 1, 2, 32, 256, 2**32, 2**63, 2**64 - 1)]
    dictionary.write_text("".join(f"{quoted(entry)}\n" for entry in entries))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
