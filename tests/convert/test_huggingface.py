"""Hugging Face folders: other architectures, ways to scale positions, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from checkpoints import write_huggingface
from llama_numpy import LlamaNumpy
from pyllamacpp_convert import convert, plan_conversion
from vocab_cases import PIECES, sentencepiece_model

from pyllamacpp import _core
from pyllamacpp.errors import FormatError, UnsupportedError

DIM, N_FF, HEADS, KV_HEADS, N_VOCAB = 64, 96, 4, 2, len(PIECES)
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": DIM,
    "intermediate_size": N_FF,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
TOKENS = [1, *range(60, 120)]


def weights(config: dict[str, Any]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    head_dim = config.get("head_dim", DIM // HEADS)
    q_dim, kv_dim = HEADS * head_dim, KV_HEADS * head_dim

    def matrix(rows: int, columns: int, scale: float = 1.0) -> np.ndarray:
        return (scale * rng.standard_normal((rows, columns)) / columns**0.5).astype(np.float32)

    def vector(n: int, mean: float) -> np.ndarray:
        return (mean + 0.2 * rng.standard_normal(n)).astype(np.float32)

    out = {"model.embed_tokens.weight": matrix(N_VOCAB, DIM, 8.0)}
    for i in range(2):
        p = f"model.layers.{i}."
        out |= {
            p + "input_layernorm.weight": vector(DIM, 1),
            p + "post_attention_layernorm.weight": vector(DIM, 1),
            p + "self_attn.q_proj.weight": matrix(q_dim, DIM, 2),
            p + "self_attn.k_proj.weight": matrix(kv_dim, DIM, 2),
            p + "self_attn.v_proj.weight": matrix(kv_dim, DIM),
            p + "self_attn.o_proj.weight": matrix(DIM, q_dim),
            p + "mlp.gate_proj.weight": matrix(N_FF, DIM),
            p + "mlp.up_proj.weight": matrix(N_FF, DIM),
            p + "mlp.down_proj.weight": matrix(DIM, N_FF),
        }
        if config["architectures"] == ["Qwen2ForCausalLM"]:
            for name, n in (("q", q_dim), ("k", kv_dim), ("v", kv_dim)):
                out[f"{p}self_attn.{name}_proj.bias"] = vector(n, 0)
        if config["architectures"] == ["Qwen3ForCausalLM"]:
            for name in ("q", "k"):
                out[f"{p}self_attn.{name}_norm.weight"] = vector(head_dim, 1)
    out["model.norm.weight"] = vector(DIM, 1)
    if not config["tie_word_embeddings"]:
        out["lm_head.weight"] = matrix(N_VOCAB, DIM)
    return out


def write(
    folder: Path,
    changes: dict[str, Any],
    edit: Callable[[dict[str, np.ndarray]], object] = lambda _: None,
    n_files: int = 1,
) -> Path:
    config = CONFIG | changes
    tensors = weights(config)
    edit(tensors)
    write_huggingface(folder, tensors, config, "f32", n_files=n_files)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    return folder


@pytest.mark.parametrize(
    ("changes", "metadata"),
    [
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 20}, {
            "llama.attention.sliding_window": 20}),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": None}, {}),
        ({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": False,
          "sliding_window": 20}, {"general.architecture": "qwen2"}),
        ({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "sliding_window": 20,
          "max_window_layers": 2}, {"general.architecture": "qwen2"}),
        ({"architectures": ["Qwen3ForCausalLM"], "head_dim": 32}, {
            "general.architecture": "qwen3", "qwen3.attention.key_length": 32}),
        ({"tie_word_embeddings": True}, {}),
        ({"head_dim": 32}, {"llama.attention.key_length": 32}),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, {
            "llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 8.0,
                           "original_max_position_embeddings": 64}}, {
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.original_context_length": 64}),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, {
            "llama.rope.freq_base": 5e5}),
        ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0] * 8,
                           "long_factor": [1.5] * 8, "original_max_position_embeddings": 64}}, {
            "llama.rope.scaling.type": "longrope"}),
    ],
)  # fmt: skip
def test_variants(changes: dict[str, Any], metadata: dict[str, Any], tmp_path: Path) -> None:
    """Read by the engine and by the float64 pass alike; Llama's heads also against themselves."""
    folder, out = write(tmp_path / "hf", changes, n_files=2), tmp_path / "out.gguf"
    convert(folder, out, "f32", verify=True)
    fields = gguf.GGUFReader(out).fields
    assert {key: fields[key].contents() for key in metadata} == metadata
    assert ("llama.attention.sliding_window" in fields) == (
        "llama.attention.sliding_window" in metadata
    )
    context = _core.Context(_core.Model(str(out)), n_ctx=512, type_k="f32", type_v="f32")
    context.decode([(0, TOKENS, "all")])
    expected = LlamaNumpy.from_gguf(out, n_ctx=512).forward(TOKENS)
    error = np.sqrt(np.mean((context.logits() - expected) ** 2) / np.mean(expected**2))
    assert error < 1e-5


