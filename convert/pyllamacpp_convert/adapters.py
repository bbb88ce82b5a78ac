"""LoRA adapters of either form, checked against the model file that they change."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from pyllamacpp.errors import FileError, FormatError, UnsupportedError
from pyllamacpp_convert.gguf_file import GgufModel, read_gguf
from pyllamacpp_convert.peft import LowRank, floats_of, is_peft, read_peft

_MATRIX = re.compile(
    r"blk\.\d+\.(attn_q|attn_k|attn_v|attn_output|ffn_gate|ffn_up|ffn_down)\.weight"
)


def read_adapter(path: Path, model: GgufModel) -> tuple[dict[str, LowRank], list[Path]]:
    """The changes by the names of the model's matrices, and the files they come from.

    path: a GGUF adapter, or a folder as PEFT saves it.

    Raises FileError when a file cannot be read, FormatError when it is damaged, no LoRA adapter or
    made for another model, UnsupportedError (naming it) when it changes something else than the
    layers' matrices.
    """
    if not path.exists():
        raise FileError(f"{path} does not exist; expected a GGUF adapter or a PEFT folder")
    if path.is_dir():
        if not is_peft(path):
            raise FormatError(f"{path} has no adapter_config.json: it is no PEFT adapter")
        n_heads = model.needed("attention.head_count")
        changes = read_peft(
            path,
            architecture=model.architecture,
            n_heads=n_heads,
            n_kv_heads=model.number(f"{model.architecture}.attention.head_count_kv") or n_heads,
        )
        files = sorted(file for file in path.glob("adapter_*") if file.is_file())
    else:
        changes, files = _read_gguf_adapter(path, model)
    if not changes:
        raise FormatError(f"{path}: the adapter has no tensors")
    for matrix, change in changes.items():
        _check(path, matrix, change, model)
    return changes, files


def _read_gguf_adapter(path: Path, model: GgufModel) -> tuple[dict[str, LowRank], list[Path]]:
    file = read_gguf(path)
    for key, expected in (("general.type", "adapter"), ("adapter.type", "lora")):
        found = file.metadata.get(key)
        if found is None or found.value != expected:
            what = "missing" if found is None else f"{found.value!r:.40}"
            raise FormatError(
                f"{path}: {key} is {what}, expected {expected!r}: it is no LoRA adapter"
            )
    architecture = file.metadata.get("general.architecture")
    if architecture is not None and architecture.value != model.architecture:
        raise FormatError(
            f"{path}: general.architecture is {architecture.value!r:.40}, not "
            f"{model.architecture!r}: it was made for another model"
        )
    stated = file.metadata.get("adapter.lora.alpha")
    alpha = stated.value if stated is not None else None
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise FormatError(f"{path}: adapter.lora.alpha is {alpha!r:.40}, expected a finite number")
    if alpha == 0:
        raise FormatError(f"{path}: adapter.lora.alpha is 0, expected another number")
    changes = {}
    for name, tensor in file.tensors.items():
        matrix, dot, side = name.rpartition(".")
        if not dot or side not in ("lora_a", "lora_b"):
            raise UnsupportedError(
                f"{path}: tensor {name} is neither a .lora_a nor a .lora_b, which is all this "
                "version can add"
            )
        other = f"{matrix}.lora_{'b' if side == 'lora_a' else 'a'}"
        if other not in file.tensors:
            raise FormatError(f"{path}: tensor {other} is missing beside {name}")
        if len(tensor.shape) != 2:
            raise FormatError(f"{path}: {name} has {len(tensor.shape)} dimensions, expected 2")
        if side == "lora_a":
            pair = file.tensors[other]
            scale = alpha / tensor.shape[0]
            changes[matrix] = LowRank(floats_of(tensor), floats_of(pair), scale)
    return changes, file.files


def _check(path: Path, matrix: str, change: LowRank, model: GgufModel) -> None:
    """That the change is one of this model's matrices, and finite."""
    target = model.tensors.get(matrix)
    if not _MATRIX.fullmatch(matrix) or target is None or len(target.shape) != 2:
        raise UnsupportedError(
            f"{path}: it changes {matrix}, which is not one of the layers' attn_q, attn_k, attn_v, "
            f"attn_output, ffn_gate, ffn_up and ffn_down of {model.files[0]}"
        )
    rows, columns = target.shape
    rank = len(change.a)
    if change.a.shape != (rank, columns) or change.b.shape != (rows, rank):
        (a_rows, a_columns), (b_rows, b_columns) = change.a.shape, change.b.shape
        raise FormatError(
            f"{path}: lora_a of {matrix} is {a_rows} x {a_columns} and lora_b {b_rows} x "
            f"{b_columns}; expected N x {columns} and {rows} x N: it was made for another model"
        )
    if not (np.isfinite(change.a).all() and np.isfinite(change.b).all()):
        raise FormatError(f"{path}: the change of {matrix} has values that are not finite")
