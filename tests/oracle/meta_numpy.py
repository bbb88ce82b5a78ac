"""Meta's forward pass in float64, on weights under Meta's names; written from LLaMA's papers.

Independent of everything else here: positions rotate pairs of neighbouring values as complex
numbers, keys and values are repeated for the query heads that share them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Array64 = npt.NDArray[np.float64]


def rms_norm(x: Array64, weight: Array64, eps: float) -> Array64:
    return weight * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)


def frequencies(head_dim: int, theta: float, scale: float | None) -> Array64:
    """Angles per position of each pair; `scale`: LLaMA 3.1's factor for long wavelengths."""
    plain = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    if scale is None:
        return plain
    wavelength = 2 * np.pi / plain
    smooth = np.clip((8192 / wavelength - 1) / 3, 0, 1)
    return plain * (smooth + (1 - smooth) / scale)


def rotate(x: Array64, angles: Array64) -> Array64:
    """x [tokens, heads, head_dim]; angles [tokens, head_dim / 2]."""
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)[:, None]
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def logits(
    weights: Mapping[str, npt.NDArray[np.float32]],
    params: Mapping[str, float],
    tokens: Sequence[int],
    rope_scale: float | None = None,
) -> Array64:
    """Logits [tokens, vocabulary] of a causal pass over `tokens`; params as in params.json."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    n_heads, eps = int(params["n_heads"]), params["norm_eps"]
    n_kv_heads = int(params.get("n_kv_heads", n_heads))
    x = w["tok_embeddings.weight"][list(tokens)]
    n, dim = x.shape
    head_dim = dim // n_heads
    angles = np.outer(
        np.arange(n), frequencies(head_dim, params.get("rope_theta", 10000.0), rope_scale)
    )
    future = np.triu(np.full((n, n), -np.inf), 1)
    for layer in range(int(params["n_layers"])):
        p = f"layers.{layer}."
        h = rms_norm(x, w[p + "attention_norm.weight"], eps)
        q, k, v = (
            (h @ w[f"{p}attention.{name}.weight"].T).reshape(n, -1, head_dim)
            for name in ("wq", "wk", "wv")
        )
        q, k = rotate(q, angles), rotate(k, angles)
        k, v = (np.repeat(y, n_heads // n_kv_heads, axis=1) for y in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / head_dim**0.5 + future
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        attended = np.einsum("hqk,khd->qhd", shares, v).reshape(n, dim)
        x = x + attended @ w[p + "attention.wo.weight"].T
        h = rms_norm(x, w[p + "ffn_norm.weight"], eps)
        gate, up = (h @ w[f"{p}feed_forward.{name}.weight"].T for name in ("w1", "w3"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "feed_forward.w2.weight"].T
    output = w.get("output.weight", w["tok_embeddings.weight"])
    return rms_norm(x, w["norm.weight"], eps) @ output.T
