"""A context of 131072 tokens, filled to the last: its logits, and what one token more says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pyllamacpp import Llama, _core
from pyllamacpp.errors import ContextFullError

sys.path.append(str(Path(__file__).resolve().parents[1] / "oracle"))
from llama_numpy import LlamaNumpy, rms_norm, silu, softmax
from tiny_model import TinyModel

N = 131072
# One layer of one head: keys and values then depend on their own tokens alone, and the last row
# can be computed in float64 without the others.
MODEL = TinyModel(n_layers=1, n_embd=32, n_ff=32, n_heads=1, n_kv_heads=1, n_ctx=N, rope_theta=5e6)


def last_logits(path: Path, tokens: np.ndarray) -> np.ndarray:
    oracle = LlamaNumpy.from_gguf(path, n_ctx=N)
    w = {name: np.asarray(value, np.float64) for name, value in oracle.weights.items()}
    eps = MODEL.norm_eps
    x = w["token_embd.weight"][tokens]
    h = rms_norm(x, w["blk.0.attn_norm.weight"], eps)
    angles = np.outer(np.arange(N), 5e6 ** (-np.arange(0, 32, 2) / 32))

    def rotated(y: np.ndarray, at: np.ndarray) -> np.ndarray:
        pairs = y.reshape(len(y), -1, 2)
        turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * at)
        return np.stack([turned.real, turned.imag], axis=-1).reshape(y.shape)

    keys = rotated(h @ w["blk.0.attn_k.weight"].T, angles)
    query = rotated(h[-1:] @ w["blk.0.attn_q.weight"].T, angles[-1:])
    values = h @ w["blk.0.attn_v.weight"].T
    shares = softmax(query @ keys.T / 32**0.5)
    y = x[-1:] + shares @ values @ w["blk.0.attn_output.weight"].T
    h = rms_norm(y, w["blk.0.ffn_norm.weight"], eps)
    up = silu(h @ w["blk.0.ffn_gate.weight"].T) * (h @ w["blk.0.ffn_up.weight"].T)
    y = y + up @ w["blk.0.ffn_down.weight"].T
    return (rms_norm(y, w["output_norm.weight"], eps) @ w["output.weight"].T)[0]


def test_the_last_of_131072(tmp_path: Path) -> None:
    path = MODEL.write(tmp_path / "model.gguf")
    tokens = 3 + np.random.default_rng(0).integers(0, 256, N)
    context = _core.Context(_core.Model(str(path)), n_ctx=N)
    context.decode([(0, [int(token) for token in tokens], "last")])
    found, expected = context.logits()[0], last_logits(path, tokens)
    assert np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)) < 2e-3
    with pytest.raises(ContextFullError, match=r"\(131073\) exceed context window of 131072"):
        context.decode([(0, [5], "last")])
    assert len(context.tokens(0)) == N


def test_a_full_context_says_so(tmp_path: Path) -> None:
    path = TinyModel(n_ctx=64).write(tmp_path / "model.gguf")
    with Llama(str(path), n_ctx=32, verbose=False) as llama:
        answer = llama([1, *range(70, 90)], max_tokens=100, temperature=0, seed=1)
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["total_tokens"] <= 33
        with pytest.raises(ValueError, match=r"\(40\) exceed context window of 32"):
            llama(list(range(60, 100)), max_tokens=4)
