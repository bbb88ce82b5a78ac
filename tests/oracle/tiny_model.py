"""Small random models of every variant, written as GGUF files by the `gguf` package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@dataclass(frozen=True)
class TinyModel:
    """A shape, and what its file says besides.

    metadata: further keys without the architecture's prefix; tensors: further tensors.
    """

    architecture: str = "llama"
    n_layers: int = 2
    n_embd: int = 64
    n_ff: int = 96
    n_heads: int = 4
    n_kv_heads: int = 2
    n_ctx: int = 4096
    head_dim: int | None = None
    rope_dim: int | None = None
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    qkv_bias: bool = False
    qk_norm: bool = False
    tied: bool = False
    chat_template: str | None = None
    control_tokens: tuple[str, ...] = ()  # after the bytes
    metadata: Mapping[str, object] = field(default_factory=dict)
    tensors: Mapping[str, np.ndarray] = field(default_factory=dict)
    seed: int = 1

    @property
    def n_vocab(self) -> int:
        return len(BYTES) + 3 + len(self.control_tokens)

    def weights(self) -> dict[str, np.ndarray]:
        """Tensors by their GGUF names, float32, rows first."""
        rng = np.random.default_rng(self.seed)
        head_dim = self.head_dim or self.n_embd // self.n_heads

        def matrix(rows: int, cols: int) -> np.ndarray:
            return (rng.standard_normal((rows, cols)) / cols**0.5).astype(np.float32)

        def vector(n: int, mean: float) -> np.ndarray:
            return (mean + 0.2 * rng.standard_normal(n)).astype(np.float32)

        q_dim, kv_dim = self.n_heads * head_dim, self.n_kv_heads * head_dim
        tensors = {"token_embd.weight": matrix(self.n_vocab, self.n_embd) * self.n_embd**0.5}
        for layer in range(self.n_layers):
            p = f"blk.{layer}."
            tensors[p + "attn_norm.weight"] = vector(self.n_embd, 1)
            # Larger than trained ones, so that attention is far from uniform.
            tensors[p + "attn_q.weight"] = 2 * matrix(q_dim, self.n_embd)
            tensors[p + "attn_k.weight"] = 2 * matrix(kv_dim, self.n_embd)
            tensors[p + "attn_v.weight"] = matrix(kv_dim, self.n_embd)
            tensors[p + "attn_output.weight"] = matrix(self.n_embd, q_dim)
            tensors[p + "ffn_norm.weight"] = vector(self.n_embd, 1)
            tensors[p + "ffn_gate.weight"] = matrix(self.n_ff, self.n_embd)
            tensors[p + "ffn_up.weight"] = matrix(self.n_ff, self.n_embd)
            tensors[p + "ffn_down.weight"] = matrix(self.n_embd, self.n_ff)
            if self.qkv_bias:
                tensors[p + "attn_q.bias"] = vector(q_dim, 0)
                tensors[p + "attn_k.bias"] = vector(kv_dim, 0)
                tensors[p + "attn_v.bias"] = vector(kv_dim, 0)
            if self.qk_norm:
                tensors[p + "attn_q_norm.weight"] = vector(head_dim, 1)
                tensors[p + "attn_k_norm.weight"] = vector(head_dim, 1)
        tensors["output_norm.weight"] = vector(self.n_embd, 1)
        if not self.tied:
            tensors["output.weight"] = matrix(self.n_vocab, self.n_embd)
        return tensors | dict(self.tensors)

    def write(self, path: Path) -> Path:
        """Writes the file and returns its path."""
        writer = gguf.GGUFWriter(path, self.architecture)
        writer.add_block_count(self.n_layers)
        writer.add_context_length(self.n_ctx)
        writer.add_embedding_length(self.n_embd)
        writer.add_feed_forward_length(self.n_ff)
        writer.add_head_count(self.n_heads)
        writer.add_head_count_kv(self.n_kv_heads)
        writer.add_layer_norm_rms_eps(self.norm_eps)
        writer.add_rope_freq_base(self.rope_theta)
        if self.head_dim:
            writer.add_key_length(self.head_dim)
            writer.add_value_length(self.head_dim)
        if self.rope_dim:
            writer.add_rope_dimension_count(self.rope_dim)
        writer.add_tokenizer_model("llama")
        writer.add_token_list(["<unk>", "<s>", "</s>", *BYTES, *self.control_tokens])
        writer.add_token_scores([0.0] * self.n_vocab)
        writer.add_token_types([2, 3, 3] + [6] * len(BYTES) + [3] * len(self.control_tokens))
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        if self.chat_template is not None:
            writer.add_chat_template(self.chat_template)
        for key, value in self.metadata.items():
            name = f"{self.architecture}.{key}"
            if isinstance(value, str):
                writer.add_string(name, value)
            elif isinstance(value, int):
                writer.add_uint32(name, value)
            elif isinstance(value, float):
                writer.add_float32(name, value)
            else:
                raise TypeError(f"{name}: no way to write {value!r}")
        for name, tensor in self.weights().items():
            writer.add_tensor(name, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path
