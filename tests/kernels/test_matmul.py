"""Matrix products of every weight type on every tier."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_oracle import (
    ACTIVATIONS,
    BLOCK,
    BLOCK_TYPES,
    FILLS,
    FLOAT_TYPES,
    SCALES,
    TYPES,
    float_product,
    float_weights,
    gamma,
    make_activations,
    make_weights,
    quantization_bound,
    quantized_product,
)

from pyllamacpp.errors import InvalidArgumentError, UnsupportedError
from pyllamacpp.kernels import TYPE_IDS, Kernels

LAYOUTS = [(dtype, False) for dtype in TYPES] + [(dtype, True) for dtype in BLOCK_TYPES]
layouts = pytest.mark.parametrize(
    ("dtype", "packed"), LAYOUTS, ids=[f"{t}-packed" if p else t for t, p in LAYOUTS]
)
SEEDS = st.integers(0, 2**32 - 1)


def quantize_columns(
    kernels: Kernels, dtype: str, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = [kernels.quantize_activations(column, BLOCK[dtype]) for column in x]
    q, d, sums = (np.stack(part) for part in zip(*parts, strict=True))
    return q, d, sums


def check_product(kernels: Kernels, dtype: str, raw: np.ndarray, x: np.ndarray, y: np.ndarray):
    """Compares y with the product of these operands in float64."""
    if dtype in FLOAT_TYPES:
        expected, bound = float_product(dtype, raw, x)
    else:
        q, d, _ = quantize_columns(kernels, dtype, x)
        expected, bound = quantized_product(dtype, raw, q, d)
        exact = x.astype(np.float64) @ float_weights(dtype, raw).T
        moved = quantization_bound(dtype, raw, d)
        rounding = 1e-12 * (np.abs(exact) + np.abs(expected) + moved)
        assert np.all(np.abs(y - exact) <= moved + bound + rounding)
    assert y.dtype == np.float32
    assert y.shape == expected.shape
    error = np.abs(y - expected)
    worst = np.unravel_index(np.argmax(error - bound), error.shape)
    assert np.all(error <= bound), (
        f"column {worst[0]}, row {worst[1]}: got {y[worst]!r}, expected {expected[worst]!r} "
        f"+- {bound[worst]!r}"
    )


def test_the_table_lists_the_types(kernels: Kernels) -> None:
    assert sorted(kernels.types()) == sorted(TYPES) == sorted(TYPE_IDS)


@pytest.mark.parametrize("dtype", ["bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"])
def test_weights_of_the_gguf_package(kernels, dtype):
    """Quantized and taken apart by the package alone: nothing here knows the layout."""
    rng = np.random.default_rng(9)
    kind = gguf.GGMLQuantizationType(TYPE_IDS[dtype])
    raw = gguf.quants.quantize(rng.standard_normal((33, 128)).astype(np.float32), kind)
    x = make_activations(rng, 3, 128)
    exact = x.astype(np.float64) @ gguf.quants.dequantize(raw, kind).astype(np.float64).T
    for packed in {False, dtype in BLOCK_TYPES}:
        y = kernels.matmul(dtype, raw, x, packed=packed)
        if dtype in FLOAT_TYPES:
            _, bound = float_product(dtype, raw.view(np.uint8), x)
        else:
            q, d, _ = quantize_columns(kernels, dtype, x)
            _, bound = quantized_product(dtype, raw, q, d)
            # The package rounds each weight to float32.
            size = np.abs(x).astype(np.float64) @ np.abs(float_weights(dtype, raw)).T
            bound = bound + quantization_bound(dtype, raw, d) + gamma(4) * size
        assert np.all(np.abs(y - exact) <= bound + 1e-12 * np.abs(exact))


@layouts
@settings(max_examples=100)
@given(
    seed=SEEDS,
    n_rows=st.integers(1, 70),
    n_blocks=st.integers(1, 5),
    tail=st.integers(0, 69),
    n_cols=st.integers(1, 27) | st.integers(28, 103),
    fill=st.sampled_from(FILLS),
    scales=st.sampled_from(SCALES),
    activations=st.sampled_from(ACTIVATIONS),
)
def test_products(
    kernels, dtype, packed, seed, n_rows, n_blocks, tail, n_cols, fill, scales, activations
):
    rng = np.random.default_rng(seed)
    k = n_blocks * BLOCK[dtype] if BLOCK[dtype] > 1 else (n_blocks - 1) * 128 + tail + 1
    raw = make_weights(rng, dtype, n_rows, k, fill, scales)
    x = make_activations(rng, n_cols, k, activations)
    check_product(kernels, dtype, raw, x, kernels.matmul(dtype, raw, x, packed=packed))


@layouts
@pytest.mark.parametrize("activations", ["signs", "ones", "alternating"])
@pytest.mark.parametrize("fill", FILLS)
def test_extreme_integers_are_exact(kernels, dtype, packed, fill, activations):
    """A saturating byte product would be far outside: blocks at their limits, activations +-127."""
    rng = np.random.default_rng(7)
    k = 2 * max(BLOCK[dtype], 32)
    raw = make_weights(rng, dtype, 33, k, fill)
    x = make_activations(rng, 7, k, activations)
    if dtype not in FLOAT_TYPES:
        q, _, _ = quantize_columns(kernels, dtype, x)
        assert np.all(np.abs(q.astype(np.int32)) == 127)
    check_product(kernels, dtype, raw, x, kernels.matmul(dtype, raw, x, packed=packed))


def sweep_operands(dtype: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    k = 2 * BLOCK[dtype] if BLOCK[dtype] > 1 else 71
    return make_weights(rng, dtype, 70, k), make_activations(rng, 103, k)


@layouts
def test_one_reduction(kernels, dtype, packed):
    """The same bits for any number of rows and columns and both layouts.

    The whole is compared with float64, so every tile of every tail is.
    """
    raw, x = sweep_operands(dtype)
    whole = kernels.matmul(dtype, raw, x)
    check_product(kernels, dtype, raw, x, whole)
    for n_rows in range(1, 71):
        n_cols = n_rows % 17 + 1
        part = kernels.matmul(dtype, raw[:n_rows], x[:n_cols], packed=packed)
        np.testing.assert_array_equal(part, whole[:n_cols, :n_rows])
    for n_cols in (*range(1, 28), 64, 65, 96, 97, 103):  # where packed panels are expanded, and not
        for n_rows in (1, 15, 16, 17, 31, 33, 48, 65):
            part = kernels.matmul(dtype, raw[:n_rows], x[-n_cols:], packed=packed)
            np.testing.assert_array_equal(part, whole[-n_cols:, :n_rows])


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
def test_every_length_of_a_float_row(kernels, dtype):
    rng = np.random.default_rng(3)
    for k in range(1, 71):
        raw = make_weights(rng, dtype, 5, k)
        x = make_activations(rng, 4, k)
        y = kernels.matmul(dtype, raw, x)
        check_product(kernels, dtype, raw, x, y)
        np.testing.assert_array_equal(y[:1], kernels.matmul(dtype, raw, x[:1]))


@layouts
def test_row_ranges(kernels, dtype, packed):
    raw, x = sweep_operands(dtype)
    for n_cols in (1, 2, 7, 26):
        whole = kernels.matmul(dtype, raw, x[:n_cols])
        for first, last in [(0, 1), (0, 32), (0, 33), (32, 33), (32, 64), (32, 70), (64, 70)]:
            part = kernels.matmul(dtype, raw, x[:n_cols], rows=(first, last), packed=packed)
            np.testing.assert_array_equal(part, whole[:, first:last])


@layouts
def test_accumulation_adds_the_same_product(kernels, dtype, packed):
    raw, x = sweep_operands(dtype)
    rng = np.random.default_rng(5)
    for n_rows, n_cols in [(1, 1), (16, 1), (37, 2), (70, 5), (70, 27), (33, 103)]:
        before = rng.standard_normal((n_cols, n_rows)).astype(np.float32)
        product = kernels.matmul(dtype, raw[:n_rows], x[:n_cols])
        after = kernels.matmul(dtype, raw[:n_rows], x[:n_cols], add_to=before, packed=packed)
        np.testing.assert_array_equal(after, before + product)


@layouts
def test_tiers_agree(kernels, scalar, dtype, packed):
    """Both are within the bound of the exact value, so of each other within twice that."""
    raw, x = sweep_operands(dtype)
    ours = kernels.matmul(dtype, raw, x, packed=packed).astype(np.float64)
    theirs = scalar.matmul(dtype, raw, x)
    if dtype in FLOAT_TYPES:
        _, bound = float_product(dtype, raw, x)
    else:
        q, d, _ = quantize_columns(scalar, dtype, x)
        _, bound = quantized_product(dtype, raw, q, d)
    assert np.all(np.abs(ours - theirs) <= 2 * bound)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_all_halves(kernels, dtype):
    """Every 16-bit float by vector loads and by the tail's; NaN and infinity included."""
    bits = np.arange(65536, dtype=np.uint16)
    for k in (1, 32, 33):
        raw = np.repeat(bits[:, None], k, axis=1)
        y = kernels.matmul(dtype, raw.view(np.uint8), np.ones((1, k), np.float32))[0]
        with np.errstate(invalid="ignore", over="ignore"):  # signalling NaN; sums beyond FLOAT_MAX
            wide = (
                bits.view(np.float16).astype(np.float32)
                if dtype == "f16"
                else (bits.astype(np.uint32) << 16).view(np.float32)
            )
            np.testing.assert_array_equal(y, wide * np.float32(k))


