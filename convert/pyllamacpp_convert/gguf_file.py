"""Reads GGUF files by ranges: header and tensor table at once, rows of a tensor when asked for.

The `gguf` package's reader takes 600 MB and seconds for a vocabulary of 128,000 tokens.
"""

from __future__ import annotations

import math
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np
import numpy.typing as npt

from pyllamacpp.errors import FileError, FormatError, InvalidArgumentError, UnsupportedError
from pyllamacpp.kernels import TYPE_IDS, bytes_of
from pyllamacpp_convert.metadata import Typed

_KINDS = gguf.GGUFValueType
_SCALARS = {
    _KINDS.UINT8: "<u1",
    _KINDS.INT8: "<i1",
    _KINDS.UINT16: "<u2",
    _KINDS.INT16: "<i2",
    _KINDS.UINT32: "<u4",
    _KINDS.INT32: "<i4",
    _KINDS.FLOAT32: "<f4",
    _KINDS.BOOL: "?",
    _KINDS.UINT64: "<u8",
    _KINDS.INT64: "<i8",
    _KINDS.FLOAT64: "<f8",
}
_TYPE_NAMES = {number: name for name, number in TYPE_IDS.items()}
_STORED_AS = {"f32": "<f4", "f16": "<f2", "bf16": "<u2"}
_MOST_DIMENSIONS = 4
_PART = re.compile(r"(.*)-(\d{5,})-of-(\d{5,})\.gguf", re.DOTALL)


@dataclass(frozen=True)
class GgufRows:
    """A tensor that lies in a GGUF file: rows of `dtype`, one of kernels.TYPE_IDS."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return bytes_of(self.dtype, self.shape[-1])

    @property
    def n_bytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape[:-1]) * self.row_bytes

    def read(self, first: int, last: int) -> npt.NDArray[Any]:
        """Rows [first, last): floats [last - first, columns], else bytes [last - first, row_bytes].

        Raises FileError or FormatError when the file cannot be read or ends too early.
        """
        raw = bytearray((last - first) * self.row_bytes)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.offset + first * self.row_bytes)
                rest = memoryview(raw)
                while rest and (n := file.readinto(rest)):
                    rest = rest[n:]
        except OSError as error:
            raise FileError(f"cannot read {self.path}: {error.strerror or error}") from error
        if rest:
            raise FormatError(f"{self.path} ends in the middle of {self.name}")
        stored = np.frombuffer(raw, _STORED_AS.get(self.dtype, "u1"))
        return stored.reshape(last - first, self.row_bytes // stored.itemsize)


@dataclass(frozen=True)
class GgufModel:
    """A GGUF, all parts of a split one: metadata of the first, tensors in the files' order."""

    files: list[Path]
    metadata: dict[str, Typed]
    tensors: dict[str, GgufRows]

    def number(self, key: str) -> int | None:
        """A whole number of the metadata, of an array its largest; None where there is none."""
        found = self.metadata.get(key)
        values = found.value if found and isinstance(found.value, list) else [found and found.value]
        if not values or not all(isinstance(value, int) for value in values):
            return None
        return int(max(values))

    @property
    def architecture(self) -> str:
        """What general.architecture says. Raises FormatError where nothing does."""
        found = self.metadata.get("general.architecture")
        if found is None or not isinstance(found.value, str):
            raise FormatError(f"{self.files[0]} states no general.architecture: it is no model")
        return found.value

    def needed(self, key: str) -> int:
        """The architecture's number `key`, such as "block_count". Raises FormatError without."""
        name = f"{self.architecture}.{key}"
        found = self.number(name)
        if not found:
            raise FormatError(f"{self.files[0]} states no {name}: it is no language model")
        return found


def read_gguf(path: Path) -> GgufModel:
    """The header of a GGUF file; of a split model, `path` is the first part.

    Raises FileError, FormatError (what is wrong where), UnsupportedError (a version, or a type of
    tensor) or InvalidArgumentError (another part than the first).
    """
    first = read_file(path)
    count = first.number("split.count") or 1
    if count == 1:
        return first
    name = _PART.fullmatch(path.name)
    if not name or int(name[3]) != count:
        raise FormatError(
            f"{path}: this is a part of a model split into {count} files, whose name should end in "
            f"-00001-of-{count:05}.gguf so that the others can be found"
        )
    stem, total = name[1], name[3]
    if int(name[2]) != 1:
        raise InvalidArgumentError(
            f"{path}: this is part {int(name[2])} of {count}; give the first, "
            f"{stem}-{1:0{len(total)}}-of-{total}.gguf"
        )
    tensors = dict(first.tensors)
    files = [path]
    for i in range(1, count):
        other = path.with_name(f"{stem}-{i + 1:0{len(total)}}-of-{total}.gguf")
        part = read_file(other)
        if part.number("split.no") != i:
            raise FormatError(f"{other}: split.no is {part.number('split.no')}, expected {i}")
        for twice in tensors.keys() & part.tensors.keys():
            raise FormatError(f"{other}: tensor {twice} is also in an earlier part")
        tensors |= part.tensors
        files.append(other)
    wanted = first.number("split.tensors.count")
    if wanted is not None and wanted != len(tensors):
        raise FormatError(
            f"{path}: split.tensors.count is {wanted}, but the files have {len(tensors)} tensors"
        )
    return GgufModel(files, first.metadata, tensors)


