"""The CPU kernels, quantizers and dequantizers over numpy arrays, one tier at a time.

This is the flat C ABI that the extension module exports, opened with cffi in ABI mode; its contract
is the installed header `pyllamacpp_kernels.h`. It serves tests, converters and experiments. Models
do not run through it: nothing here uses threads, and matrices are packed anew at every call.

>>> from pyllamacpp import kernels
>>> kernels.tiers()
['avx512vnni', 'avx2', 'scalar']
>>> kernels.Kernels("avx2").softmax(x)

Array arguments have the dtype that is stated with them, in any memory layout; results are new
arrays in C order. Every function raises `InvalidArgumentError` for arguments that do not fit, and
`UnsupportedError` for a weight type that it cannot handle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from cffi import FFI

from . import _core
from .errors import (
    CancelledError,
    ContextFullError,
    FileError,
    FormatError,
    InvalidArgumentError,
    OutOfMemoryError,
    PyllamacppError,
    UnsupportedError,
)

# How many threads pay on this machine, for callers that make their own.
default_thread_count = _core.default_thread_count

Floats: TypeAlias = npt.NDArray[np.float32]
# Weights as they lie in a file: bytes, or an array whose memory holds them.
Weights: TypeAlias = bytes | bytearray | memoryview | npt.NDArray[Any]

# Names of the weight types as users and docs write them, and their ids in GGUF files.
TYPE_IDS = {
    "f32": 0,
    "f16": 1,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "q8_0": 8,
    "q2_k": 10,
    "q3_k": 11,
    "q4_k": 12,
    "q5_k": 13,
    "q6_k": 14,
    "iq4_nl": 20,
    "iq4_xs": 23,
    "bf16": 30,
}
_TYPE_NAMES = {number: name for name, number in TYPE_IDS.items()}

# By the codes of `ErrorKind` in csrc/base/error.h.
_ERRORS: dict[int, type[PyllamacppError]] = {
    1: InvalidArgumentError,
    2: FormatError,
    3: FileError,
    4: OutOfMemoryError,
    5: UnsupportedError,
    6: ContextFullError,
    7: CancelledError,
}


def _declarations() -> str:
    header = Path(_core.__file__).with_name("pyllamacpp_kernels.h").read_text(encoding="utf-8")
    header = re.sub(r"^(#.*|extern \"C\" \{|\})$", "", header, flags=re.MULTILINE)
    return header.replace("PYL_API", "")


# The functions of the header, for callers that bring their own memory.
ffi = FFI()
ffi.cdef(_declarations())
lib: Any = ffi.dlopen(_core.__file__)


def _last_error() -> str:
    sentence = ffi.string(lib.pyl_last_error())
    assert isinstance(sentence, bytes)
    return sentence.decode("utf-8", "replace")


def _check(code: int) -> None:
    if code:
        raise _ERRORS.get(code, PyllamacppError)(_last_error())


def _array(name: str, value: npt.ArrayLike, dtype: type[np.generic], ndim: int) -> npt.NDArray[Any]:
    """`value` in C order and aligned, if it has the dtype and the number of dimensions."""
    array = np.asarray(value)
    expected = np.dtype(dtype)
    if array.dtype != expected:
        raise InvalidArgumentError(f"{name} has dtype {array.dtype}, expected {expected}")
    if array.ndim != ndim:
        raise InvalidArgumentError(f"{name} has {array.ndim} dimensions, expected {ndim}")
    return np.require(array, requirements=["C", "A"])


def _same_length(name: str, array: npt.NDArray[Any], n: int) -> None:
    if len(array) != n:
        raise InvalidArgumentError(f"{name} has {len(array)} values, expected {n}")


def _weight_bytes(weights: Weights, alignment: int = 4) -> npt.NDArray[np.uint8]:
    if isinstance(weights, np.ndarray):
        raw = np.ascontiguousarray(weights).reshape(-1).view(np.uint8)
    else:
        raw = np.frombuffer(weights, np.uint8)
    return raw.copy() if raw.ctypes.data % alignment else raw


def _pointer(ctype: str, array: npt.NDArray[Any]) -> Any:
    return ffi.cast(ctype, array.ctypes.data)


def _type_id(dtype: str | int) -> int:
    if isinstance(dtype, str):
        if dtype not in TYPE_IDS:
            raise InvalidArgumentError(
                f"unknown weight type {dtype!r}, expected one of {', '.join(TYPE_IDS)}"
            )
        return TYPE_IDS[dtype]
    if not 0 <= dtype < 1 << 32:
        raise InvalidArgumentError(f"weight type id {dtype} is not an unsigned 32-bit number")
    return dtype


def _describe(type_id: int) -> str:
    return _TYPE_NAMES.get(type_id, f"type id {type_id}")


def tiers() -> list[str]:
    """Names of the tiers of kernels that this CPU can run, best first; the last is "scalar"."""
    names: list[str] = []
    while (name := lib.pyl_tier_name(len(names))) != ffi.NULL:
        text = ffi.string(name)
        assert isinstance(text, bytes)
        names.append(text.decode("ascii"))
    return names


def bytes_of(dtype: str | int, n: int) -> int:
    """The size in bytes of `n` weights of a type, given by name or by its id in GGUF files.

    `n` is a multiple of the type's block.
    """
    number = _type_id(dtype)
    size = int(lib.pyl_bytes_of(number, n)) if -(1 << 63) <= n < 1 << 63 else -1
    if size < 0:
        raise InvalidArgumentError(
            f"{n} weights of {_describe(number)} are not whole blocks of a known type"
        )
    return size


def dequantize(dtype: str | int, weights: Weights, n: int) -> Floats:
    """The first `n` of `weights` as float32 [n].

    `weights` holds whole blocks of the type as they lie in a GGUF file.
    """
    raw = _weight_bytes(weights)
    size = bytes_of(dtype, n)
    if raw.size < size:
        raise InvalidArgumentError(
            f"weights has {raw.size} bytes, expected at least {size} for {n} weights"
        )
    out = np.empty(n, np.float32)
    _check(
        lib.pyl_dequantize(_type_id(dtype), _pointer("void *", raw), _pointer("float *", out), n)
    )
    return out


Bytes: TypeAlias = npt.NDArray[np.uint8]


def quantize(
    dtype: str | int,
    x: Floats,
    importance: Floats | None = None,
    out: Bytes | None = None,
) -> Bytes:
    """The rows of float32 `x` [n_rows][n_k] as weights of a type: uint8 [n_rows][row bytes].

    Of what the type can hold, weights are chosen by the least sum of importance times squared
    error; the bytes are the same on every tier. Values beyond its range become the nearest in it.
    One thread; the GIL is released.

    Args:
        dtype: A name of `TYPE_IDS` or its id.
        x: n_k is a multiple of the type's block.
        importance: float32 [n_k], how much the error of each column counts: finite and not
            negative. All alike by default.
        out: Where the bytes go, C order; a new array by default.

    Raises:
        InvalidArgumentError: A weight is not finite; names its row and column.
    """
    return _quantize(None, dtype, x, importance, out)


def _quantize(
    table: Any, dtype: str | int, x: Floats, importance: Floats | None, out: Bytes | None
) -> Bytes:
    number = _type_id(dtype)
    x = _array("x", x, np.float32, 2)
    n_rows, n_k = x.shape
    row_bytes = bytes_of(number, n_k)
    if importance is not None:
        importance = _array("importance", importance, np.float32, 1)
        _same_length("importance", importance, n_k)
    if out is None:
        out = np.empty((n_rows, row_bytes), np.uint8)
    elif out.dtype != np.uint8 or out.shape != (n_rows, row_bytes) or not out.flags.c_contiguous:
        raise InvalidArgumentError(
            f"out is {out.dtype} {list(out.shape)}, expected uint8 [{n_rows}, {row_bytes}] in "
            "C order"
        )
    operands = (
        number,
        _pointer("float *", x),
        n_rows,
        n_k,
        ffi.NULL if importance is None else _pointer("float *", importance),
        _pointer("void *", out),
    )
    if table is None:
        _check(lib.pyl_quantize(*operands))
    else:
        _check(lib.pyl_quantize_on(table, *operands))
    return out


class Kernels:
    """One tier's kernels; `tier` is one of `tiers()`, by default the tier in use.

    Raises:
        InvalidArgumentError: The tier is unknown or this CPU cannot run it.
    """

    def __init__(self, tier: str | None = None) -> None:
        self.tier = _core.isa() if tier is None else tier
        self._table = lib.pyl_tier(self.tier.encode())
        if self._table == ffi.NULL:
            raise InvalidArgumentError(_last_error())

    def __repr__(self) -> str:
        return f"Kernels({self.tier!r})"

    def entries(self) -> list[int]:
        """Addresses of the table's functions, in the same order on every tier."""
        n = int(lib.pyl_entries(self._table, ffi.NULL, 0))
        addresses = ffi.new("void *[]", n)
        lib.pyl_entries(self._table, addresses, n)
        return [int(ffi.cast("uintptr_t", address)) for address in addresses]

    def types(self) -> list[str]:
        """Names of the weight types that `matmul` takes."""
        return self._names(lib.pyl_matmul_types)

    def kv_types(self) -> list[str]:
        """Names of the types that `attention` can keep keys and values in."""
        return self._names(lib.pyl_kv_types)

    def _names(self, function: Any) -> list[str]:
        n = int(function(self._table, ffi.NULL, 0))
        numbers = ffi.new("uint32_t[]", n)
        function(self._table, numbers, n)
        return [_describe(number) for number in numbers]

    def quantize(
        self,
        dtype: str | int,
        x: Floats,
        importance: Floats | None = None,
        out: Bytes | None = None,
    ) -> Bytes:
        """As the function of this name, with this tier's kernels."""
        return _quantize(self._table, dtype, x, importance, out)

    def matmul(
        self,
        dtype: str | int,
        weights: Weights,
        x: Floats,
        *,
        rows: tuple[int, int] | None = None,
        add_to: Floats | None = None,
        packed: bool = False,
    ) -> Floats:
        """`x @ weights.T` as float32 [n_cols][n_rows].

        Args:
            dtype: The type of the weights, a name or an id.
            weights: A matrix [all rows][k] in GGUF's layout.
            x: float32 [n_cols][k], which is quantized as the type requires.
            rows: Only the rows [first, last) of the weights; `first` is a multiple of 32.
            add_to: float32 [n_cols][n_rows], to which the product is added in the result.
            packed: Through the packed layout, for the types that have one.
        """
        x = _array("x", x, np.float32, 2)
        n_cols, k = x.shape
        raw = _weight_bytes(weights)
        row_bytes = bytes_of(dtype, k)
        if row_bytes == 0 or raw.size % row_bytes:
            raise InvalidArgumentError(
                f"weights has {raw.size} bytes, which are not rows of {row_bytes} bytes each"
            )
        n_all = raw.size // row_bytes
        first, last = (0, n_all) if rows is None else rows
        if not 0 <= first < last <= n_all or first % 32:
            raise InvalidArgumentError(
                f"rows {first} to {last} of a matrix of {n_all} rows; expected a range inside it "
                "that begins at a multiple of 32"
            )
        if add_to is None:
            y = np.empty((n_cols, last - first), np.float32)
        else:
            y = _array("add_to", add_to, np.float32, 2).copy()
            if y.shape != (n_cols, last - first):
                raise InvalidArgumentError(
                    f"add_to has shape {y.shape}, expected {(n_cols, last - first)}"
                )
        _check(
            lib.pyl_matmul(
                self._table,
                _type_id(dtype),
                _pointer("void *", raw),
                n_all,
                k,
                first,
                last,
                _pointer("float *", x),
                n_cols,
                _pointer("float *", y),
                add_to is not None,
                packed,
            )
        )
        return y

    def quantize_activations(
        self, x: Floats, block: int
    ) -> tuple[npt.NDArray[np.int8], Floats, npt.NDArray[np.int32]]:
        """float32 [n] as integers with one scale per block of 32 or 256: x = d q.

        `n` is a multiple of `block`. Returns q [n] within [-127, 127], d [n / block], and the sums
        that go with them: of the 32 q of each block, or of each 16 q where the block is 256.
        """
        x = _array("x", x, np.float32, 1)
        if block not in (32, 256):
            raise InvalidArgumentError(f"block is {block}, expected 32 or 256")
        if not len(x) or len(x) % block:
            raise InvalidArgumentError(f"x has {len(x)} values, expected a multiple of {block}")
        q = np.empty(len(x), np.int8)
        d = np.empty(len(x) // block, np.float32)
        sums = np.empty(len(x) // (32 if block == 32 else 16), np.int32)
        _check(
            lib.pyl_quantize_activations(
                self._table,
                block,
                _pointer("float *", x),
                len(x),
                _pointer("int8_t *", q),
                _pointer("float *", d),
                _pointer("int32_t *", sums),
            )
        )
        return q, d, sums

    def rms_norm(self, x: Floats, weight: Floats, eps: float) -> Floats:
        """`x * weight / sqrt(mean(x ** 2) + eps)` of float32 [n] and [n], n >= 1."""
        x = self._vector(x)
        weight = _array("weight", weight, np.float32, 1)
        _same_length("weight", weight, len(x))
        y = np.empty_like(x)
        _check(
            lib.pyl_rms_norm(
                self._table,
                _pointer("float *", y),
                _pointer("float *", x),
                _pointer("float *", weight),
                len(x),
                eps,
            )
        )
        return y

    def rope(self, x: Floats, cos: Floats, sin: Floats, *, halves: bool) -> Floats:
        """The pairs of float32 [n] rotated by the angles of `cos` and `sin`, both [n / 2].

        n is even and at most 256. Pairs are (x[i], x[i + n / 2]) with `halves`, else
        (x[2 i], x[2 i + 1]).
        """
        y = self._vector(x).copy()
        if len(y) % 2:
            raise InvalidArgumentError(f"x has {len(y)} values, expected an even number")
        for name, values in (("cos", cos), ("sin", sin)):
            _same_length(name, _array(name, values, np.float32, 1), len(y) // 2)
        angles = np.concatenate([cos, sin])
        _check(
            lib.pyl_rope(
                self._table,
                _pointer("float *", y),
                _pointer("float *", angles),
                len(y),
                halves,
            )
        )
        return y

    def swiglu(self, gate: Floats, up: Floats) -> Floats:
        """`gate / (1 + exp(-gate)) * up` of float32 [n] and [n]."""
        gate = self._vector(gate)
        up = _array("up", up, np.float32, 1)
        _same_length("up", up, len(gate))
        y = np.empty_like(gate)
        _check(
            lib.pyl_swiglu(
                self._table,
                _pointer("float *", y),
                _pointer("float *", gate),
                _pointer("float *", up),
                len(gate),
            )
        )
        return y

    def softmax(self, x: Floats) -> Floats:
        """`exp(x) / sum(exp(x))` of float32 [n]; all NaN if a value is NaN or +inf, or all -inf."""
        y = self._vector(x).copy()
        _check(lib.pyl_softmax(self._table, _pointer("float *", y), len(y)))
        return y

    def add(self, a: Floats, b: Floats) -> Floats:
        """`a + b` of float32 [n] and [n]."""
        y = self._vector(a).copy()
        b = _array("b", b, np.float32, 1)
        _same_length("b", b, len(y))
        _check(lib.pyl_add(self._table, _pointer("float *", y), _pointer("float *", b), len(y)))
        return y

    def scale(self, x: Floats, factor: float) -> Floats:
        """`x * factor` of float32 [n], `factor` rounded to float32."""
        y = self._vector(x).copy()
        _check(lib.pyl_scale(self._table, _pointer("float *", y), factor, len(y)))
        return y

    def argmax(self, x: Floats) -> int:
        """Index of the largest of float32 [n], the first of equals; 0 if all are NaN."""
        x = self._vector(x)
        index = ffi.new("int32_t *")
        _check(lib.pyl_argmax(self._table, _pointer("float *", x), len(x), index))
        return int(index[0])

    def attention(
        self,
        q: Floats,
        keys: Floats,
        values: Floats,
        n_keys: Sequence[int] | npt.NDArray[Any],
        first_key: Sequence[int] | npt.NDArray[Any] | None = None,
        *,
        type_k: str = "f32",
        type_v: str = "f32",
    ) -> Floats:
        """`softmax(q[i] @ keys[a:b].T) @ values[a:b]` as float32 [n_q][head_dim].

        a is first_key[i] and b n_keys[i].

        Args:
            q: float32 [n_q][head_dim], scaled already; head_dim is at most 256.
            keys: float32 [n_tokens][head_dim].
            values: float32 [n_tokens][head_dim].
            n_keys: For each query how many keys it sees, counted from the first of all.
            first_key: For each query the first key it sees; 0 by default.
            type_k: What the cache stores keys as: one of `kv_types()`; the quantized ones need a
                head_dim that is a multiple of 32.
            type_v: The same of values.
        """
        q = _array("q", q, np.float32, 2)
        keys = _array("keys", keys, np.float32, 2)
        values = _array("values", values, np.float32, 2)
        ends = self._key_numbers("n_keys", n_keys, len(q))
        starts = self._key_numbers(
            "first_key", np.zeros_like(ends) if first_key is None else first_key, len(q)
        )
        if keys.shape != values.shape or keys.shape[1] != q.shape[1]:
            raise InvalidArgumentError(
                f"q has shape {q.shape}, keys {keys.shape} and values {values.shape}; expected the "
                "same head_dim, and as many values as keys"
            )
        if ends.size and (starts.min() < 0 or (starts >= ends).any() or ends.max() > len(keys)):
            raise InvalidArgumentError(f"n_keys must be 1 to the {len(keys)} keys given")
        out = np.empty_like(q)
        _check(
            lib.pyl_attention(
                self._table,
                _type_id(type_k),
                _type_id(type_v),
                _pointer("float *", q),
                _pointer("float *", out),
                _pointer("int32_t *", starts),
                _pointer("int32_t *", ends),
                len(q),
                q.shape[1],
                _pointer("float *", keys),
                _pointer("float *", values),
                len(keys),
            )
        )
        return out

    @staticmethod
    def _key_numbers(
        name: str, numbers: Sequence[int] | npt.NDArray[Any], n: int
    ) -> npt.NDArray[np.int32]:
        array = np.asarray(numbers)
        if array.dtype.kind not in "iu" or array.shape != (n,):
            raise InvalidArgumentError(f"{name} must be {n} whole numbers, one for each query")
        return array.astype(np.int32)

    @staticmethod
    def _vector(x: Floats) -> Floats:
        x = _array("x", x, np.float32, 1)
        if not len(x):
            raise InvalidArgumentError("x is empty, expected at least one value")
        return x
