"""Every model variant against an independent float64 forward pass, on small random weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pyllamacpp import _core
from pyllamacpp.errors import FormatError, UnsupportedError

sys.path.append(str(Path(__file__).resolve().parents[1] / "oracle"))
from llama_numpy import LlamaNumpy
from tiny_model import TinyModel

FACTORS = np.linspace(1, 8, 8, dtype=np.float32)
LONGROPE = {
    "metadata": {
        "rope.scaling.type": "longrope",
        "rope.scaling.original_context_length": 64,
        "rope.scaling.attn_factor": 1.19,
    },
    "tensors": {
        "rope_factors_short.weight": np.linspace(1, 1.5, 8, dtype=np.float32),
        "rope_factors_long.weight": FACTORS,
    },
}
YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 8.0,
    "rope.scaling.original_context_length": 512,
}
VARIANTS = {
    "llama": TinyModel(),
    "llama, tied embeddings": TinyModel(tied=True),
    "llama, one head per KV head": TinyModel(n_kv_heads=4),
    "llama, eight heads per KV head": TinyModel(n_heads=8, n_kv_heads=1),
    "llama, wide heads": TinyModel(head_dim=40),
    "llama, partial RoPE": TinyModel(rope_dim=8),
    "llama, large epsilon": TinyModel(norm_eps=0.05),
    "llama, vocabulary size stated": TinyModel(metadata={"vocab_size": 259}),
    "llama 3, RoPE factors": TinyModel(rope_theta=500000.0, tensors={"rope_freqs.weight": FACTORS}),
    "llama 3.2, RoPE factors, tied": TinyModel(
        tied=True, rope_theta=500000.0, tensors={"rope_freqs.weight": FACTORS}
    ),
    "llama, linear RoPE": TinyModel(
        metadata={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
    ),
    "llama, linear RoPE of old files": TinyModel(metadata={"rope.scale_linear": 4.0}),
    "llama, NTK base": TinyModel(rope_theta=1.7e6),
    "llama, YaRN": TinyModel(metadata=YARN),
    "llama, YaRN with a factor": TinyModel(metadata=YARN | {"rope.scaling.attn_factor": 0.9}),
    "llama, LongRoPE short": TinyModel(
        **LONGROPE
        | {"metadata": LONGROPE["metadata"] | {"rope.scaling.original_context_length": 4096}}
    ),
    "llama, LongRoPE long": TinyModel(**LONGROPE),
    "mistral, sliding window": TinyModel(metadata={"attention.sliding_window": 37}),
    "mistral, sliding window, wide heads": TinyModel(
        head_dim=32, rope_theta=1e6, metadata={"attention.sliding_window": 64}
    ),
    "yi, RoPE base": TinyModel(rope_theta=5e6, n_heads=8, n_kv_heads=1, norm_eps=1e-6),
    "smollm2, RoPE base, tied": TinyModel(
        tied=True, rope_theta=1e5, n_embd=144, n_heads=9, n_kv_heads=3
    ),
    "llama with biases": TinyModel(qkv_bias=True),
    "qwen2": TinyModel(architecture="qwen2", qkv_bias=True, rope_theta=1e6),
    "qwen2.5, tied": TinyModel(
        architecture="qwen2", qkv_bias=True, rope_theta=1e6, norm_eps=1e-6, tied=True
    ),
    "qwen2.5, YaRN": TinyModel(architecture="qwen2", qkv_bias=True, rope_theta=1e6, metadata=YARN),
    "qwen3": TinyModel(architecture="qwen3", qk_norm=True, head_dim=32, rope_theta=1e6),
    "qwen3, tied": TinyModel(
        architecture="qwen3", qk_norm=True, head_dim=32, rope_theta=1e6, norm_eps=1e-6, tied=True
    ),
    "qwen3, linear RoPE": TinyModel(
        architecture="qwen3",
        qk_norm=True,
        metadata={"rope.scaling.type": "linear", "rope.scaling.factor": 2.0},
    ),
    "qwen3, YaRN": TinyModel(architecture="qwen3", qk_norm=True, metadata=YARN),
}
TOKENS = [1, *(3 + np.random.default_rng(5).integers(0, 256, 150))]


def evaluate(path: Path, n_ctx: int = 512, **options: object) -> np.ndarray:
    context = _core.Context(_core.Model(str(path)), n_ctx=n_ctx, **options)
    context.decode([(0, [int(token) for token in TOKENS], "all")])
    return context.logits()


def relative_rms(ours: np.ndarray, oracle: np.ndarray) -> float:
    return float(np.sqrt(np.mean((ours - oracle) ** 2) / np.mean(oracle**2)))


@pytest.mark.parametrize("name", VARIANTS)
def test_float_weights_and_cache(name: str, tmp_path: Path) -> None:
    """All in float32: what is left is its rounding, some 100 operations deep."""
    path = VARIANTS[name].write(tmp_path / "model.gguf")
    oracle = LlamaNumpy.from_gguf(path, n_ctx=512).forward(TOKENS)
    assert relative_rms(evaluate(path, type_k="f32", type_v="f32"), oracle) < 1e-5


@pytest.mark.parametrize("name", VARIANTS)
def test_default_cache(name: str, tmp_path: Path) -> None:
    path = VARIANTS[name].write(tmp_path / "model.gguf")
    oracle = LlamaNumpy.from_gguf(path, n_ctx=512).forward(TOKENS)
    assert relative_rms(evaluate(path), oracle) < 2e-3


@pytest.mark.parametrize("name", VARIANTS)
def test_token_by_token(name: str, tmp_path: Path) -> None:
    path = VARIANTS[name].write(tmp_path / "model.gguf")
    whole = evaluate(path)
    context = _core.Context(_core.Model(str(path)), n_ctx=512)
    for i, token in enumerate(TOKENS):
        context.decode([(0, [int(token)], "last")])
        assert np.array_equal(context.logits()[0], whole[i])


# An element is off by at most half a step of its type: f16 2^-11 and bf16 2^-8 of itself, q8_0
# 1/254 and q4_0 1/16 of the largest of 32. Attention over a hundred keys and two layers keep the
# relative error of the logits within a few times that.
@pytest.mark.parametrize(
    ("kv", "most"), [("f32", 1e-5), ("f16", 2e-3), ("bf16", 1.6e-2), ("q8_0", 2e-2), ("q4_0", 0.35)]
)
@pytest.mark.parametrize("side", ["type_k", "type_v"])
def test_cache_types(kv: str, most: float, side: str, tmp_path: Path) -> None:
    path = TinyModel(n_embd=128, n_ff=128).write(tmp_path / "model.gguf")
    oracle = LlamaNumpy.from_gguf(path).forward(TOKENS)
    types = {"type_k": "f32", "type_v": "f32"} | {side: kv}
    error = relative_rms(evaluate(path, **types), oracle)
    assert error < most
    if kv != "f32":
        assert error > relative_rms(evaluate(path, type_k="f32", type_v="f32"), oracle)


@pytest.mark.parametrize("kv", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_cache_types_token_by_token(kv: str, tmp_path: Path) -> None:
    path = TinyModel(n_embd=128, n_ff=128, metadata={"attention.sliding_window": 50}).write(
        tmp_path / "model.gguf"
    )
    whole = evaluate(path, type_k=kv, type_v=kv)
    context = _core.Context(_core.Model(str(path)), n_ctx=512, type_k=kv, type_v=kv)
    for i, token in enumerate(TOKENS):
        context.decode([(0, [int(token)], "last")])
        assert np.array_equal(context.logits()[0], whole[i])


def test_cache_type_that_does_not_fit(tmp_path: Path) -> None:
    path = TinyModel().write(tmp_path / "model.gguf")  # heads of 16
    with pytest.raises(UnsupportedError, match="type_k=q8_0 is not possible with heads of 16"):
        evaluate(path, type_k="q8_0")


@pytest.mark.parametrize(
    ("model", "error", "sentence"),
    [
        (TinyModel(architecture="mamba"), UnsupportedError, "'mamba'.*llama, qwen2, qwen3"),
        (
            TinyModel(tensors={"blk.0.attn_sinks.weight": np.ones(4, np.float32)}),
            UnsupportedError,
            "blk.0.attn_sinks.weight",
        ),
        (
            TinyModel(metadata={"rope.scaling.type": "su"}),
            UnsupportedError,
            "'su'.*yarn",
        ),
        (TinyModel(metadata=LONGROPE["metadata"]), FormatError, "rope_factors_long"),
        (
            TinyModel(tensors={"rope_freqs.weight": np.zeros(8, np.float32)}),
            FormatError,
            "rope_freqs.weight.*positive",
        ),
        (TinyModel(metadata={"expert_count": 8}), UnsupportedError, "experts"),
        (TinyModel(rope_dim=7), FormatError, "even"),
    ],
)
def test_refused(model: TinyModel, error: type[Exception], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=sentence):
        _core.Model(str(model.write(tmp_path / "model.gguf")))
