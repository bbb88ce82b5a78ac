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

import gguf
import numpy as np

from pyllamacpp.errors import FileError, FormatError, InvalidArgumentError
from pyllamacpp.kernels import TYPE_IDS, bytes_of
from pyllamacpp_convert.gguf_file import read_file
from pyllamacpp_convert.metadata import Typed as Typed
from pyllamacpp_convert.metadata import Value as Value


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
    uint32 (int32, int64 or uint64 where they need it), floats float32, unless they are `Typed`.
    resume: go on with the `OUT.part` that an earlier writer with the same arguments left.

    As a context manager it closes the file; `OUT.part` stays unless `finish` was reached.

    Raises FileError when the file cannot be written, FormatError when it cannot be resumed.
    """

    def __init__(
        self,
        path: Path,
        metadata: Mapping[str, Value],
        tensors: Sequence[TensorSpec],
        *,
        resume: bool = False,
    ) -> None:
        self.path = path
        self.part = part_of(path)
        self.names = [spec.name for spec in tensors]
        self._specs = {spec.name: spec for spec in tensors}
        if len(self._specs) != len(tensors):
            raise InvalidArgumentError(f"{path}: two tensors have the same name")
        self._lock = threading.Lock()
        try:
            header = self._header(metadata, tensors)
            self._file = self.part.open("r+b" if resume else "w+b", buffering=0)
        except OSError as error:
            raise FileError(f"cannot write {self.part}: {error.strerror or error}") from error
        self._offsets: dict[str, int] = {}
        end = len(header)
        for spec in tensors:
            self._offsets[spec.name] = end
            end += _padded(spec.n_bytes)
        self.n_bytes = end
        try:
            if resume and self._file.read(len(header)) != header:
                raise FormatError(
                    f"{self.part} was begun with other options or by another version: start over"
                )
            self._write_at(0, header)
            self._file.truncate(end)
        except OSError as error:
            self._file.close()
            raise FileError(f"cannot write {self.part}: {error.strerror or error}") from error
        except FormatError:
            self._file.close()
            raise

    def _header(self, metadata: Mapping[str, Value], tensors: Sequence[TensorSpec]) -> bytes:
        """All but the tensors' data, padded to where that starts."""
        scratch = self.part.with_name(self.part.name + ".header")
        writer = gguf.GGUFWriter(scratch, str(metadata["general.architecture"]))
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
            writer.close()
            header = scratch.read_bytes()
        finally:
            writer.close()
            scratch.unlink(missing_ok=True)
        return header.ljust(_padded(len(header)), b"\0")

    def __enter__(self) -> GgufStreamWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, name: str, row_start: int, data: bytes | memoryview) -> None:
        """Rows of a tensor from `row_start` on."""
        spec = self._specs[name]
        n_rows, rest = divmod(len(data), spec.row_bytes)
        if rest or row_start < 0 or row_start + n_rows > spec.n_rows:
            raise InvalidArgumentError(
                f"{name}: {len(data)} bytes at row {row_start} are not whole rows of "
                f"{spec.row_bytes} bytes within {spec.n_rows} rows"
            )
        try:
            with self._lock:
                self._write_at(self._offsets[name] + row_start * spec.row_bytes, data)
        except OSError as error:
            raise FileError(f"cannot write {self.part}: {error.strerror or error}") from error

    def _write_at(self, offset: int, data: bytes | memoryview) -> None:
        self._file.seek(offset)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def read(self, name: str, first: int, last: int) -> bytes:
        """Rows [first, last) of a tensor, as they lie in the file.

        Raises FileError when they cannot be read.
        """
        spec = self._specs[name]
        n = (last - first) * spec.row_bytes
        try:
            with self._lock:
                self._file.seek(self._offsets[name] + first * spec.row_bytes)
                data = b""
                while len(data) < n and (more := self._file.read(n - len(data))):
                    data += more
        except OSError as error:
            raise FileError(f"cannot read {self.part}: {error.strerror or error}") from error
        if len(data) < n:
            raise FileError(f"{self.part} was truncated by something else")
        return data

    def flush(self) -> None:
        """Returns when all that was written is on the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise FileError(f"cannot write {self.part}: {error.strerror or error}") from error

    def finish(self) -> None:
        """Flushes, reads the header back and moves the file to its final name.

        Raises FormatError when the header does not read as it was written.
        """
        self.flush()
        self._file.close()
        try:
            self._check()
            self.part.replace(self.path)
        except OSError as error:
            raise FileError(f"cannot write {self.path}: {error.strerror or error}") from error

    def abandon(self) -> None:
        """Closes and removes what was written."""
        self._file.close()
        self.part.unlink(missing_ok=True)

    def _check(self) -> None:
        tensors = read_file(self.part).tensors.values()
        found = [(t.name, t.shape, t.offset) for t in tensors]
        expected = [(s.name, s.shape, self._offsets[s.name]) for s in self._specs.values()]
        if found != expected:
            raise FormatError(f"{self.part} does not read back as it was written")


def part_of(path: Path) -> Path:
    """Where a file is while it is being written."""
    return path.with_name(path.name + ".part")


def _padded(n: int) -> int:
    alignment = gguf.GGUF_DEFAULT_ALIGNMENT
    return -(-n // alignment) * alignment


def _add(writer: gguf.GGUFWriter, key: str, value: Value) -> None:
    if isinstance(value, Typed):
        writer.add_key_value(key, value.value, value.type, value.item_type)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        if value < 0:
            (writer.add_int32 if value >= -(1 << 31) else writer.add_int64)(key, value)
        else:
            (writer.add_uint32 if value < 1 << 32 else writer.add_uint64)(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
