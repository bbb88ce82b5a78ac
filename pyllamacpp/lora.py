"""LoRA adapters of a loaded model: GGUF adapter files, and folders as PEFT saves them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import _core
from .errors import FileError, FormatError, InvalidArgumentError


def load_adapter(model: _core.Model, path: str | os.PathLike[str]) -> _core.Adapter:
    """An adapter that contexts of `model` can apply (`Context.set_adapters`).

    Args:
        model: The model it changes, all of its layers on the CPU.
        path: A GGUF adapter file, or a folder with adapter_config.json and
            adapter_model.safetensors or adapter_model.bin.

    Raises:
        FileError: A file cannot be read.
        FormatError: It is damaged, no LoRA adapter, or made for another model; names the tensor.
        UnsupportedError: It changes what cannot be changed here; names it.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"{path} does not exist; expected a GGUF adapter or a PEFT folder")
    if not path.is_dir():
        return _core.Adapter(model, str(path))
    # numpy and the converter are imported for this form only.
    from pyllamacpp_convert.peft import is_peft, read_peft

    if not is_peft(path):
        raise FormatError(f"{path} has no adapter_config.json: it is no PEFT adapter")
    config = model.config
    changes = read_peft(
        path,
        architecture=config.architecture,
        n_heads=config.n_heads,
        n_kv_heads=config.n_kv_heads,
    )
    return _core.Adapter.from_arrays(
        model, str(path), {name: (c.a, c.b, c.scale) for name, c in changes.items()}
    )


def adapter_bytes(path: str | os.PathLike[str]) -> int:
    """The memory that `load_adapter` will take for an adapter, float32: from its header alone.

    Raises as `load_adapter`, where the header shows it.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"{path} does not exist; expected a GGUF adapter or a PEFT folder")
    if path.is_dir():
        from pyllamacpp_convert.peft import n_values

        return 4 * n_values(path)
    return sum(4 * math.prod(tensor.shape) for tensor in _core.GgufFile(str(path)).tensors)


def adapter_pairs(pairs: Iterable[Any]) -> tuple[tuple[_core.Adapter, float], ...]:
    """Pairs of an adapter and its scale, checked.

    Raises InvalidArgumentError for anything else, or a scale that is not finite.
    """
    checked: list[tuple[_core.Adapter, float]] = []
    for pair in pairs:
        match pair:
            case (_core.Adapter() as adapter, int() | float() as scale) if math.isfinite(scale):
                checked.append((adapter, float(scale)))
            case _:
                raise InvalidArgumentError(
                    "lora must be pairs of an adapter (load_lora) and a finite scale, "
                    f"found {pair!r:.80}"
                )
    return tuple(checked)
