"""Writes a GGUF in pieces: header and tensor table at once, tensor data in row bands.

Everything goes to `OUT.part`; the final name appears in `finish`, after the header was read back.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

import gguf
import numpy as np

from pyllamacpp.errors import FileError, FormatError, InvalidArgumentError
from pyllamacpp.kernels import TYPE_IDS, bytes_of

Value: TypeAlias = bool | int | float | str | Sequence[str] | Sequence[int] | Sequence[float]


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of the file: `shape` rows first, `dtype` one of `kernels.TYPE_IDS`."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def n_rows(self) -> int:
        """Rows of the last dimension's length."""
        return math.prod(self.shape[:-1])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return bytes_of(self.dtype, self.shape[-1])

    @property
    def n_bytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.n_rows * self.row_bytes


class GgufStreamWriter:
    """`write` bands of rows in any order, from any thread, then `finish`; or `abandon`.

    metadata: keys with their full names; "general.architecture" is required. Whole numbers become
    uint32 (uint64 where they need it), floats float32.

    As a context manager it abandons the file unless `finish` was reached.

    Raises FileError when the file cannot be written.
    """

    def __init__(
        self, path: Path, metadata: Mapping[str, Value], tensors: Sequence[TensorSpec]
    ) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self._specs = {spec.name: spec for spec in tensors}
        if len(self._specs) != len(tensors):
            raise InvalidArgumentError(f"{path}: two tensors have the same name")
        self._rows_left = {spec.name: spec.n_rows for spec in tensors}
        self._lock = threading.Lock()
        self._finished = False
        try:
            starts_at = self._write_header(metadata, tensors)
            self._file = self.part.open("r+b")
        except OSError as error:
            self.part.unlink(missing_ok=True)
            raise FileError(f"cannot write {self.part}: {error.strerror or error}") from error
        self._offsets: dict[str, int] = {}
        for spec in tensors:
            self._offsets[spec.name] = starts_at
            starts_at += _padded(spec.n_bytes)
        self._size = starts_at

    def _write_header(self, metadata: Mapping[str, Value], tensors: Sequence[TensorSpec]) -> int:
        """Writes all but the tensors' data; returns where that starts."""
        writer = gguf.GGUFWriter(self.part, str(metadata["general.architecture"]))
        try:
            for key, value in metadata.items():
                if key != "general.architecture":
                    _add(writer, key, value)
            for spec in tensors:
                # The package takes a given float dtype's shape as it is.
                writer.add_tensor_info(
                    spec.name,
                    spec.shape,
                    np.dtype(np.float32),
                    spec.n_bytes,
                    gguf.GGMLQuantizationType(TYPE_IDS[spec.dtype]),
                )
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        finally:
            writer.close()
        return _padded(self.part.stat().st_size)

    def __enter__(self) -> GgufStreamWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._finished:
            self.abandon()

    def write(self, name: str, row_start: int, data: bytes | memoryview) -> None:
        """Rows of a tensor from `row_start` on; each row is written once."""
        spec = self._specs[name]
        n_rows, rest = divmod(len(data), spec.row_bytes)
        if rest or row_start < 0 or row_start + n_rows > spec.n_rows:
            raise InvalidArgumentError(
                f"{name}: {len(data)} bytes at row {row_start} are not whole rows of "
                f"{spec.row_bytes} bytes within {spec.n_rows} rows"
            )
        try:
            with self._lock:
                self._file.seek(self._offsets[name] + row_start * spec.row_bytes)
                self._file.write(data)
                self._rows_left[name] -= n_rows
        except OSError as error:
            raise FileError(f"cannot write {self.part}: {error.strerror or error}") from error

    def finish(self) -> None:
        """Flushes, reads the header back and moves the file to its final name.

        Raises FormatError when rows are missing or the file does not read as it was written.
        """
        missing = [name for name, rows in self._rows_left.items() if rows]
        if missing:
            raise FormatError(f"{self.part}: rows of {missing[0]} were not written")
        try:
            self._file.truncate(self._size)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._check()
            self.part.replace(self.path)
        except OSError as error:
            raise FileError(f"cannot write {self.path}: {error.strerror or error}") from error
        self._finished = True

    def abandon(self) -> None:
        """Closes and removes what was written."""
        self._file.close()
        self.part.unlink(missing_ok=True)

    def _check(self) -> None:
        reader = gguf.GGUFReader(self.part)
        found = [
            (str(t.name), tuple(int(n) for n in reversed(t.shape)), int(t.data_offset))
            for t in reader.tensors
        ]
        # The map must be closed before the file can be renamed on Windows.
        del reader
        expected = [(s.name, s.shape, self._offsets[s.name]) for s in self._specs.values()]
        if found != expected:
            raise FormatError(f"{self.part} does not read back as it was written")


def _padded(n: int) -> int:
    alignment = gguf.GGUF_DEFAULT_ALIGNMENT
    return -(-n // alignment) * alignment


def _add(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        (writer.add_uint32 if value < 1 << 32 else writer.add_uint64)(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
