"""Importance matrices: how much each column of each matrix counts, from `pyllamacpp imatrix`.

Files are llama.cpp's: GGUF ones, and its older binary format.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pyllamacpp.errors import FileError, FormatError, InvalidArgumentError
from pyllamacpp.kernels import Floats
from pyllamacpp_convert.gguf_file import GgufModel, GgufRows, read_file
from pyllamacpp_convert.metadata import Value
from pyllamacpp_convert.writer import GgufStreamWriter, TensorSpec

_SUMS, _COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True)
class Importance:
    """Mean squares of the inputs of each column, float32 [columns], by the matrix's name.

    path, datasets, n_chunks: where it comes from and what it was measured on.
    """

    columns: dict[str, Floats]
    path: Path
    datasets: list[str] = field(default_factory=list)
    n_chunks: int = 0

    def of(self, name: str, n_columns: int) -> Floats | None:
        """The matrix's, None where the file has none.

        Raises InvalidArgumentError when the file has another number of columns for it.
        """
        found = self.columns.get(name)
        if found is not None and len(found) != n_columns:
            raise InvalidArgumentError(
                f"{self.path} has {len(found)} columns for {name}, which has {n_columns}: it was "
                "made with another model"
            )
        return found


def read_importance(path: Path) -> Importance:
    """Reads a file that `pyllamacpp imatrix` or llama.cpp's llama-imatrix wrote.

    Raises FileError or FormatError.
    """
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
        found = _from_gguf(path, read_file(path)) if is_gguf else _from_legacy(path)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    for name, values in found.columns.items():
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise FormatError(f"{path}: the importance of {name} is not finite and positive")
    if not found.columns:
        raise FormatError(f"{path} holds no importances")
    return found


def write_importance(
    path: Path,
    sums: Mapping[str, tuple[npt.NDArray[np.float64], int]],
    *,
    architecture: str,
    dataset: str,
    n_chunks: int,
    chunk_size: int,
) -> None:
    """Writes a GGUF importance matrix.

    sums: by the name of a matrix, the sum of the squares of its inputs [columns] and of how many.
    dataset, n_chunks, chunk_size: the text, and how many windows of how many tokens.

    Raises FileError.
    """
    metadata: dict[str, Value] = {
        "general.architecture": architecture,
        "general.type": "imatrix",
        "imatrix.datasets": [dataset],
        "imatrix.chunk_count": n_chunks,
        "imatrix.chunk_size": chunk_size,
    }
    tensors = {}
    for name, (squares, count) in sums.items():
        tensors[name + _SUMS] = squares.astype(np.float32)
        tensors[name + _COUNTS] = np.array([count], np.float32)
    specs = [TensorSpec(name, values.shape, "f32") for name, values in tensors.items()]
    with GgufStreamWriter(path, metadata, specs) as writer:
        for name, values in tensors.items():
            writer.write(name, 0, values.tobytes())
        writer.finish()


def _from_gguf(path: Path, file: GgufModel) -> Importance:
    kind = file.metadata.get("general.type")
    if kind is None or kind.value != "imatrix":
        raise FormatError(
            f"{path} is not an importance matrix: its general.type is {kind and kind.value}"
        )
    columns = {}
    for key, tensor in file.tensors.items():
        if not key.endswith(_SUMS):
            continue
        name = key.removesuffix(_SUMS)
        if name + _COUNTS not in file.tensors:
            raise FormatError(f"{path}: {name}{_COUNTS} is missing")
        sums, counts = _floats(path, tensor), _floats(path, file.tensors[name + _COUNTS])
        if len(sums) != len(counts):
            raise FormatError(f"{path}: {key} has {len(sums)} rows and {len(counts)} counts")
        # A matrix that no row went through says nothing of its columns.
        means = np.where(counts > 0, sums / np.maximum(counts, 1), 1).astype(np.float32)
        columns[name] = means.reshape(-1)
    datasets = file.metadata.get("imatrix.datasets")
    return Importance(
        columns,
        path,
        [str(name) for name in datasets.value] if datasets else [],
        file.number("imatrix.chunk_count") or 0,
    )


def _floats(path: Path, tensor: GgufRows) -> Floats:
    if tensor.dtype != "f32":
        raise FormatError(f"{path}: {tensor.name} is {tensor.dtype}, expected f32")
    rows = int(np.prod(tensor.shape[:-1]))
    return tensor.read(0, rows).astype(np.float32)


def _from_legacy(path: Path) -> Importance:
    """int32 entries; of each a name, calls and values to divide by them; then chunks, dataset."""
    data = path.read_bytes()
    at = 0

    def number() -> int:
        nonlocal at
        at += 4
        if at > len(data):
            raise FormatError(f"{path} is not an importance matrix, or is truncated")
        return int(struct.unpack_from("<i", data, at - 4)[0])

    def take(n: int) -> bytes:
        nonlocal at
        if not 0 <= n <= len(data) - at:
            raise FormatError(f"{path} is not an importance matrix, or is truncated")
        at += n
        return data[at - n : at]

    n_entries = number()
    if not 0 < n_entries <= len(data) // 12:
        raise FormatError(f"{path} is not an importance matrix")
    columns = {}
    for _ in range(n_entries):
        name = take(number()).decode("utf-8", "replace")
        n_calls = number()
        values = np.frombuffer(take(4 * number()), "<f4").astype(np.float32)
        columns[name] = values / np.float32(max(n_calls, 1))
    if at == len(data):
        return Importance(columns, path)
    n_chunks = number()
    return Importance(columns, path, [take(number()).decode("utf-8", "replace")], n_chunks)
