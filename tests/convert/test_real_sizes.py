"""Conversions in the shapes of 13B and 65B, and of real weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from checkpoints import write_meta, write_sparse_meta
from pyllamacpp_convert import convert
from test_vocab import smollm2
from vocab_cases import real, write_json

from pyllamacpp import _core

LLAMA = {"multiple_of": 256, "norm_eps": 1e-6, "vocab_size": -1}
GEOMETRIES = {
    "13B": (LLAMA | {"dim": 5120, "n_heads": 40}, 2, 13824),
    "65B": (LLAMA | {"dim": 8192, "n_heads": 64}, 8, 22016),
}
PEAK = """
import resource, sys
from pyllamacpp_convert import convert

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
convert(*sys.argv[1:3], "q4_0", vocab=sys.argv[3], n_threads=2)
print(peak() - before)
"""


@pytest.mark.parametrize(("name", "n_layers"), [("13B", 1), ("13B", 2), ("65B", 1)])
def test_memory_does_not_grow_with_the_model(name: str, n_layers: int, tmp_path: Path) -> None:
    params, n_shards, n_ff = GEOMETRIES[name]
    source = write_sparse_meta(tmp_path / name, params | {"n_layers": n_layers}, n_shards, n_ff)
    vocab = real("mistral-common", "tokenizer.model.v1")
    out = tmp_path / "out.gguf"
    done = subprocess.run(
        [sys.executable, "-c", PEAK, source, out, vocab],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    out.unlink()
    assert int(done.stdout) * 1024 < 300e6  # three tenths of one layer of 65B in 16 bits


def default_model_in_metas_names(model: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The default model's weights, dequantized, and its params.json."""
    reader = gguf.GGUFReader(model)
    names = {
        "token_embd": "tok_embeddings",
        "output_norm": "norm",
        "attn_norm": "attention_norm",
        "ffn_norm": "ffn_norm",
        "attn_q": "attention.wq",
        "attn_k": "attention.wk",
        "attn_v": "attention.wv",
        "attn_output": "attention.wo",
        "ffn_gate": "feed_forward.w1",
        "ffn_down": "feed_forward.w2",
        "ffn_up": "feed_forward.w3",
    }
    weights = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        prefix, _, part = tensor.name.removesuffix(".weight").rpartition(".")
        weights[f"{prefix.replace('blk', 'layers')}.{names[part]}.weight".lstrip(".")] = values
    value = {key: field.contents() for key, field in reader.fields.items()}
    params = {
        "dim": value["llama.embedding_length"],
        "n_layers": value["llama.block_count"],
        "n_heads": value["llama.attention.head_count"],
        "n_kv_heads": value["llama.attention.head_count_kv"],
        "multiple_of": 512,
        "norm_eps": value["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": value["llama.rope.freq_base"],
        "vocab_size": 49152,
    }
    return weights, params


def mean_nll(model: Path, ids: list[int], first_scored: int) -> float:
    context = _core.Context(_core.Model(str(model)), n_ctx=512)
    context.decode([(0, ids, "all")])
    logits = np.asarray(context.logits()[first_scored:-1], dtype=np.float64)
    at = logits[np.arange(len(logits)), ids[first_scored + 1 :]]
    return float(np.mean(np.log(np.sum(np.exp(logits - at[:, None]), axis=1))))


def test_real_weights(default_model: Path, tmp_path: Path) -> None:
    """The default model as three shards of 16 bits and back: the perplexity of its float32 run."""
    golden: Mapping[str, Any] = json.loads(
        (Path(__file__).parents[1] / "data" / "golden.json").read_text("utf-8")
    )
    weights, params = default_model_in_metas_names(default_model)
    source = write_meta(tmp_path / "smollm2", weights, params, 3, "v3", dtype="f16")
    write_json(source / "tokenizer.json", smollm2(default_model)[0])
    convert(source, tmp_path / "f16.gguf", "f16", ctx=2048)
    convert(source, tmp_path / "q8_0.gguf", "q8_0", ctx=2048)
    english = (Path(__file__).parents[1] / "data" / "english.txt").read_bytes()
    window, first = golden["perplexity"]["window"], golden["perplexity"]["first_scored"]
    ids = _core.Model(str(default_model)).tokenizer.encode(english[:6000], False, False)[:window]
    expected = golden["perplexity"]["mean_nll_per_window"][0]
    # The cache rounds to 11 bits, q8_0 weights and activations to 8.
    assert abs(mean_nll(tmp_path / "f16.gguf", ids, first) - expected) < 0.001
    assert abs(mean_nll(tmp_path / "q8_0.gguf", ids, first) - expected) < 0.02
