"""LoRA adapters as the PEFT library saves them: adapter_config.json and the weights beside it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyllamacpp.errors import FileError, FormatError, UnsupportedError
from pyllamacpp.kernels import Floats, dequantize
from pyllamacpp_convert import safetensors, torch_pickle
from pyllamacpp_convert.joined import Interleaved
from pyllamacpp_convert.source import Rows

_MATRICES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_NAME = re.compile(r"base_model\.model\.(model\.layers\.(\d{1,6})\.(.+))\.lora_([AB])\.weight")
_WEIGHTS = (
    ("adapter_model.safetensors", safetensors.read_tensors),
    ("adapter_model.bin", torch_pickle.read_tensors),
)
# What would change the result and is not applied, unless it has one of these values.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "use_dora": (None, False),
    "use_qalora": (None, False),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, [], {}),
    "alora_invocation_tokens": (None, []),
    "fan_in_fan_out": (None, False),
    "bias": (None, "none"),
    "lora_bias": (None, False),
}


@dataclass(frozen=True)
class LowRank:
    """The change scale * b a of a matrix: a [rank, columns], b [rows, rank]."""

    a: Floats
    b: Floats
    scale: float


def is_peft(folder: Path) -> bool:
    """Whether the folder holds such an adapter's configuration."""
    return (folder / "adapter_config.json").is_file()


def n_values(folder: Path) -> int:
    """How many numbers an adapter's matrices hold, without reading them. Raises as `read_peft`."""
    return sum(math.prod(rows.shape) for rows in _read_weights(folder).values())


def read_peft(
    folder: Path, *, architecture: str, n_heads: int, n_kv_heads: int
) -> dict[str, LowRank]:
    """The changes by the GGUF names of their matrices, in GGUF's order of rows.

    architecture, n_heads, n_kv_heads: of the model it is for; of "llama" the rows of queries and
    keys are reordered as those of its matrices were.

    Raises FileError when a file cannot be read, FormatError when it is damaged or half of a pair is
    missing, UnsupportedError (naming it) for what cannot be applied: DoRA, modules_to_save, biases,
    other modules.
    """
    config_path = folder / "adapter_config.json"
    config = _read_config(config_path)
    tensors = _read_weights(folder)
    halves: dict[str, dict[str, Rows]] = {}
    modules: dict[str, str] = {}
    for name, rows in tensors.items():
        match = _NAME.fullmatch(name)
        target = _MATRICES.get(match[3]) if match else None
        if not match or target is None:
            raise UnsupportedError(
                f"{folder}: {name} cannot be applied; lora_A and lora_B of q_proj, k_proj, v_proj, "
                "o_proj, gate_proj, up_proj and down_proj can"
            )
        matrix = f"blk.{int(match[2])}.{target}.weight"
        halves.setdefault(matrix, {})[match[4]] = rows
        modules[matrix] = match[1]
    if not halves:
        raise FormatError(f"{folder}: the adapter has no tensors")
    heads = {"attn_q": n_heads, "attn_k": n_kv_heads} if architecture == "llama" else {}
    changes = {}
    for matrix, pair in halves.items():
        module = modules[matrix]
        for side in "AB":
            if side not in pair:
                raise FormatError(f"{folder}: lora_{side} of {module} is missing")
            if len(pair[side].shape) != 2:
                raise FormatError(f"{folder}: lora_{side} of {module} is no matrix")
        a, b = pair["A"], pair["B"]
        rank = a.shape[0]
        if b.shape[1] != rank:
            raise FormatError(
                f"{folder}: lora_A of {module} has {rank} rows, but lora_B {b.shape[1]} columns"
            )
        n = heads.get(matrix.split(".")[2])
        if n is not None:
            if b.shape[0] % (2 * n):
                raise FormatError(
                    f"{folder}: lora_B of {module} has {b.shape[0]} rows, expected {n} heads"
                )
            b = Interleaved(b, n)
        scale = _alpha(config_path, config, module) / (
            math.sqrt(rank) if config.get("use_rslora") else rank
        )
        changes[matrix] = LowRank(floats_of(a), floats_of(b), scale)
    return changes


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise FormatError(f"{path} is not an object")
    if config.get("peft_type") != "LORA":
        raise UnsupportedError(f"{path}: peft_type is {config.get('peft_type')!r:.40}, not 'LORA'")
    for key, harmless in _REFUSED.items():
        if config.get(key) not in harmless:
            raise UnsupportedError(f"{path}: {key} is {config[key]!r:.60}, which is not supported")
    return config


def _read_weights(folder: Path) -> dict[str, Rows]:
    for name, read in _WEIGHTS:
        if (folder / name).is_file():
            return dict(read(folder / name))
    names = " nor ".join(name for name, _ in _WEIGHTS)
    raise FormatError(f"{folder} has an adapter_config.json, but neither {names}")


def _alpha(path: Path, config: dict[str, Any], module: str) -> float:
    """lora_alpha, or what alpha_pattern says of the module: a pattern matches its end."""
    alpha = config.get("lora_alpha")
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise FormatError(f"{path}: alpha_pattern is not an object")
    for pattern, value in patterns.items():
        # PEFT takes regular expressions; those of names in use are plain.
        plain = pattern.removeprefix("^")
        if not re.fullmatch(r"[\w.]+", plain):
            raise UnsupportedError(f"{path}: alpha_pattern {pattern!r:.60} is not a plain name")
        if f".{module}".endswith(f".{plain}"):
            alpha = value
            break
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise FormatError(f"{path}: lora_alpha is {alpha!r:.40}, expected a finite number")
    return float(alpha)


def floats_of(rows: Rows) -> Floats:
    """A whole matrix as float32."""
    n, columns = rows.shape
    stored = np.ascontiguousarray(rows.read(0, n))
    return dequantize(rows.dtype, stored, n * columns).reshape(n, columns)