# --- The activation quantizers. ---


@pytest.mark.parametrize("block", [32, 256])
@settings(max_examples=60)
@given(seed=SEEDS, n_blocks=st.integers(1, 9), kind=st.sampled_from(ACTIVATIONS))
def test_quantized_activations(kernels, scalar, block, seed, n_blocks, kind):
    x = make_activations(np.random.default_rng(seed), 1, n_blocks * block, kind)[0]
    q, d, sums = kernels.quantize_activations(x, block)
    blocks = x.reshape(n_blocks, block)
    top = np.abs(blocks).max(axis=1)
    np.testing.assert_array_equal(d, top / np.float32(127))
    wide = q.astype(np.int32)
    assert np.all(np.abs(wide) <= 127)
    np.testing.assert_array_equal(sums, wide.reshape(-1, 32 if block == 32 else 16).sum(axis=1))
    # Half a step, and three roundings of a number up to 127 steps.
    step = d.astype(np.float64)[:, None]
    error = np.abs(blocks - step * wide.reshape(n_blocks, block))
    assert np.all(error <= step * (0.5 + 127 * 4 * 2.0**-24) + 127 / np.finfo(np.float32).max)
    for ours, theirs in zip((q, d, sums), scalar.quantize_activations(x, block), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("block", [32, 256])
def test_ties_of_quantized_activations_go_to_even(kernels, block):
    x = np.zeros(block, np.float32)
    x[0] = 127
    x[1:9] = [0.5, 1.5, 2.5, -0.5, -1.5, 126.5, -126.5, 0.49999997]
    q, d, _ = kernels.quantize_activations(x, block)
    assert d[0] == 1
    assert q[:9].tolist() == [127, 0, 2, 2, 0, -2, 126, -126, 0]


# --- Arguments. ---


def test_arguments_that_do_not_fit(kernels):
    x = np.ones((2, 64), np.float32)
    raw = make_weights(np.random.default_rng(0), "q4_0", 3, 64)
    for arguments, message in [
        (("q4_0", raw, x.astype(np.float64)), "x has dtype float64, expected float32"),
        (("q4_0", raw, x[0]), "x has 1 dimensions, expected 2"),
        (("q4_0", raw.reshape(-1)[:-1], x), "rows of 36 bytes"),
        (("q4_0", raw, x[:, :63]), "63 weights of q4_0"),
        (("q4_9", raw, x), "unknown weight type 'q4_9', expected one of f32, f16"),
        ((12345, raw, x), "type id 12345"),
        (("q4_0", raw, x[:0]), "at least one row and one column"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            kernels.matmul(*arguments)
    for rows in [(0, 4), (1, 3), (2, 2), (-32, 3), (32, 33)]:
        with pytest.raises(InvalidArgumentError, match="of a matrix of 3 rows"):
            kernels.matmul("q4_0", raw, x, rows=rows)
    with pytest.raises(InvalidArgumentError, match=r"add_to has shape \(1, 3\)"):
        kernels.matmul("q4_0", raw, x, add_to=np.zeros((1, 3), np.float32))
    with pytest.raises(UnsupportedError, match="f32 has no packed layout"):
        kernels.matmul("f32", np.ones((3, 64), np.float32), x, packed=True)
    with pytest.raises(UnsupportedError, match="type id 24"):
        kernels.matmul(24, np.ones((3, 64), np.int8), x)
    with pytest.raises(InvalidArgumentError, match="block is 16"):
        kernels.quantize_activations(x[0], 16)
    with pytest.raises(InvalidArgumentError, match="x has 64 values, expected a multiple of 256"):
        kernels.quantize_activations(x[0], 256)


@pytest.mark.parametrize("dtype", BLOCK_TYPES)
def test_any_memory_layout(kernels, dtype):
    """Strided activations, and weights at an odd address."""
    rng = np.random.default_rng(2)
    k = BLOCK[dtype]
    raw, x = make_weights(rng, dtype, 3, k), make_activations(rng, 4, k)
    expected = kernels.matmul(dtype, raw, x)
    strided = np.asfortranarray(x)
    odd = np.frombuffer(b"\0" + raw.tobytes(), np.uint8)[1:]
    np.testing.assert_array_equal(kernels.matmul(dtype, odd, strided), expected)
    np.testing.assert_array_equal(kernels.matmul(dtype, raw.tobytes(), x), expected)
