"""Hugging Face folders: config.json and *.safetensors or pytorch_model*.bin.

Of the architectures that have LLaMA's block. Llama's heads have the halves of each rotated pair
apart here; GGUF's llama has them side by side, its qwen2 and qwen3 leave them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from pyllamacpp.errors import FileError, FormatError, UnsupportedError
from pyllamacpp_convert import safetensors, torch_pickle
from pyllamacpp_convert.joined import Interleaved, Vector, are_equal, rope_factors
from pyllamacpp_convert.source import Checkpoint, Rows
from pyllamacpp_convert.writer import Value


@dataclass(frozen=True)
class _Architecture:
    gguf: str
    interleaved: bool
    biases: bool = False
    head_norms: bool = False


_ARCHITECTURES = {
    "LlamaForCausalLM": _Architecture("llama", interleaved=True),
    "MistralForCausalLM": _Architecture("llama", interleaved=True),
    "Qwen2ForCausalLM": _Architecture("qwen2", interleaved=False, biases=True),
    "Qwen3ForCausalLM": _Architecture("qwen3", interleaved=False, head_norms=True),
}
_MATRICES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_HEAD_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
_BIASES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
_IGNORED = (".rotary_emb.inv_freq", ".self_attn.masked_bias", ".self_attn.bias")


def is_huggingface(folder: Path) -> bool:
    """Whether the folder holds such a model's configuration."""
    return (folder / "config.json").is_file()


def open_huggingface(folder: Path, *, ctx: int | None = None) -> Checkpoint:
    """Opens the files of a folder as one model; ctx: instead of what config.json says.

    Raises FormatError when files or tensors are missing, damaged or do not fit config.json,
    UnsupportedError for other architectures, FileError when something cannot be read.
    """
    config_path = folder / "config.json"
    config = _read_object(config_path)
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    architecture = _ARCHITECTURES.get(name) if isinstance(name, str) else None
    if architecture is None:
        raise UnsupportedError(
            f"{config_path}: the architecture {name!r:.60} cannot be converted; these can: "
            f"{', '.join(_ARCHITECTURES)}"
        )
    if config.get("quantization_config"):
        raise UnsupportedError(
            f"{config_path}: the weights are quantized already; convert the original of 16 bits"
        )
    if config.get("hidden_act", "silu") != "silu":
        raise UnsupportedError(f"{config_path}: hidden_act is {config['hidden_act']!r:.40}")
    tensors, files = _read_tensors(folder)
    return _Reader(folder, config, architecture, tensors, [config_path, *files], ctx).checkpoint()


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path} is not an object")
    return value


def _read_tensors(folder: Path) -> tuple[dict[str, Rows], list[Path]]:
    """The tensors of all files, and the files."""
    for pattern, read in (
        ("model*.safetensors", safetensors.read_tensors),
        ("pytorch_model*.bin", torch_pickle.read_tensors),
    ):
        index_path = folder / (pattern.replace("*", "") + ".index.json")
        listed: dict[str, Any] = {}
        if index_path.is_file():
            listed = _read_object(index_path).get("weight_map") or {}
            if not isinstance(listed, dict) or not all(
                isinstance(v, str) and "/" not in v and "\\" not in v for v in listed.values()
            ):
                raise FormatError(f"{index_path} has no map of names to files")
            paths = [folder / file for file in sorted(set(listed.values()))]
        else:
            paths = sorted(folder.glob(pattern))
        if not paths:
            continue
        tensors: dict[str, Rows] = {}
        for path in paths:
            if not path.is_file():
                raise FormatError(
                    f"{index_path.name} lists {path.name}, which is missing: fetch it"
                )
            for name, tensor in read(path).items():
                if name in tensors:
                    raise FormatError(f"{folder}: {name} is in two files, one is {path.name}")
                tensors[name] = tensor
        for name, file in listed.items():
            if name not in tensors and not name.endswith(_IGNORED):
                raise FormatError(f"{index_path.name} lists {name} in {file}, which has it not")
        return tensors, [*paths, *([index_path] if index_path.is_file() else [])]
    raise FormatError(
        f"{folder} has a config.json, but neither model*.safetensors nor pytorch_model*.bin: "
        "fetch the weights"
    )


