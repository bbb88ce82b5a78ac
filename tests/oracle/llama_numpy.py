"""The LLaMA block in numpy float64: slow, plain, and independent of the engine it checks.

Reads a GGUF with the `gguf` package and evaluates whole token sequences, without a cache:

    model = LlamaNumpy.from_gguf(path)
    logits = model.forward([504, 3575, 282])  # (n_tokens, n_vocab) float64

`forward(..., activation_block=32)` rounds the input of every matrix product to 8 bits first, with
one scale per block, as engines do that multiply quantized weights in integers. How far that moves
the logits is the yardstick for how far an engine with such kernels may be from float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Array64 = npt.NDArray[np.float64]


# Architectures whose RoPE pairs dimension i with i + n/2; the others pair neighbours.
HALVES = ("qwen2", "qwen3")


@dataclass(frozen=True)
class LlamaShape:
    """The numbers of a GGUF's metadata that the forward pass needs."""

    n_layers: int
    n_embd: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    rope_dim: int
    rope_theta: float = 10000.0
    rope_scaling: str = "none"
    rope_scale: float = 1.0  # how many times longer than trained
    rope_attention: float = 1.0  # factor of rotated vectors that the file states
    original_context: int = 0
    norm_eps: float = 1e-5
    halves: bool = False
    window: int = 0  # keys a token sees, itself included; 0: all

    @staticmethod
    def from_metadata(metadata: Mapping[str, object]) -> LlamaShape:
        architecture = metadata["general.architecture"]

        def number(key: str, default: float | None = None) -> float:
            value = metadata.get(f"{architecture}.{key}", default)
            if not isinstance(value, (int, float)):
                raise ValueError(f"{architecture}.{key}: expected a number, found {value!r}")
            return value

        n_embd, n_heads = int(number("embedding_length")), int(number("attention.head_count"))
        head_dim = int(number("attention.key_length", n_embd // n_heads))
        return LlamaShape(
            n_layers=int(number("block_count")),
            n_embd=n_embd,
            n_heads=n_heads,
            n_kv_heads=int(number("attention.head_count_kv", n_heads)),
            head_dim=head_dim,
            rope_dim=int(number("rope.dimension_count", head_dim)),
            rope_theta=float(number("rope.freq_base", 10000.0)),
            # Old files have only a linear scale.
            rope_scaling=str(
                metadata.get(
                    f"{architecture}.rope.scaling.type",
                    "linear" if f"{architecture}.rope.scale_linear" in metadata else "none",
                )
            ),
            rope_scale=float(number("rope.scaling.factor", number("rope.scale_linear", 1.0))),
            rope_attention=float(number("rope.scaling.attn_factor", 1.0)),
            original_context=int(
                number("rope.scaling.original_context_length", number("context_length"))
            ),
            norm_eps=float(number("attention.layer_norm_rms_epsilon")),
            halves=architecture in HALVES,
            window=int(number("attention.sliding_window", 0)),
        )


def read_metadata(reader: gguf.GGUFReader) -> dict[str, object]:
    """Scalars and strings of the file's metadata (arrays are left out)."""
    values: dict[str, object] = {}
    for key, field in reader.fields.items():
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            continue
        part = field.parts[field.data[0]]
        is_text = field.types[0] == gguf.GGUFValueType.STRING
        values[key] = bytes(part).decode("utf-8") if is_text else part[0].item()
    return values


def read_weights(reader: gguf.GGUFReader) -> dict[str, npt.NDArray[np.float32]]:
    """Every tensor dequantized to float32, rows first: a matrix is (n_out, n_in)."""
    return {
        tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type)
        .reshape(tuple(int(n) for n in reversed(tensor.shape)))
        .astype(np.float32)
        for tensor in reader.tensors
    }


def rms_norm(x: Array64, weight: Array, eps: float) -> Array64:
    normed: Array64 = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight
    return normed


def silu(x: Array64) -> Array64:
    return x / (1.0 + np.exp(-x))


def softmax(x: Array64) -> Array64:
    weights: Array64 = np.exp(x - x.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def yarn_frequencies(shape: LlamaShape, frequencies: Array64) -> Array64:
    """YaRN's blend of kept and stretched frequencies, from the wavelengths as the paper has it.

    A pair that turns more than 32 times in the original context is kept, one that turns less than
    once is stretched; the ramp between runs over the index of the pair (its ends rounded outwards,
    as every implementation does), not over the number of turns.
    """
    turns = (
        shape.original_context
        * shape.rope_theta ** (-np.arange(shape.rope_dim) * 2 / shape.rope_dim)
        / (2 * np.pi)
    )  # of pair 0, 1, 2 ... were there so many
    exact = np.interp(
        -np.log([32.0, 1.0]), -np.log(turns), np.arange(shape.rope_dim, dtype=np.float64)
    )
    low, high = max(np.floor(exact[0]), 0), min(np.ceil(exact[1]), shape.rope_dim - 1)
    ramp = np.clip((np.arange(frequencies.size) - low) / max(high - low, 0.001), 0, 1)
    blended: Array64 = frequencies * (1 - ramp) + frequencies / shape.rope_scale * ramp
    return blended


def rope(
    x: Array64, positions: npt.NDArray[np.int64], inverse_frequencies: Array64, halves: bool
) -> Array64:
    """Rotates the first dimensions of each head: neighbours (2i, 2i+1), or (i, i+n/2) by halves.

    x: (n_tokens, n_heads, head_dim); inverse_frequencies: (rope_dim / 2,)
    """
    n = inverse_frequencies.size
    angle = positions[:, None, None] * inverse_frequencies  # (n_tokens, 1, rope_dim / 2)
    first = np.arange(n) if halves else 2 * np.arange(n)
    second = first + (n if halves else 1)
    out = x.copy()
    out[..., first] = x[..., first] * np.cos(angle) - x[..., second] * np.sin(angle)
    out[..., second] = x[..., first] * np.sin(angle) + x[..., second] * np.cos(angle)
    return out


def round_to_int8(x: Array64, block: int) -> Array64:
    """x with each block of a row rounded to 255 levels and its scale to half precision."""
    blocks = x.reshape(*x.shape[:-1], x.shape[-1] // block, block)
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / 127.0
    levels = np.rint(np.divide(blocks, scale, out=np.zeros_like(blocks), where=scale > 0))
    rounded: Array64 = levels * scale.astype(np.float16).astype(np.float64)
    return rounded.reshape(x.shape)


class LlamaNumpy:
    """Weights by their GGUF names, and the pass over them."""

    def __init__(self, shape: LlamaShape, weights: Mapping[str, Array], n_ctx: int = 512) -> None:
        self.shape = shape
        self.weights = weights
        dims = np.arange(0, shape.rope_dim, 2, dtype=np.float64)
        # One per rotated pair, rope_dim / 2 in all.
        frequencies = shape.rope_theta ** (-dims / shape.rope_dim)
        self.rope_attention = 1.0
        if shape.rope_scaling == "linear":
            frequencies = frequencies / shape.rope_scale
        elif shape.rope_scaling == "yarn":
            frequencies = yarn_frequencies(shape, frequencies)
            self.rope_attention = shape.rope_attention * (1 + 0.1 * np.log(shape.rope_scale))
        elif shape.rope_scaling == "longrope":
            which = "long" if n_ctx > shape.original_context else "short"
            frequencies = frequencies / weights[f"rope_factors_{which}.weight"]
            self.rope_attention = shape.rope_attention
        if "rope_freqs.weight" in weights:  # LLaMA 3.1's stretched frequencies
            frequencies = frequencies / weights["rope_freqs.weight"]
        self.inverse_frequencies = frequencies

    @classmethod
    def from_gguf(cls, path: str | Path, n_ctx: int = 512) -> LlamaNumpy:
        """n_ctx: of the context to compare with; LongRoPE chooses its factors by it."""
        reader = gguf.GGUFReader(str(path))
        metadata = read_metadata(reader)
        if metadata.get("general.architecture") not in ("llama", *HALVES):
            raise ValueError(f"{path}: architecture {metadata.get('general.architecture')!r}")
        return cls(LlamaShape.from_metadata(metadata), read_weights(reader), n_ctx)

    def forward(
        self,
        tokens: Sequence[int],
        *,
        activation_block: int | None = None,
        inputs: dict[str, Array64] | None = None,
    ) -> Array64:
        """Logits after each token of one sequence that starts at position 0: (n, n_vocab).

        inputs: gets what each matrix multiplies, (n, columns) by the matrix's name.
        """
        s, n = self.shape, len(tokens)
        group = s.n_heads // s.n_kv_heads
        positions = np.arange(n, dtype=np.int64)
        hidden_keys = np.triu(np.full((n, n), -np.inf), k=1)  # query i sees keys 0..i
        if s.window:
            hidden_keys += np.tril(np.full((n, n), -np.inf), k=-s.window)

        def product(x: Array64, name: str) -> Array64:
            if activation_block is not None:
                x = round_to_int8(x, activation_block)
            if inputs is not None:
                inputs[name] = x
            y = x @ self.weights[name].astype(np.float64).T
            bias = self.weights.get(name.replace(".weight", ".bias"))
            return y if bias is None else y + bias

        def rotated(x: Array64, norm: str) -> Array64:
            if norm in self.weights:  # Qwen3
                x = rms_norm(x, self.weights[norm], s.norm_eps)
            out = rope(x, positions, self.inverse_frequencies, s.halves)
            out[..., : s.rope_dim] *= self.rope_attention
            return out

        x = self.weights["token_embd.weight"][np.asarray(tokens)].astype(np.float64)  # (n, n_embd)
        for layer in range(s.n_layers):
            p = f"blk.{layer}."
            h = rms_norm(x, self.weights[p + "attn_norm.weight"], s.norm_eps)
            q = product(h, p + "attn_q.weight").reshape(n, s.n_heads, s.head_dim)
            k = product(h, p + "attn_k.weight").reshape(n, s.n_kv_heads, s.head_dim)
            v = product(h, p + "attn_v.weight").reshape(n, s.n_kv_heads, s.head_dim)
            q = rotated(q, p + "attn_q_norm.weight")
            k = rotated(k, p + "attn_k_norm.weight")
            k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
            scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(s.head_dim) + hidden_keys
            mixed = np.einsum("hqk,khd->qhd", softmax(scores), v).reshape(n, -1)
            x = x + product(mixed, p + "attn_output.weight")

            h = rms_norm(x, self.weights[p + "ffn_norm.weight"], s.norm_eps)
            gate, up = product(h, p + "ffn_gate.weight"), product(h, p + "ffn_up.weight")
            x = x + product(silu(gate) * up, p + "ffn_down.weight")

        x = rms_norm(x, self.weights["output_norm.weight"], s.norm_eps)
        head = "output.weight" if "output.weight" in self.weights else "token_embd.weight"
        return product(x, head)
