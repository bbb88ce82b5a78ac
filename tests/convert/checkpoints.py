"""Checkpoints as Meta and Hugging Face publish them, of small models."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch_files

Weights = Mapping[str, np.ndarray]
# Which dimension of a matrix is cut between shards; vectors are in all.
ROWS = ("wq", "wk", "wv", "w1", "w3", "output")


def bfloat16(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.float32).view(np.uint32) >> 16).astype("<u2")


def rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values that the dtype holds exactly."""
    if dtype == "bf16":
        return (bfloat16(x).astype(np.uint32) << 16).view(np.float32)
    return x.astype(np.float16).astype(np.float32) if dtype == "f16" else x.astype(np.float32)


def stored(x: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bf16":
        return bfloat16(x)
    return x.astype({"f16": "<f2", "f32": "<f4"}[dtype])


def random_weights(
    params: Mapping[str, Any], n_vocab: int, n_ff: int, dtype: str, *, tied: bool = False
) -> dict[str, np.ndarray]:
    """Weights under Meta's names, float32 values that `dtype` holds exactly."""
    rng = np.random.default_rng(7)
    dim, head_dim = params["dim"], params["dim"] // params["n_heads"]
    kv_dim = params.get("n_kv_heads", params["n_heads"]) * head_dim

    def matrix(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return rounded(scale * rng.standard_normal((rows, columns)) / columns**0.5, dtype)

    def vector() -> np.ndarray:
        return rounded(1 + 0.2 * rng.standard_normal(dim), dtype)

    weights = {"tok_embeddings.weight": matrix(n_vocab, dim, dim**0.5), "norm.weight": vector()}
    for i in range(params["n_layers"]):
        p = f"layers.{i}."
        weights |= {
            # Larger than trained ones, so that attention is far from uniform.
            p + "attention.wq.weight": matrix(dim, dim, 2),
            p + "attention.wk.weight": matrix(kv_dim, dim, 2),
            p + "attention.wv.weight": matrix(kv_dim, dim),
            p + "attention.wo.weight": matrix(dim, dim),
            p + "feed_forward.w1.weight": matrix(n_ff, dim),
            p + "feed_forward.w2.weight": matrix(dim, n_ff),
            p + "feed_forward.w3.weight": matrix(n_ff, dim),
            p + "attention_norm.weight": vector(),
            p + "ffn_norm.weight": vector(),
        }
    weights["output.weight"] = (
        weights["tok_embeddings.weight"] if tied else matrix(n_vocab, dim, 0.3)
    )
    return weights


def piece(name: str, whole: np.ndarray, shard: int, n_shards: int, layout: str) -> np.ndarray:
    """A shard's part of a tensor."""
    if whole.ndim == 1:
        return whole
    by_rows = name.split(".")[-2] in ROWS or (name.startswith("tok_") and layout == "v3")
    return np.split(whole, n_shards, axis=0 if by_rows else 1)[shard]


def write_meta(
    folder: Path,
    weights: Weights,
    params: Mapping[str, Any],
    n_shards: int,
    layout: str,
    *,
    dtype: str | None = None,
    checklist: bool = True,
) -> Path:
    """layout: "v1" (f16, a layer's tensors views of one storage, embeddings cut by columns),
    "v2" (bf16, embeddings cut by columns) or "v3" (bf16, by rows).
    """
    folder.mkdir(parents=True)
    dtype = dtype or ("f16" if layout == "v1" else "bf16")
    head_dim = params["dim"] // params["n_heads"]
    for shard in range(n_shards):
        tensors = {
            name: stored(piece(name, whole, shard, n_shards, layout), dtype)
            for name, whole in weights.items()
        }
        freqs = "layers.0.attention.inner_attention.rope.freqs" if layout == "v1" else "rope.freqs"
        if layout != "v3":
            tensors[freqs] = stored(np.ones(head_dim // 2), dtype)
        torch_files.save(
            folder / f"consolidated.{shard:02}.pth",
            tensors,
            layer_of if layout == "v1" else None,
        )
    (folder / "params.json").write_text(json.dumps(dict(params)))
    if checklist:
        write_checklist(folder)
    return folder


def write_sparse_meta(
    folder: Path, params: Mapping[str, Any], n_shards: int, n_ff: int, n_vocab: int = 32000
) -> Path:
    """LLaMA 1's layout in any size: all weights are zero, and holes on the disk."""
    folder.mkdir(parents=True)
    dim = params["dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight": (n_vocab, dim // n_shards),
        "norm.weight": (dim,),
        "output.weight": (n_vocab // n_shards, dim),
    }
    for i in range(params["n_layers"]):
        p = f"layers.{i}."
        for name in ("wq", "wk", "wv"):
            shapes[f"{p}attention.{name}.weight"] = (dim // n_shards, dim)
        shapes[p + "attention.wo.weight"] = (dim, dim // n_shards)
        shapes[p + "feed_forward.w1.weight"] = (n_ff // n_shards, dim)
        shapes[p + "feed_forward.w2.weight"] = (dim, n_ff // n_shards)
        shapes[p + "feed_forward.w3.weight"] = (n_ff // n_shards, dim)
        shapes[p + "attention_norm.weight"] = shapes[p + "ffn_norm.weight"] = (dim,)
    for shard in range(n_shards):
        torch_files.save_sparse(folder / f"consolidated.{shard:02}.pth", shapes)
    (folder / "params.json").write_text(json.dumps(dict(params)))
    return folder


def layer_of(name: str) -> str:
    return ".".join(name.split(".")[:2])


def write_checklist(folder: Path) -> None:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".pth", ".json"))
    lines = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / "checklist.chk").write_text("".join(lines))


def halves_apart(x: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of queries or keys in Hugging Face's order."""
    pairs = x.reshape(n_heads, -1, 2, *x.shape[1:])
    return pairs.swapaxes(1, 2).reshape(x.shape)


def hugging_face_names(weights: Weights, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The weights as LlamaForCausalLM has them."""
    names = {
        "attention.wq": "self_attn.q_proj",
        "attention.wk": "self_attn.k_proj",
        "attention.wv": "self_attn.v_proj",
        "attention.wo": "self_attn.o_proj",
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w2": "mlp.down_proj",
        "feed_forward.w3": "mlp.up_proj",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    out = {
        "model.embed_tokens.weight": weights["tok_embeddings.weight"],
        "model.norm.weight": weights["norm.weight"],
        "lm_head.weight": weights["output.weight"],
    }
    n_heads = params["n_heads"]
    heads = {"attention.wq": n_heads, "attention.wk": params.get("n_kv_heads", n_heads)}
    for name, x in weights.items():
        if not name.startswith("layers."):
            continue
        _, layer, part = name.removesuffix(".weight").split(".", 2)
        rows = halves_apart(x, heads[part]) if part in heads else x
        out[f"model.layers.{layer}.{names[part]}.weight"] = rows
    return out


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    kinds = {"<f2": "F16", "<u2": "BF16", "<f4": "F32", "<i8": "I64"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, x in tensors.items():
        offsets = [end, end + x.nbytes]
        header[name] = {"dtype": kinds[x.dtype.str], "shape": x.shape, "data_offsets": offsets}
        end += x.nbytes
    text = json.dumps(header).encode()
    data = b"".join(x.tobytes() for x in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def write_huggingface(
    folder: Path,
    tensors: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    dtype: str,
    *,
    n_files: int = 1,
    suffix: str = "safetensors",
) -> Path:
    """tensors: float32, under the names of the architecture. suffix: "safetensors" or "bin"."""
    folder.mkdir(parents=True)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = list(tensors)
    where = {name: i * n_files // len(names) for i, name in enumerate(names)}
    files = [
        f"{stem}.{suffix}" if n_files == 1 else f"{stem}-{i + 1:05}-of-{n_files:05}.{suffix}"
        for i in range(n_files)
    ]
    for i, file in enumerate(files):
        part = {name: stored(tensors[name], dtype) for name in names if where[name] == i}
        (write_safetensors if suffix == "safetensors" else torch_files.save)(folder / file, part)
    if n_files > 1:
        index = {"metadata": {}, "weight_map": {name: files[where[name]] for name in names}}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(dict(config)))
    return folder
