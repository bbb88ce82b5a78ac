"""pyllamacpp inspect"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import click

from .. import _core
from ..models.resolve import resolve_model
from .group import ExampleCommand
from .options import json_option

_LONGEST_ARRAY = 8
_LONGEST_TEXT = 100


@click.command(
    "inspect",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp inspect model.gguf",
        "pyllamacpp inspect smollm2-135m --json",
    ],
)
@json_option
@click.argument("file")
def command(file: str, as_json: bool) -> None:
    """Show the metadata, tensors, sizes and bits per weight of FILE.

    FILE is a GGUF file or the name of a fetched model. Arrays of more than 8 values are
    shortened, in --json to {"length": N, "first": [8 values]}.
    """
    path = resolve_model(file)
    gguf = _core.GgufFile(str(path))
    summary = _summary(str(path), gguf)
    click.echo(json.dumps(summary) if as_json else _page(summary))


def _summary(path: str, gguf: _core.GgufFile) -> dict[str, Any]:
    tensors = [
        {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "n_bytes": tensor.n_bytes,
            "offset": tensor.offset,
        }
        for tensor in gguf.tensors
    ]
    n_params = sum(math.prod(tensor.shape) for tensor in gguf.tensors)
    n_bytes = sum(tensor.n_bytes for tensor in gguf.tensors)
    return {
        "file": path,
        "version": gguf.version,
        "alignment": gguf.alignment,
        "n_tensors": len(tensors),
        "n_params": n_params,
        "n_bytes": n_bytes,
        "bits_per_weight": n_bytes * 8 / n_params if n_params else 0.0,
        "metadata": {key: _shortened(value) for key, value in gguf.metadata.items()},
        "tensors": tensors,
    }


def _shortened(value: object) -> object:
    if isinstance(value, list) and len(value) > _LONGEST_ARRAY:
        return {"length": len(value), "first": value[:_LONGEST_ARRAY]}
    return value


def _page(summary: Mapping[str, Any]) -> str:
    lines = [
        f"file             {summary['file']}",
        f"GGUF version     {summary['version']}, alignment {summary['alignment']}",
        f"parameters       {summary['n_params']:,} in {summary['n_tensors']} tensors",
        f"weights          {summary['n_bytes']:,} bytes",
        f"bits per weight  {summary['bits_per_weight']:.3f}",
        "",
        "metadata",
    ]
    lines += [f"  {key} = {_shown(value)}" for key, value in summary["metadata"].items()]
    lines += ["", "tensors"]
    for tensor in summary["tensors"]:
        shape = " x ".join(str(size) for size in tensor["shape"])
        lines.append(
            f"  {tensor['name']:<32} {tensor['dtype']:<6} {shape:<20} {tensor['n_bytes']:>14,}"
        )
    return "\n".join(lines)


def _shown(value: object) -> str:
    if isinstance(value, dict):
        first = ", ".join(json.dumps(item, ensure_ascii=False) for item in value["first"])
        return f"[{first}, ...] ({value['length']:,} values)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}... ({len(text):,} long)"