def drop(name: str) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda tensors: tensors.pop(name)


def add(name: str) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda tensors: tensors.update({name: np.ones((2, 2), np.float32)})


UP = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("changes", "edit", "error", "sentence"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, None, UnsupportedError, "'GemmaForCausalLM'"),
        ({"architectures": None}, None, UnsupportedError, "architecture None"),
        ({"quantization_config": {"bits": 4}}, None, UnsupportedError, "quantized already"),
        ({"hidden_act": "gelu"}, None, UnsupportedError, "hidden_act is 'gelu'"),
        ({"hidden_size": "64"}, None, FormatError, "hidden_size is '64'"),
        ({"intermediate_size": 97}, None, FormatError, "expected 97 x 64 by config.json"),
        ({"rms_norm_eps": -1}, None, FormatError, "rms_norm_eps is -1"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, None, UnsupportedError, "'dynamic'"),
        ({"rope_scaling": {"type": "linear"}}, None, FormatError, "factor is None"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1]}}, None, FormatError,
         "short_factor is not 8 positive numbers"),
        ({"rope_scaling": [1]}, None, FormatError, "rope_scaling is not an object"),
        ({"partial_rotary_factor": 0.5}, None, UnsupportedError, "rotated in part"),
        ({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True, "sliding_window": 20,
          "max_window_layers": 1}, None, UnsupportedError, "in some layers only"),
        ({}, drop(UP), FormatError, f"{UP} is missing"),
        ({}, drop("lm_head.weight"), FormatError, "lm_head.weight is missing"),
        ({}, add("model.layers.2.mlp.up_proj.weight"), UnsupportedError, "no llama of 2 layers"),
        ({}, add("model.layers.0.self_attn.q_proj.bias"), UnsupportedError, "q_proj.bias"),
    ],
)  # fmt: skip
def test_what_is_refused(
    changes: dict[str, Any],
    edit: Callable[[dict[str, np.ndarray]], object] | None,
    error: type[Exception],
    sentence: str,
    tmp_path: Path,
) -> None:
    folder = write(tmp_path / "hf", changes, edit or (lambda _: None))
    with pytest.raises(error, match=sentence):
        plan_conversion(folder)


def test_files_that_do_not_fit_the_index(tmp_path: Path) -> None:
    folder = write(tmp_path / "hf", {}, n_files=3)
    index_path = folder / "model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    first, second = "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"
    kept = (folder / second).read_bytes()

    (folder / second).unlink()
    with pytest.raises(FormatError, match=f"lists {second}, which is missing: fetch it"):
        plan_conversion(folder)
    (folder / second).write_bytes((folder / first).read_bytes())
    with pytest.raises(FormatError, match="is in two files"):
        plan_conversion(folder)
    (folder / second).write_bytes(kept[:-100])
    with pytest.raises(FormatError, match=f"{second} ends before"):
        plan_conversion(folder)
    (folder / second).write_bytes(kept)
    index["weight_map"]["model.other.weight"] = first
    index_path.write_text(json.dumps(index))
    with pytest.raises(FormatError, match=r"lists model\.other\.weight in .*, which has it not"):
        plan_conversion(folder)
    for map_ in ({"w": "../x"}, ["x"], {"w": 1}):
        index_path.write_text(json.dumps({"weight_map": map_}))
        with pytest.raises(FormatError, match="has no map of names to files"):
            plan_conversion(folder)
    index_path.write_text("[]")
    with pytest.raises(FormatError, match="is not an object"):
        plan_conversion(folder)
    for path in folder.glob("model*"):
        path.unlink()
    with pytest.raises(FormatError, match="fetch the weights"):
        plan_conversion(folder)
    (folder / "config.json").write_text("nonsense")
    with pytest.raises(FormatError, match="is not JSON"):
        plan_conversion(folder)
