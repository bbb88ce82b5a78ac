"""The scalar dequantizers against the gguf package's and exact arithmetic."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_oracle import (
    BLOCK,
    BLOCK_TYPES,
    BYTES,
    FILLS,
    SCALES,
    TINY,
    TYPES,
    gamma,
    make_weights,
    take_apart,
)

from pyllamacpp.errors import InvalidArgumentError, UnsupportedError
from pyllamacpp.kernels import TYPE_IDS, bytes_of, dequantize


@pytest.mark.parametrize("dtype", TYPES)
@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_blocks=st.integers(1, 9),
    fill=st.sampled_from(FILLS),
    scales=st.sampled_from(SCALES),
)
def test_against_the_gguf_package(dtype, seed, n_blocks, fill, scales):
    n = n_blocks * BLOCK[dtype]
    raw = make_weights(np.random.default_rng(seed), dtype, 1, n, fill, scales)[0]
    y = dequantize(dtype, raw, n)
    theirs = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(TYPE_IDS[dtype]))
    np.testing.assert_array_equal(y, theirs.reshape(-1))
    if dtype in BLOCK_TYPES:
        parts = take_apart(dtype, raw.reshape(n_blocks, -1))
        size = np.abs(parts.d[..., None, None] * (parts.scale[..., None] * parts.q))
        size = size + np.abs(parts.m[..., None, None] * parts.min[..., None])
        error = np.abs(y - parts.weights().reshape(-1))
        assert np.all(error <= gamma(3) * size.reshape(-1) + TINY)


WRITTEN = ("bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0")


@pytest.mark.parametrize("dtype", WRITTEN)
def test_what_the_gguf_package_writes(dtype):
    """Weights quantized by the package come back within a step."""
    kind = gguf.GGMLQuantizationType(TYPE_IDS[dtype])
    x = np.random.default_rng(4).standard_normal((3, 256)).astype(np.float32)
    raw = gguf.quants.quantize(x, kind)
    y = dequantize(dtype, raw, x.size).reshape(x.shape)
    np.testing.assert_array_equal(y, gguf.quants.dequantize(raw, kind))
    levels = {"bf16": 512, "q8_0": 254}.get(dtype, 16 if dtype.startswith("q4") else 32)
    assert np.abs(x - y).max() <= 2.5 * np.abs(x).max() / levels


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_every_16_bit_float(dtype):
    bits = np.arange(65536, dtype=np.uint16)
    y = dequantize(dtype, bits, 65536)
    with np.errstate(invalid="ignore"):  # signalling NaN
        expected = (
            bits.view(np.float16).astype(np.float32)
            if dtype == "f16"
            else (bits.astype(np.uint32) << 16).view(np.float32)
        )
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(y), nan)
    np.testing.assert_array_equal(y[~nan].view(np.uint32), expected[~nan].view(np.uint32))


def test_sizes():
    for name, number in TYPE_IDS.items():
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(number)]
        assert gguf.GGMLQuantizationType(number).name.lower() == name
        assert bytes_of(name, 6 * block) == bytes_of(number, 6 * block) == 6 * size
        assert bytes_of(name, 0) == 0
        assert (BLOCK[name], BYTES[name]) == (block, size)
    for dtype, n in [("q4_0", 31), ("q4_k", 128), ("f32", -1), (4, 32), ("f32", 1 << 64)]:
        with pytest.raises(InvalidArgumentError, match="are not whole blocks of a known type"):
            bytes_of(dtype, n)
    for dtype in ("Q4_0", "", -1, 1 << 32):
        with pytest.raises(InvalidArgumentError, match="weight type"):
            bytes_of(dtype, 32)


def test_arguments_that_do_not_fit():
    with pytest.raises(InvalidArgumentError, match="weights has 17 bytes, expected at least 18"):
        dequantize("q4_0", bytes(17), 32)
    with pytest.raises(UnsupportedError, match="weights of type i8 cannot be read"):
        dequantize(24, bytes(32), 32)
    assert dequantize("q4_0", bytes(36), 32).tolist() == [0] * 32
    assert dequantize("q4_0", b"", 0).shape == (0,)
    assert dequantize("f32", memoryview(np.float32([1, 2]).tobytes()), 2).tolist() == [1, 2]
