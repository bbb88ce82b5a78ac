"""Runs every kernel of a tier with each operand of the caller's flush against a page that cannot
be touched, and compares with the result in ordinary memory.

    python guard_worker.py TIER       prints each call before it is made, then "done"
    python guard_worker.py --touch    reads one byte too far on purpose

A kernel that reads or writes beyond an operand ends the process; test_guard_pages.py says where.
Weights, activations and results lie at the end of their pages, then at the beginning. (Prefetches
beyond the end are harmless and stay unseen. Matrix products and attention copy some operands into
memory of their own; the address sanitizer watches over those.)
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pyllamacpp.kernels import TYPE_IDS, Kernels, ffi, lib

sys.path.append(str(Path(__file__).parent))

from kernel_oracle import (
    BLOCK,
    BLOCK_TYPES,
    BYTES,
    FLOAT_TYPES,
    TYPES,
    make_activations,
    make_weights,
)

PROT_NONE = 0


class GuardedPages:
    """Memory between two pages that cannot be touched."""

    def __init__(self, size: int) -> None:
        page = mmap.PAGESIZE
        self.size = -(-size // page) * page
        self.memory = mmap.mmap(-1, self.size + 2 * page)
        whole = (ctypes.c_ubyte * len(self.memory)).from_buffer(self.memory)
        self.begin = ctypes.addressof(whole) + page
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for guard in (self.begin - page, self.begin + self.size):
            if libc.mprotect(guard, page, PROT_NONE):
                raise OSError(ctypes.get_errno(), "mprotect failed")

    def place(self, array: np.ndarray, at_end: bool) -> np.ndarray:
        """A copy of `array` whose last byte, or first, touches a guard page."""
        assert array.nbytes <= self.size
        address = self.begin + (self.size - array.nbytes if at_end else 0)
        raw = (ctypes.c_ubyte * array.nbytes).from_address(address)
        placed = np.frombuffer(raw, array.dtype).reshape(array.shape)
        placed[...] = array
        return placed


class Guarded:
    """Calls C functions on operands in ordinary memory and in guarded pages."""

    def __init__(self) -> None:
        self.pages = [GuardedPages(1 << 20) for _ in range(6)]

    def check(
        self, name: str, call: Callable[..., int], operands: list[np.ndarray], outputs: list[int]
    ) -> None:
        """`call` gets the operands; those at the indices `outputs` it writes or changes."""
        ordinary = [operand.copy() for operand in operands]
        assert call(*ordinary) == 0, name
        for at_end in (True, False):
            print(name, "at the end" if at_end else "at the beginning", "of its pages", flush=True)
            placed = [
                pages.place(operand, at_end)
                for pages, operand in zip(self.pages[: len(operands)], operands, strict=True)
            ]
            assert call(*placed) == 0, name
            for i, operand in enumerate(operands):
                expected = ordinary[i] if i in outputs else operand
                np.testing.assert_array_equal(placed[i], expected, err_msg=f"{name}: operand {i}")


def pointer(array: np.ndarray) -> object:
    ctype = {"f": "float *", "e": "uint16_t *", "b": "int8_t *", "B": "void *", "i": "int32_t *"}
    return ffi.cast(ctype[array.dtype.char], array.ctypes.data)


def check_elementwise(guarded: Guarded, table: object) -> None:
    rng = np.random.default_rng(0)
    for n in [*range(1, 71), 128, 255]:
        x, w = (rng.standard_normal(n).astype(np.float32) for _ in range(2))
        y = np.zeros(n, np.float32)

        def call(function, *more):
            return lambda *arrays: function(table, *map(pointer, arrays), *more)

        guarded.check(f"rms_norm n={n}", call(lib.pyl_rms_norm, n, 1e-5), [y, x, w], [0])
        guarded.check(f"swiglu n={n}", call(lib.pyl_swiglu, n), [y, x, w], [0])
        guarded.check(f"softmax n={n}", call(lib.pyl_softmax, n), [x], [0])
        guarded.check(f"add n={n}", call(lib.pyl_add, n), [x, w], [0])
        guarded.check(
            f"scale n={n}",
            lambda a, n=n: lib.pyl_scale(table, pointer(a), 0.5, n),
            [x],
            [0],
        )
        index = np.zeros(1, np.int32)
        guarded.check(
            f"argmax n={n}",
            lambda a, i, n=n: lib.pyl_argmax(table, pointer(a), n, pointer(i)),
            [x, index],
            [1],
        )
        if n % 2 == 0:
            for halves in (0, 1):
                guarded.check(f"rope n={n} {halves}", call(lib.pyl_rope, n, halves), [x, w], [0])


def check_quantizers(guarded: Guarded, table: object) -> None:
    for block, per_sum in ((32, 32), (256, 16)):
        for n in range(block, 5 * block, block):
            x = make_activations(np.random.default_rng(n), 1, n)[0]
            q, d = np.zeros(n, np.int8), np.zeros(n // block, np.float32)
            sums = np.zeros(n // per_sum, np.int32)
            guarded.check(
                f"quantize_activations block={block} n={n}",
                lambda a, *out, n=n, block=block: lib.pyl_quantize_activations(
                    table, block, pointer(a), n, *map(pointer, out)
                ),
                [x, q, d, sums],
                [1, 2, 3],
            )


def check_weight_quantizers(guarded: Guarded, table: object) -> None:
    """Blocks fill the lanes of the search only partly, and floats end anywhere."""
    rng = np.random.default_rng(3)
    for dtype in TYPES:
        counts = [*range(1, 41), 70] if dtype in FLOAT_TYPES else [1, 2, 3, 15, 16, 17, 33]
        for count in counts:
            n = count * BLOCK[dtype]
            x = rng.standard_normal(n).astype(np.float32)
            importance = rng.uniform(0, 1, n).astype(np.float32)
            guarded.check(
                f"quantize {dtype} n={n}",
                lambda a, w, out, n=n, dtype=dtype: lib.pyl_quantize_on(
                    table, TYPE_IDS[dtype], pointer(a), 1, n, pointer(w), pointer(out)
                ),
                [x, importance, np.zeros(count * BYTES[dtype], np.uint8)],
                [2],
            )


def matmul_call(
    table: object, dtype: str, shape: tuple[int, int, int], first: int, packed: bool
) -> Callable[..., int]:
    n_rows, n_cols, k = shape
    return lambda w, x, y: lib.pyl_matmul(
        *(table, TYPE_IDS[dtype], pointer(w), n_rows, k, first, n_rows),
        *(pointer(x), n_cols, pointer(y), n_rows % 2, packed),
    )


def check_matmul(guarded: Guarded, table: object) -> None:
    """Odd numbers of rows also add to y; packed ones begin at the last multiple of 32."""
    rng = np.random.default_rng(1)
    for dtype in TYPES:
        lengths = [BLOCK[dtype], 3 * BLOCK[dtype]]
        layouts = (False, True) if dtype in BLOCK_TYPES else (False,)
        for k in [1, 3, 8, 17, 33, 64, 70] if dtype in FLOAT_TYPES else lengths:
            for n_rows in [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 64, 65, 70]:
                raw = make_weights(rng, dtype, n_rows, k)
                for n_cols in (1, 2, 3, 7, 26):
                    x = make_activations(rng, n_cols, k)
                    for packed in layouts:
                        first = (n_rows - 1) // 32 * 32 if packed else 0
                        guarded.check(
                            f"matmul {dtype} k={k} rows={first}..{n_rows} columns={n_cols} "
                            f"packed={packed}",
                            matmul_call(table, dtype, (n_rows, n_cols, k), first, packed),
                            [raw, x, np.zeros((n_cols, n_rows - first), np.float32)],
                            [2],
                        )


def check_attention(guarded: Guarded, table: object) -> None:
    rng = np.random.default_rng(2)
    for head_dim in [1, 3, 7, 8, 9, 16, 17, 31, 33, 40, 64, 80, 128, 250, 256]:
        for n_queries in (1, 2, 3, 8, 9):
            n_tokens = int(rng.choice([1, 31, 33, 64, 70]))
            q = rng.standard_normal((n_queries, head_dim)).astype(np.float32)
            k, v = (rng.standard_normal((n_tokens, head_dim)).astype(np.float32) for _ in "kv")
            n_keys = rng.integers(1, n_tokens + 1, n_queries, np.int32)
            first_key = (n_keys - 1) // 2
            types = ["f32", "f16", "bf16", *(["q8_0", "q4_0"] if head_dim % 32 == 0 else [])]
            for type_id in (TYPE_IDS[name] for name in types):
                guarded.check(
                    f"attention head_dim={head_dim} queries={n_queries} tokens={n_tokens} "
                    f"type={type_id}",
                    lambda q, out, first_key, n_keys, k, v, type_id=type_id: lib.pyl_attention(
                        *(table, type_id, type_id, pointer(q), pointer(out)),
                        *(pointer(first_key), pointer(n_keys), *q.shape),
                        *(pointer(k), pointer(v), len(k)),
                    ),
                    [q, np.zeros_like(q), first_key, n_keys, k, v],
                    [1],
                )


def check_dequantize(guarded: Guarded) -> None:
    for dtype in TYPES:
        for n in (BLOCK[dtype], 3 * BLOCK[dtype]):
            raw = make_weights(np.random.default_rng(n), dtype, 1, n)
            guarded.check(
                f"dequantize {dtype} n={n}",
                lambda w, y, dtype=dtype, n=n: lib.pyl_dequantize(
                    TYPE_IDS[dtype], pointer(w), pointer(y), n
                ),
                [raw, np.zeros(n, np.float32)],
                [1],
            )


def main() -> None:
    if sys.argv[1] == "--touch":
        pages = GuardedPages(1)
        placed = pages.place(np.zeros(5, np.uint8), at_end=True)
        print("last byte", ctypes.string_at(placed.ctypes.data, 5)[-1], flush=True)
        print("one more", ctypes.string_at(placed.ctypes.data, 6)[-1], flush=True)
        return
    guarded = Guarded()
    kernels = Kernels(sys.argv[1])
    table = lib.pyl_tier(kernels.tier.encode())
    check_dequantize(guarded)
    check_elementwise(guarded, table)
    check_quantizers(guarded, table)
    check_weight_quantizers(guarded, table)
    check_attention(guarded, table)
    check_matmul(guarded, table)
    print("done", flush=True)


if __name__ == "__main__":
    main()
