"""Reads tensors of safetensors files by ranges.

The format: the length of a JSON header in 8 bytes, the header, the data
(https://github.com/huggingface/safetensors). The package of that name maps whole files and cannot
give bfloat16 to numpy.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyllamacpp.errors import FormatError, UnsupportedError
from pyllamacpp_convert.ranges import open_to_read, read_exactly
from pyllamacpp_convert.source import Stored

_MOST_HEADER = 100_000_000
_DTYPES = {"F16": "f16", "BF16": "bf16", "F32": "f32"}
_NUMPY: dict[str, np.dtype[Any]] = {
    "f16": np.dtype("<f2"),
    "bf16": np.dtype("<u2"),
    "f32": np.dtype("<f4"),
}
# Bytes of an element; tensors of these types are no weights.
_OTHER = {"F64": 8, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1}
_OTHER |= {"BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}


@dataclass(frozen=True)
class SafeTensor:
    """`Rows` that lie in a file, at an offset in bytes."""

    path: Path
    dtype: str  # f16, bf16 or f32
    offset: int
    shape: tuple[int, ...]

    def read(self, first: int, last: int) -> Stored:
        """As `Rows.read`."""
        out = np.empty((last - first, self.shape[-1]), _NUMPY[self.dtype])
        row_bytes = self.shape[-1] * out.itemsize
        with open_to_read(self.path) as file:
            into = out.view(np.uint8).data.cast("B")
            read_exactly(file, self.offset + first * row_bytes, into, self.path)
        return out


def read_tensors(path: Path) -> dict[str, SafeTensor]:
    """The weights of a file by name.

    Raises FileError when it cannot be read, FormatError when it is not such a file or is
    truncated, UnsupportedError for weights of 8 bits.
    """
    with open_to_read(path) as file:
        size = file.seek(0, io.SEEK_END)
        if size < 8:
            raise FormatError(f"{path} is too short for a safetensors file: fetch it again")
        length = bytearray(8)
        read_exactly(file, 0, memoryview(length), path)
        n = int.from_bytes(length, "little")
        if n > min(_MOST_HEADER, size - 8):
            raise FormatError(f"{path} is truncated or no safetensors file: fetch it again")
        header = bytearray(n)
        read_exactly(file, 8, memoryview(header), path)
    try:
        entries = json.loads(header.decode("utf-8"))
        if not isinstance(entries, dict):
            raise TypeError
    except (ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{path}: its header is not a JSON object") from error
    entries.pop("__metadata__", None)
    tensors = {}
    for name, entry in entries.items():
        tensor = _tensor(path, name, entry, 8 + n, size)
        if tensor is not None:
            tensors[name] = tensor
    return tensors


def _tensor(path: Path, name: str, entry: Any, data: int, size: int) -> SafeTensor | None:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if not all(type(n) is int and 0 <= n < 1 << 48 for n in (*shape, begin, end)):
            raise TypeError
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path}: its header says nothing sensible of {name:.80}") from error
    if str(dtype).startswith("F8"):
        raise UnsupportedError(
            f"{path}: {name:.80} is of type {dtype}; convert a checkpoint of 16 or 32 bits"
        )
    item = _OTHER.get(dtype) or (_NUMPY[_DTYPES[dtype]].itemsize if dtype in _DTYPES else 0)
    if not item:
        raise UnsupportedError(f"{path}: {name:.80} is of the unknown type {dtype!r:.20}")
    if end - begin != item * math.prod(shape):
        raise FormatError(f"{path}: the size of {name:.80} does not fit its shape {list(shape)}")
    if data + end > size:
        raise FormatError(f"{path} ends before {name:.80} does: fetch it again")
    if dtype in _OTHER or not 1 <= len(shape) <= 2 or 0 in shape:
        return None
    return SafeTensor(path, _DTYPES[dtype], data + begin, shape)
