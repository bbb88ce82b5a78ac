"""Reads the tensors of a `torch.save` file without executing anything and without loading it.

The pickle inside is interpreted here, opcode by opcode; the few names that state dicts use stand
for data, never for functions. Tensors are views of the file, read by ranges.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyllamacpp.errors import FileError, FormatError
from pyllamacpp_convert.ranges import open_to_read, read_exactly
from pyllamacpp_convert.source import Stored

# The types of weights by their storage class, and how numpy holds them.
_STORAGES = {
    "torch HalfStorage": "f16",
    "torch BFloat16Storage": "bf16",
    "torch FloatStorage": "f32",
}
_NUMPY: dict[str, np.dtype[Any]] = {
    "f16": np.dtype("<f2"),
    "bf16": np.dtype("<u2"),
    "f32": np.dtype("<f4"),
}
# Tensors of these are no weights (positions, masks) and are left out.
_OTHER_STORAGES = {
    f"torch {kind}Storage" for kind in ("Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
}
_REBUILD = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_ORDERED = "collections OrderedDict"
_NAMES = {*_STORAGES, *_OTHER_STORAGES, _REBUILD, _PARAMETER, _ORDERED}

_MOST_PICKLE = 64 << 20
_MOST_NUMBER = 1 << 48


@dataclass(frozen=True)
class _Name:
    text: str


@dataclass(frozen=True)
class _Storage:
    dtype: str
    offset: int  # of its first byte in the file
    n: int


@dataclass(frozen=True)
class TorchTensor:
    """`Rows` that lie in a file: offset in bytes, strides in elements."""

    path: Path
    dtype: str  # f16, bf16 or f32
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, first: int, last: int) -> Stored:
        """Rows [first, last), [last - first, columns] as stored; a vector is one row."""
        shape, strides = (
            (self.shape, self.strides)
            if len(self.shape) == 2
            else ((1, *self.shape), (0, *self.strides))
        )
        rows, (row, column) = last - first, strides
        dtype = _NUMPY[self.dtype]
        size = dtype.itemsize
        out = np.empty((rows, shape[1]), dtype)
        with open_to_read(self.path) as file:

            def strip(start: int, counts: tuple[int, int]) -> Stored:
                span = (counts[0] - 1) * row + (counts[1] - 1) * column + 1
                raw = np.empty(span, dtype)
                read_exactly(file, self.offset + start * size, raw.view(np.uint8).data, self.path)
                return np.lib.stride_tricks.as_strided(raw, counts, (row * size, column * size))

            span = (rows - 1) * row + (shape[1] - 1) * column + 1
            if (row, column) == (shape[1], 1):
                return strip(first * row, (rows, shape[1]))
            if span <= 2 * out.size:
                out[:] = strip(first * row, (rows, shape[1]))
            elif row >= column:
                for i in range(rows):
                    out[i : i + 1] = strip((first + i) * row, (1, shape[1]))
            else:
                for j in range(shape[1]):
                    out[:, j : j + 1] = strip(first * row + j * column, (rows, 1))
        return out


def read_tensors(path: Path) -> dict[str, TorchTensor]:
    """The tensors of a state dict by name; one level of nesting under "model" is opened.

    Raises FileError when the file cannot be read, FormatError when it is not such a file.
    """
    try:
        with path.open("rb") as file:
            try:
                with zipfile.ZipFile(file) as archive:
                    result = _Reader(path, file, archive).load()
            except (zipfile.BadZipFile, struct.error, NotImplementedError) as error:
                raise FormatError(f"{path} is not a torch zip file: {error}") from error
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    if isinstance(result, dict) and isinstance(result.get("model"), dict):
        result = result["model"]
    if not isinstance(result, dict):
        raise FormatError(f"{path} holds no state dict")
    return {str(key): value for key, value in result.items() if isinstance(value, TorchTensor)}


class _Reader:
    """The interpreter: a stack, marks and a memo."""

    def __init__(self, path: Path, file: io.BufferedReader, archive: zipfile.ZipFile) -> None:
        self._path, self._file, self._archive = path, file, archive
        pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise FormatError(f"{path} holds no data.pkl: not a torch zip file")
        self._folder = pickles[0].split("/")[0]
        self._size = path.stat().st_size
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        offset, n = self._entry(f"{self._folder}/data.pkl")
        if n > _MOST_PICKLE:
            raise self._bad(f"its pickle has {n} bytes")
        self._file.seek(offset)
        data = self._file.read(n)
        try:
            # Decoding a name with a backslash in it warns; the name is refused below.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                for opcode, argument, _ in pickletools.genops(data):
                    if opcode.name == "STOP":
                        return self._stack.pop()
                    self._step(opcode.name, argument)
        except (IndexError, KeyError, ValueError, TypeError, OverflowError) as error:
            if isinstance(error, FormatError):
                raise
            raise self._bad("the pickle in it is malformed") from error
        raise self._bad("the pickle in it has no end")

    def _bad(self, what: str) -> FormatError:
        return FormatError(f"{self._path} was refused: {what}")

    def _entry(self, name: str) -> tuple[int, int]:
        """Where a stored entry's bytes lie in the file, and how many."""
        try:
            info = self._archive.getinfo(name)
        except KeyError:
            raise self._bad(f"its entry {name} is missing") from None
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise self._bad(f"its entry {name} is compressed or encrypted")
        self._file.seek(info.header_offset)
        header = self._file.read(30)
        if len(header) != 30 or header[:4] != b"PK\3\4":
            raise self._bad(f"its entry {name} has no header")
        n_name, n_extra = struct.unpack("<HH", header[26:])
        offset = info.header_offset + 30 + n_name + n_extra
        if offset + info.file_size > self._size:
            raise self._bad(f"its entry {name} goes past the end of the file")
        return offset, info.file_size

    def _to_mark(self) -> list[Any]:
        mark = self._marks.pop()
        if mark > len(self._stack):
            raise IndexError
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _step(self, op: str, argument: Any) -> None:
        stack = self._stack
        if op in ("PROTO", "FRAME"):
            return
        if op in _CONSTANTS:
            stack.append(_CONSTANTS[op]())
        elif op in _LITERALS:
            stack.append(argument)
        elif op == "MARK":
            self._marks.append(len(stack))
        elif op == "TUPLE":
            stack.append(tuple(self._to_mark()))
        elif op in ("TUPLE1", "TUPLE2", "TUPLE3"):
            n = int(op[-1])
            if len(stack) < n:
                raise IndexError
            stack[-n:] = [tuple(stack[-n:])]
        elif op in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif op == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif op in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif op in ("GLOBAL", "STACK_GLOBAL"):
            self._global(op, argument)
        elif op == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif op == "REDUCE":
            arguments, name = stack.pop(), stack.pop()
            stack.append(self._reduce(name, arguments))
        elif op == "BUILD":  # attributes of an ordered dict, which are not tensors
            stack.pop()
            if not isinstance(stack[-1], dict):
                raise TypeError
        elif op in ("SETITEM", "SETITEMS"):
            items = self._to_mark() if op == "SETITEMS" else [stack.pop(-2), stack.pop()]
            self._set(items)
        elif op in ("APPEND", "APPENDS"):
            values = self._to_mark() if op == "APPENDS" else [stack.pop()]
            if not isinstance(stack[-1], list):
                raise TypeError
            stack[-1].extend(values)
        else:
            raise self._bad(f"its pickle uses {op}, which no checkpoint needs")

    def _global(self, op: str, argument: Any) -> None:
        if op == "STACK_GLOBAL":
            attribute, module = self._stack.pop(), self._stack.pop()
            if not (isinstance(module, str) and isinstance(attribute, str)):
                raise TypeError
            argument = f"{module} {attribute}"
        if argument not in _NAMES:
            shown = str(argument)[:80].replace(" ", ".")
            raise self._bad(f"its pickle names {shown}, which no checkpoint needs")
        self._stack.append(_Name(argument))

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        # Other keys could take for ever to hash.
        if (
            not isinstance(target, dict)
            or len(items) % 2
            or not all(isinstance(key, str | int) for key in items[::2])
        ):
            raise TypeError
        target.update(zip(items[::2], items[1::2], strict=True))

    def _reduce(self, name: Any, arguments: Any) -> Any:
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise TypeError
        if name.text == _ORDERED and not arguments:
            return {}
        if name.text == _PARAMETER and arguments and isinstance(arguments[0], TorchTensor):
            return arguments[0]
        if name.text == _REBUILD:
            return self._tensor(*arguments[:4])
        raise TypeError

    def _storage(self, identity: Any) -> _Storage | None:
        tag, kind, key, _, n = identity
        if tag != "storage" or not isinstance(kind, _Name) or not isinstance(key, str):
            raise TypeError
        if kind.text in _OTHER_STORAGES:
            return None
        dtype = _STORAGES[kind.text]
        offset, n_bytes = self._entry(f"{self._folder}/data/{key}")
        _check_number(n)
        size = _NUMPY[dtype].itemsize
        if n * size > n_bytes:
            raise self._bad(f"its storage {key} has {n_bytes} bytes, not {n * size}")
        return _Storage(dtype, offset, n)

    def _tensor(self, storage: Any, start: Any, shape: Any, strides: Any) -> TorchTensor | None:
        if storage is None:
            return None
        if not isinstance(storage, _Storage) or len(shape) != len(strides):
            raise TypeError
        for number in (start, *shape, *strides):
            _check_number(number)
        if not 1 <= len(shape) <= 2 or 0 in shape:
            raise self._bad(f"a tensor in it has {len(shape)} dimensions of {math.prod(shape)}")
        end = start + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) + 1
        if end > storage.n or math.prod(shape) > storage.n:
            raise self._bad("a tensor in it goes past the end of its storage")
        offset = storage.offset + start * _NUMPY[storage.dtype].itemsize
        return TorchTensor(self._path, storage.dtype, offset, tuple(shape), tuple(strides))


def _check_number(value: Any) -> None:
    if type(value) is not int or not 0 <= value <= _MOST_NUMBER:
        raise ValueError


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE"),
}
