"""Weights of every stored type taken apart in numpy, and products in float64 with error bounds.

A block of any quantized type is w[j, i] = d * scale[j] * q[j, i] - m * min[j], where d and m are
halves and the rest small integers; the types differ in where the bits lie. Bounds follow Higham,
Accuracy and Stability of Numerical Algorithms, chapter 3: n roundings of float32 in a chain change
a sum of terms t by at most gamma(n) * sum|t|, gamma(n) = n u / (1 - n u).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

UNIT = 2.0**-24  # unit roundoff of float32
TINY = 2.0**-149  # the smallest float32: what an underflow can cost
FLOAT_MAX = float(np.finfo(np.float32).max)

FLOAT_TYPES = ("f32", "f16", "bf16")
SMALL_TYPES = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl")  # of 32
SUPER_TYPES = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_xs")  # of 256
BLOCK_TYPES = (*SMALL_TYPES, *SUPER_TYPES)  # those with a packed layout
TYPES = (*FLOAT_TYPES, *BLOCK_TYPES)

BLOCK = dict.fromkeys(FLOAT_TYPES, 1) | dict.fromkeys(SMALL_TYPES, 32)
BLOCK |= dict.fromkeys(SUPER_TYPES, 256)
BYTES = {"f32": 4, "f16": 2, "bf16": 2}
BYTES |= {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34, "iq4_nl": 18}
BYTES |= {"q2_k": 84, "q3_k": 110, "q4_k": 144, "q5_k": 176, "q6_k": 210, "iq4_xs": 136}
# Where the halves of a block lie; every other byte may have any value.
HALVES = dict.fromkeys(BLOCK_TYPES, (0,)) | dict.fromkeys(("q4_1", "q5_1", "q4_k", "q5_k"), (0, 2))
HALVES |= {"q2_k": (80, 82), "q3_k": (108,), "q6_k": (208,)}

IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])

# All nibbles 15, 6-bit scales 63, int8 -128 and 127, offsets at their ends.
FILLS = ("random", "0x00", "0xff", "0x80", "0x7f", "extremes", "largest", "smallest")
SCALES = ("usual", "any finite half")
ACTIVATIONS = ("normal", "signs", "ones", "alternating", "impulse", "wide", "some zero blocks")


def gamma(n: float) -> float:
    return n * UNIT / (1 - n * UNIT)


class Parts(NamedTuple):
    """Blocks taken apart: [..., n_blocks] and then sub-blocks J, weights of a sub-block I."""

    d: np.ndarray  # float64 [...]
    scale: np.ndarray  # int64 [..., J]
    q: np.ndarray  # int64 [..., J, I]
    m: np.ndarray  # float64 [...]
    min: np.ndarray  # int64 [..., J]

    def weights(self) -> np.ndarray:
        """Exact in float64."""
        w = self.d[..., None, None] * (self.scale[..., None] * self.q)
        return w - self.m[..., None, None] * self.min[..., None]


def take_apart(dtype: str, raw: np.ndarray) -> Parts:
    """Blocks as bytes uint8 [..., n_blocks, BYTES] of a quantized type."""
    lead = raw.shape[:-1]
    wide = raw.astype(np.int64)

    def half(at: int) -> np.ndarray:
        return raw[..., at : at + 2].copy().view(np.float16)[..., 0].astype(np.float64)

    one, zero = np.ones((*lead, 1), np.int64), np.zeros((*lead, 1), np.int64)
    none = np.zeros(lead)

    def nibbles(code: np.ndarray) -> np.ndarray:
        """Low ones, then high ones, of the last axis."""
        return np.concatenate([code & 15, code >> 4], -1)

    def bits(code: np.ndarray, width: int = 1) -> np.ndarray:
        """[..., n] to [..., 8 / width, n]: the lowest first."""
        shifts = np.arange(0, 8, width)[:, None]
        return code[..., None, :] >> shifts & (1 << width) - 1

    def six_bit_pairs(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scale = [s[..., j] & 63 for j in range(4)]
        scale += [s[..., j + 8] & 15 | s[..., j] >> 6 << 4 for j in range(4)]
        least = [s[..., j + 4] & 63 for j in range(4)]
        least += [s[..., j + 8] >> 4 | s[..., j + 4] >> 6 << 4 for j in range(4)]
        return np.stack(scale, -1), np.stack(least, -1)

    match dtype:
        case "q4_0" | "q4_1":
            q = nibbles(wide[..., -16:])[..., None, :]
            if dtype == "q4_0":
                return Parts(half(0), one, q - 8, none, zero)
            return Parts(half(0), one, q, -half(2), one)
        case "q5_0" | "q5_1":
            fifth = np.unpackbits(raw[..., -20:-16], axis=-1, bitorder="little").astype(np.int64)
            q = (nibbles(wide[..., -16:]) | fifth << 4)[..., None, :]
            if dtype == "q5_0":
                return Parts(half(0), one, q - 16, none, zero)
            return Parts(half(0), one, q, -half(2), one)
        case "iq4_nl":
            q = IQ4_VALUES[nibbles(wide[..., 2:])][..., None, :]
            return Parts(half(0), one, q, none, zero)
        case "q8_0":
            q = raw[..., 2:].view(np.int8).astype(np.int64)[..., None, :]
            return Parts(half(0), one, q, none, zero)
        case "q2_k":
            q = bits(wide[..., 16:80].reshape(*lead, 2, 32), 2).reshape(*lead, 16, 16)
            return Parts(half(80), wide[..., :16] & 15, q, half(82), wide[..., :16] >> 4)
        case "q3_k":
            low = bits(wide[..., 32:96].reshape(*lead, 2, 32), 2).reshape(*lead, 16, 16)
            third = bits(wide[..., :32]).reshape(*lead, 16, 16)
            scale = nibbles(wide[..., 96:104])
            scale |= bits(wide[..., 104:108], 2).reshape(*lead, 16) << 4
            q = (low | third << 2) - 4
            return Parts(half(108), scale - 32, q, none, np.zeros((*lead, 16), np.int64))
        case "q4_k" | "q5_k":
            scale, least = six_bit_pairs(wide[..., 4:16])
            q = bits(wide[..., -128:].reshape(*lead, 4, 32), 4).reshape(*lead, 8, 32)
            if dtype == "q5_k":
                q = q | bits(wide[..., 16:48]) << 4
            return Parts(half(0), scale, q, half(2), least)
        case "iq4_xs":
            low = bits(wide[..., 4:8], 4).swapaxes(-1, -2).reshape(*lead, 8)
            high = (wide[..., 2:3] | wide[..., 3:4] << 8) >> np.arange(0, 16, 2) & 3
            q = IQ4_VALUES[nibbles(wide[..., 8:].reshape(*lead, 8, 16))]
            none_sub = np.zeros((*lead, 8), np.int64)
            return Parts(half(0), (low | high << 4) - 32, q, none, none_sub)
        case "q6_k":
            low = wide[..., :128].reshape(*lead, 2, 2, 32)  # half, part % 2, place
            high = wide[..., 128:192].reshape(*lead, 2, 32)
            parts = [
                low[..., part % 2, :] >> 4 * (part // 2) & 15 | (high >> 2 * part & 3) << 4
                for part in range(4)
            ]
            q = np.stack(parts, -2).reshape(*lead, 16, 16) - 32
            scale = raw[..., 192:208].view(np.int8).astype(np.int64)
            return Parts(half(208), scale, q, none, np.zeros((*lead, 16), np.int64))
    raise AssertionError(dtype)


# Extremes no single byte gives: all bytes, and the ones that differ. (Elsewhere "largest" is 0xff
# throughout and "smallest" 0x00.)
SPANS = {
    ("q6_k", "largest"): (0xFF, slice(192, 208), 0x7F),  # scales 127, q - 32 = 31
    ("q6_k", "smallest"): (0x00, slice(192, 208), 0x80),  # scales -128, q - 32 = -32
    ("iq4_xs", "largest"): (0x00, slice(8, 136), 0xFF),  # scales -32, q = 113
}


def make_weights(
    rng: np.random.Generator,
    dtype: str,
    n_rows: int,
    k: int,
    fill: str = "random",
    scales: str = "usual",
) -> np.ndarray:
    """Valid rows of a type as bytes: uint8 [n_rows][k / block * bytes]."""
    if dtype in FLOAT_TYPES:
        if scales == "usual":
            values = rng.standard_normal((n_rows, k))
        else:
            values = rng.standard_normal((n_rows, k)) * 2.0 ** rng.integers(-14, 14, (n_rows, k))
        if dtype == "bf16":
            return (
                (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
            )
        return values.astype(np.float32 if dtype == "f32" else np.float16).view(np.uint8)
    shape = (n_rows, k // BLOCK[dtype], BYTES[dtype])
    if fill == "random":
        raw = rng.integers(0, 256, shape, np.uint8)
    elif fill == "extremes":
        raw = rng.choice(np.array([0x00, 0xFF, 0x80, 0x7F], np.uint8), shape)
    elif fill in ("largest", "smallest"):
        usual = 0xFF if fill == "largest" else 0x00
        others, span, value = SPANS.get((dtype, fill), (usual, slice(0), usual))
        raw = np.full(shape, others, np.uint8)
        raw[..., span] = value
    else:
        raw = np.full(shape, int(fill, 16), np.uint8)
    for at in HALVES[dtype]:
        if scales == "usual":
            d = rng.choice([-1, 1], shape[:-1]) * rng.uniform(2.0**-10, 2.0**-3, shape[:-1])
        else:
            bits = rng.integers(0, 0x7C00, shape[:-1]) | rng.choice([0, 0x8000], shape[:-1])
            d = bits.astype(np.uint16).view(np.float16)
        raw[..., at : at + 2] = d.astype(np.float16)[..., None].view(np.uint8)
    return raw.reshape(n_rows, -1)


def make_activations(
    rng: np.random.Generator, n_cols: int, k: int, kind: str = "normal"
) -> np.ndarray:
    """float32 [n_cols][k]. "signs", "ones" and "alternating" quantize to +-127 throughout."""
    shape = (n_cols, k)
    match kind:
        case "normal":
            x = rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 3, (n_cols, 1))
        case "signs":
            x = rng.choice([-1.0, 1.0], shape)
        case "ones":
            x = rng.choice([-1.0, 1.0], (n_cols, 1)) * np.ones(shape)
        case "alternating":
            x = np.where(np.arange(k) % 2, -2.5, 2.5) * np.ones(shape)
        case "impulse":
            x = np.zeros(shape)
            x[np.arange(n_cols), rng.integers(0, k, n_cols)] = rng.standard_normal(n_cols)
        case "wide":
            x = rng.standard_normal(shape) * 10.0 ** rng.uniform(-12, 6, shape)
        case "some zero blocks":
            x = rng.standard_normal(shape) * (np.arange(k) // 32 % 2)
        case _:
            raise AssertionError(kind)
    return x.astype(np.float32)


def float_weights(dtype: str, raw: np.ndarray) -> np.ndarray:
    """float64 [n_rows][k], exact."""
    if dtype == "bf16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if dtype in FLOAT_TYPES:
        return raw.view(np.float32 if dtype == "f32" else np.float16).astype(np.float64)
    blocks = raw.reshape(len(raw), -1, BYTES[dtype])
    return take_apart(dtype, blocks).weights().reshape(len(raw), -1)


def quantized_product(
    dtype: str, raw: np.ndarray, q: np.ndarray, d: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights times activations given as integers q [n_cols][k] with scales d [n_cols][k / block].

    Returns the product [n_cols][n_rows] and a bound on the error of a float32 kernel that takes
    exact integer products within a block and then adds up to two terms per block to one float32.
    Of the roundings, two are in a block's scales, one turns a big integer into a float, two lie in
    a multiply-add that is not fused.
    """
    block = BLOCK[dtype]
    n_rows, n_cols, n_blocks = len(raw), len(q), q.shape[1] // block
    parts = take_apart(dtype, raw.reshape(n_rows, n_blocks, BYTES[dtype]))
    # [n_blocks][n_cols][n_rows]; float64 holds the integers exactly.
    x = q.astype(np.float64).reshape(n_cols, n_blocks, block).transpose(1, 0, 2)

    def integers(of_weights: np.ndarray) -> np.ndarray:
        w = np.broadcast_to(of_weights, parts.q.shape).reshape(n_rows, n_blocks, block)
        return x @ w.astype(np.float64).transpose(1, 2, 0)

    total, low = integers(parts.scale[..., None] * parts.q), integers(parts.min[..., None])
    scale = d.astype(np.float64).T[:, :, None]
    first = parts.d.T[:, None, :] * scale * total
    second = parts.m.T[:, None, :] * scale * low
    size = np.abs(first) + np.abs(second)
    underflow = TINY * (np.abs(total) + np.abs(low) + 2)
    bound = gamma(2 * n_blocks + 5) * size.sum(0) + underflow.sum(0)
    return (first - second).sum(0), bound


def quantization_bound(dtype: str, raw: np.ndarray, d: np.ndarray) -> np.ndarray:
    """How far quantizing the activations can move a product: [n_cols][n_rows].

    An activation moves by at most half a step d = max|x| / 127, and by the roundings on the way.
    A maximum below 127 / FLOAT_MAX has no finite 1 / d and may become zero.
    """
    step = d.astype(np.float64) * (0.5 + 127 * gamma(4)) + 127 / FLOAT_MAX
    per_block = np.abs(float_weights(dtype, raw)).reshape(len(raw), -1, BLOCK[dtype]).sum(-1)
    return step @ per_block.T


def float_product(dtype: str, raw: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The product [n_cols][n_rows] of float weights, and a bound on a float32 kernel's error.

    Kernels have at least eight partial sums, each a chain of multiply-adds (two roundings where
    they are not fused), and add those in pairs.
    """
    w = float_weights(dtype, raw)
    wide = x.astype(np.float64)
    k = x.shape[1]
    size = np.abs(wide) @ np.abs(w).T
    return wide @ w.T, gamma(k / 8 + 8) * size + TINY * k