@dataclass
class _Reader:
    """The tensors of one model on their way to a `Checkpoint`."""

    folder: Path
    config: Mapping[str, Any]
    architecture: _Architecture
    tensors: dict[str, Rows]
    files: list[Path]
    ctx: int | None

    def checkpoint(self) -> Checkpoint:
        self.notes: list[str] = []
        dim, n_layers = self._count("hidden_size"), self._count("num_hidden_layers")
        n_heads, n_ff = self._count("num_attention_heads"), self._count("intermediate_size")
        n_kv_heads = self._count("num_key_value_heads", n_heads)
        head_dim = self._count("head_dim", dim // n_heads)
        arch = self.architecture.gguf
        embedding = self._take("model.embed_tokens.weight", None)
        n_vocab = embedding.shape[0]
        self._expect("model.embed_tokens.weight", embedding, (n_vocab, dim))
        out: dict[str, Rows] = {"token_embd.weight": embedding}
        q_dim, kv_dim = n_heads * head_dim, n_kv_heads * head_dim
        shapes = {
            "attn_q": (q_dim, dim),
            "attn_k": (kv_dim, dim),
            "attn_v": (kv_dim, dim),
            "attn_output": (dim, q_dim),
            "ffn_gate": (n_ff, dim),
            "ffn_up": (n_ff, dim),
            "ffn_down": (dim, n_ff),
        }
        heads = {"attn_q": n_heads, "attn_k": n_kv_heads}
        for i in range(n_layers):
            theirs, ours = f"model.layers.{i}.", f"blk.{i}."
            for name, target in _NORMS.items():
                out[f"{ours}{target}.weight"] = self._take(f"{theirs}{name}.weight", (dim,))
            for name, target in _MATRICES.items():
                rows = self._take(f"{theirs}{name}.weight", shapes[target])
                if self.architecture.interleaved and target in heads:
                    rows = Interleaved(rows, heads[target])
                out[f"{ours}{target}.weight"] = rows
            if self.architecture.biases:
                for name, target in _BIASES.items():
                    out[f"{ours}{target}.bias"] = self._take(
                        f"{theirs}{name}.bias", shapes[target][:1]
                    )
            if self.architecture.head_norms:
                for name, target in _HEAD_NORMS.items():
                    out[f"{ours}{target}.weight"] = self._take(
                        f"{theirs}{name}.weight", (head_dim,)
                    )
        out["output_norm.weight"] = self._take("model.norm.weight", (dim,))
        self._add_output(out, (n_vocab, dim))
        rest = sorted(name for name in self.tensors if not name.endswith(_IGNORED))
        if rest:
            raise UnsupportedError(
                f"{self.folder} has a tensor {rest[0]} that no {arch} of {n_layers} layers has"
            )
        context = self.ctx or self._count("max_position_embeddings", 2048)
        metadata: dict[str, Value] = {
            "general.architecture": arch,
            "general.name": self.folder.resolve().name,
            f"{arch}.vocab_size": n_vocab,
            f"{arch}.context_length": context,
            f"{arch}.embedding_length": dim,
            f"{arch}.block_count": n_layers,
            f"{arch}.feed_forward_length": n_ff,
            f"{arch}.attention.head_count": n_heads,
            f"{arch}.attention.head_count_kv": n_kv_heads,
            f"{arch}.attention.layer_norm_rms_epsilon": self._real("rms_norm_eps", 1e-6),
            f"{arch}.attention.key_length": head_dim,
            f"{arch}.attention.value_length": head_dim,
            f"{arch}.rope.dimension_count": head_dim,
        }
        if window := self._window(n_layers):
            metadata[f"{arch}.attention.sliding_window"] = window
        self._add_rope(metadata, out, head_dim, context)
        n = len([path for path in self.files if path.suffix != ".json"])
        kind = f"Hugging Face, {n} file{'s' if n > 1 else ''}"
        return Checkpoint(self.folder, kind, metadata, out, self.files, n_vocab, self.notes)

    def _add_output(self, out: dict[str, Rows], shape: tuple[int, int]) -> None:
        embedding = out["token_embd.weight"]
        if self.config.get("tie_word_embeddings"):
            self.tensors.pop("lm_head.weight", None)
            return
        output = self._take("lm_head.weight", shape)
        if are_equal(output, embedding):
            self.notes.append("the output matrix is the embedding, which is stored once")
        else:
            out["output.weight"] = output

    def _take(self, name: str, shape: Sequence[int] | None) -> Rows:
        try:
            rows = self.tensors.pop(name)
        except KeyError:
            raise FormatError(
                f"{self.folder}: {name} is missing: a file is, or config.json is another model's"
            ) from None
        if shape is not None:
            self._expect(name, rows, shape)
        return rows

    def _expect(self, name: str, rows: Rows, shape: Sequence[int]) -> None:
        if tuple(rows.shape) != tuple(shape):
            raise FormatError(
                f"{self.folder}: {name} is {_times(rows.shape)}, expected {_times(shape)} by "
                "config.json"
            )

    def _count(self, key: str, otherwise: int | None = None) -> int:
        value = self.config.get(key)
        value = otherwise if value is None else value
        if type(value) is not int or not 0 < value < 1 << 24:
            self._wrong(key, value)
        return value

    def _real(
        self, key: str, otherwise: float | None, among: Mapping[str, Any] | None = None
    ) -> float:
        value = (self.config if among is None else among).get(key)
        value = otherwise if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._wrong(key, value)
        if not 0 < value < math.inf:
            self._wrong(key, value)
        return float(value)

    def _wrong(self, key: str, value: object) -> NoReturn:
        raise FormatError(
            f"{self.folder / 'config.json'}: {key} is {value!r:.40}, expected a positive number"
        )

    def _window(self, n_layers: int) -> int | None:
        """Tokens a query sees, where all layers are limited to a window."""
        if not self.config.get("sliding_window") or self.config.get("use_sliding_window") is False:
            return None
        first = self.config.get("max_window_layers", 0) if self.architecture.gguf != "llama" else 0
        kinds = set(self.config.get("layer_types") or ())
        if kinds == {"full_attention"} or (not kinds and first >= n_layers):
            return None
        if len(kinds) > 1 or (not kinds and first > 0):
            raise UnsupportedError(
                f"{self.folder / 'config.json'}: a sliding window in some layers only cannot be run"
            )
        return self._count("sliding_window")

    def _add_rope(
        self, metadata: dict[str, Value], out: dict[str, Rows], head_dim: int, context: int
    ) -> None:
        """Positions: theta, and how they are stretched beyond the length of training."""
        arch = self.architecture.gguf
        scaling = self.config.get("rope_parameters") or self.config.get("rope_scaling") or {}
        if not isinstance(scaling, dict):
            raise FormatError(f"{self.folder / 'config.json'}: rope_scaling is not an object")
        theta = self._real(
            "rope_theta", 10000.0, scaling if "rope_theta" in scaling else self.config
        )
        metadata[f"{arch}.rope.freq_base"] = theta
        for source in (scaling, self.config):
            if source.get("partial_rotary_factor", 1.0) != 1.0:
                raise UnsupportedError(f"{self.folder}: heads rotated in part cannot be run")
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        prefix = f"{arch}.rope.scaling."
        if kind == "default":
            return
        original = self.config.get("original_max_position_embeddings")
        original = scaling.get("original_max_position_embeddings", original)
        trained = context if original is None else original
        if type(trained) is not int or trained < 1:
            self._wrong("original_max_position_embeddings", trained)
        if kind == "llama3":
            factors = rope_factors(
                head_dim,
                theta,
                self._real("factor", None, scaling),
                context=trained,
                low=self._real("low_freq_factor", 1.0, scaling),
                high=self._real("high_freq_factor", 4.0, scaling),
            )
            out["rope_freqs.weight"] = Vector(factors)
        elif kind == "linear":
            metadata[prefix + "type"] = "linear"
            metadata[prefix + "factor"] = self._real("factor", None, scaling)
        elif kind == "yarn" and not {"mscale", "mscale_all_dim"} & scaling.keys():
            factor = self._real("factor", None, scaling)
            metadata[prefix + "type"] = "yarn"
            metadata[prefix + "factor"] = factor
            metadata[prefix + "original_context_length"] = trained
            metadata[prefix + "yarn_beta_fast"] = self._real("beta_fast", 32.0, scaling)
            metadata[prefix + "yarn_beta_slow"] = self._real("beta_slow", 1.0, scaling)
            if scaling.get("attention_factor") is not None:
                # GGUF's is a factor on what YaRN gives.
                given = self._real("attention_factor", None, scaling)
                metadata[prefix + "attn_factor"] = given / (1 + 0.1 * math.log(factor))
        elif kind == "longrope":
            for name in ("short", "long"):
                out[f"rope_factors_{name}.weight"] = self._factors(scaling, name, head_dim // 2)
            stretched = max(context / trained, 1.0)
            usual = math.sqrt(1 + math.log(stretched) / math.log(trained)) if stretched > 1 else 1.0
            metadata[prefix + "type"] = "longrope"
            metadata[prefix + "original_context_length"] = trained
            metadata[prefix + "attn_factor"] = self._real("attention_factor", usual, scaling)
        else:
            raise UnsupportedError(
                f"{self.folder / 'config.json'}: positions scaled by {kind!r:.40} cannot be run; "
                "these can: linear, llama3, yarn, longrope"
            )

    def _factors(self, scaling: Mapping[str, Any], name: str, n: int) -> Vector:
        values = scaling.get(f"{name}_factor")
        if (
            not isinstance(values, list)
            or len(values) != n
            or not all(type(v) in (int, float) and 0 < v < math.inf for v in values)
        ):
            raise FormatError(
                f"{self.folder / 'config.json'}: {name}_factor is not {n} positive numbers"
            )
        return Vector(np.array(values, np.float32))


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