def read_file(path: Path) -> GgufModel:
    """The header of one file, whether it is whole or a part; errors as `read_gguf`."""
    try:
        with path.open("rb") as file:
            return _Header(path, file).read()
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error


class _Header:
    """A cursor over a file's header; nothing is allocated without the bytes to back it."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._left = self._size = os.fstat(file.fileno()).st_size

    def read(self) -> GgufModel:
        if self._left < 4 or self._take(4) != b"GGUF":
            raise FormatError(f"{self._path} is not a GGUF file")
        version = self._number("<I")
        if version not in (2, 3):
            raise UnsupportedError(f"{self._path}: GGUF version {version}, expected 2 or 3")
        n_tensors, n_values = self._number("<Q"), self._number("<Q")
        metadata: dict[str, Typed] = {}
        for _ in range(n_values):
            key = self._text("a key")
            if key in metadata:
                raise FormatError(f"{self._path}: {key} is there twice")
            metadata[key] = self._value(key)
        rows = [self._tensor() for _ in range(n_tensors)]
        alignment = metadata["general.alignment"].value if "general.alignment" in metadata else 32
        if not isinstance(alignment, int) or alignment < 1:
            raise FormatError(f"{self._path}: general.alignment is {alignment}")
        start = -(-(self._size - self._left) // alignment) * alignment
        tensors: dict[str, GgufRows] = {}
        for name, shape, dtype, offset in rows:
            tensor = GgufRows(self._path, name, shape, dtype, start + offset)
            if name in tensors:
                raise FormatError(f"{self._path}: tensor {name} is there twice")
            if tensor.offset + tensor.n_bytes > self._size:
                raise FormatError(f"{self._path} ends before the end of {name}: it is truncated")
            tensors[name] = tensor
        return GgufModel([self._path], metadata, tensors)

    def _take(self, n: int) -> bytes:
        if n > self._left:
            raise FormatError(f"{self._path} ends in its header: it is truncated or damaged")
        self._left -= n
        return self._file.read(n)

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def _string(self) -> str | bytes:
        raw = self._take(self._number("<Q"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw

    def _text(self, what: str) -> str:
        text = self._string()
        if isinstance(text, bytes):
            raise FormatError(f"{self._path}: {what} is not UTF-8: {text[:40]!r}")
        return text

    def _kind(self, key: str) -> gguf.GGUFValueType:
        number = self._number("<I")
        try:
            return _KINDS(number)
        except ValueError:
            raise FormatError(f"{self._path}: {key} has the unknown value type {number}") from None

    def _value(self, key: str) -> Typed:
        kind = self._kind(key)
        if kind != _KINDS.ARRAY:
            return Typed(self._scalars(kind, 1)[0], kind)
        item = self._kind(key)
        if item == _KINDS.ARRAY:
            raise UnsupportedError(f"{self._path}: {key} is an array of arrays")
        return Typed(self._scalars(item, self._number("<Q")), kind, item)

    def _scalars(self, kind: gguf.GGUFValueType, n: int) -> list[Any]:
        if kind == _KINDS.STRING:
            return [self._string() for _ in range(n)]
        dtype = np.dtype(_SCALARS[kind])
        values: list[Any] = np.frombuffer(self._take(n * dtype.itemsize), dtype).tolist()
        return values

    def _tensor(self) -> tuple[str, tuple[int, ...], str, int]:
        name = self._text("a tensor's name")
        n = self._number("<I")
        if not 1 <= n <= _MOST_DIMENSIONS:
            raise FormatError(f"{self._path}: {name} has {n} dimensions, expected 1 to 4")
        sizes = [self._number("<Q") for _ in range(n)]
        number, offset = self._number("<I"), self._number("<Q")
        if number not in _TYPE_NAMES:
            raise UnsupportedError(
                f"{self._path}: {name} is of type id {number}, which cannot be read here"
            )
        dtype = _TYPE_NAMES[number]
        if 0 in sizes or math.prod(sizes) > 1 << 62:
            raise FormatError(f"{self._path}: {name} has the shape {sizes}")
        try:
            bytes_of(dtype, sizes[0])
        except InvalidArgumentError as error:
            raise FormatError(f"{self._path}: {name}: {error}") from error
        return name, tuple(reversed(sizes)), dtype, offset
