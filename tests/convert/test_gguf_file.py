"""The reader of GGUF files by ranges: what the `gguf` package writes, and what is damaged."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyllamacpp_convert.gguf_file import read_gguf
from pyllamacpp_convert.metadata import Typed

from pyllamacpp.errors import (
    FileError,
    FormatError,
    InvalidArgumentError,
    PyllamacppError,
    UnsupportedError,
)
from pyllamacpp.kernels import TYPE_IDS, bytes_of

KINDS = gguf.GGUFValueType
VALUES = {
    "a.u8": Typed(200, KINDS.UINT8),
    "a.i8": Typed(-100, KINDS.INT8),
    "a.u16": Typed(60000, KINDS.UINT16),
    "a.i16": Typed(-30000, KINDS.INT16),
    "a.u32": Typed(1 << 31, KINDS.UINT32),
    "a.i32": Typed(-(1 << 31), KINDS.INT32),
    "a.u64": Typed(1 << 63, KINDS.UINT64),
    "a.i64": Typed(-(1 << 63), KINDS.INT64),
    "a.f32": Typed(0.5, KINDS.FLOAT32),
    "a.f64": Typed(0.1, KINDS.FLOAT64),
    "a.bool": Typed(True, KINDS.BOOL),
    "a.text": Typed("Straße 🦙", KINDS.STRING),
    "a.numbers": Typed([3, -1, 2], KINDS.ARRAY, KINDS.INT16),
    "a.texts": Typed(["a", "", b"\xff\xfe"], KINDS.ARRAY, KINDS.STRING),
    "a.bools": Typed([True, False], KINDS.ARRAY, KINDS.BOOL),
}


def write(path: Path, tensors: dict[str, tuple[tuple[int, ...], str]], **values: Typed) -> dict:
    """A file of random bytes; returns each tensor's."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in {**VALUES, **{k.replace("__", "."): v for k, v in values.items()}}.items():
        writer.add_key_value(key, value.value, value.type, value.item_type)
    contents = {}
    for name, (shape, dtype) in tensors.items():
        raw = rng.integers(0, 256, (*shape[:-1], bytes_of(dtype, shape[-1])), np.uint8)
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType(TYPE_IDS[dtype]))
        contents[name] = raw
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return contents


def test_what_the_gguf_package_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    tensors = {dtype: ((3, 5, 256), dtype) for dtype in TYPE_IDS} | {"vector": ((7,), "f32")}
    contents = write(path, tensors)
    model = read_gguf(path)
    assert model.files == [path]
    assert {key: model.metadata[key] for key in VALUES} == VALUES
    assert model.metadata["general.architecture"] == Typed("llama", KINDS.STRING)
    assert {n: (t.shape, t.dtype) for n, t in model.tensors.items()} == tensors
    for name, tensor in model.tensors.items():
        raw = contents[name].reshape(-1, contents[name].shape[-1])
        assert tensor.n_bytes == raw.nbytes
        for first, last in [(0, len(raw)), (len(raw) - 1, len(raw)), (0, 0), (len(raw) // 2,) * 2]:
            assert tensor.read(first, last).tobytes() == raw[first:last].tobytes()
    assert model.tensors["f16"].read(2, 4).dtype == np.float16
    assert model.tensors["bf16"].read(2, 4).dtype == np.uint16
    assert model.tensors["q4_k"].read(2, 4).shape == (2, 144)
    assert (model.number("a.u16"), model.number("a.numbers")) == (60000, 3)
    assert (model.number("a.f32"), model.number("a.none")) == (None, None)


def part(path: Path, number: int, count: int, names: list[str], total: int) -> None:
    write(
        path,
        dict.fromkeys(names, ((2, 32), "f16")),
        split__no=Typed(number, KINDS.UINT16),
        split__count=Typed(count, KINDS.UINT16),
        split__tensors__count=Typed(total, KINDS.INT32),
    )


def test_parts(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-{i:05}-of-00002.gguf" for i in (1, 2))
    part(first, 0, 2, ["a", "b"], 3)
    part(second, 1, 2, ["c"], 3)
    model = read_gguf(first)
    assert (model.files, list(model.tensors)) == ([first, second], ["a", "b", "c"])
    assert model.tensors["c"].path == second
    with pytest.raises(
        InvalidArgumentError, match="is part 2 of 2; give the first, m-00001-of-0000"
    ):
        read_gguf(second)
    renamed = tmp_path / "m.gguf"
    renamed.write_bytes(first.read_bytes())
    with pytest.raises(FormatError, match=r"whose name should end in -00001-of-00002.gguf"):
        read_gguf(renamed)
    part(second, 1, 2, ["a"], 3)
    with pytest.raises(FormatError, match="tensor a is also in an earlier part"):
        read_gguf(first)
    part(second, 1, 2, ["c", "d"], 3)
    with pytest.raises(FormatError, match=r"split.tensors.count is 3, but the files have 4"):
        read_gguf(first)
    part(second, 0, 2, ["c"], 3)
    with pytest.raises(FormatError, match=r"split.no is 0, expected 1"):
        read_gguf(first)
    second.unlink()
    with pytest.raises(FileError, match=r"cannot read .*m-00002-of-00002.gguf"):
        read_gguf(first)


def test_damage(tmp_path: Path) -> None:
    path, bad = tmp_path / "a.gguf", tmp_path / "b.gguf"
    write(path, {"a": ((4, 64), "q8_0"), "b": ((300,), "f32")})
    data = path.read_bytes()

    def changed(old: bytes, new: bytes) -> Path:
        assert data.count(old) == 1
        bad.write_bytes(data.replace(old, new))
        return bad

    name = struct.pack("<Q", 1) + b"a" + struct.pack("<I", 2)
    info = name + struct.pack("<QQI", 64, 4, 8)
    with pytest.raises(FormatError, match="is not a GGUF file"):
        read_gguf(changed(b"GGUF\x03", b"GGML\x03"))
    with pytest.raises(UnsupportedError, match="GGUF version 1, expected 2 or 3"):
        read_gguf(changed(b"GGUF\x03", b"GGUF\x01"))
    with pytest.raises(FormatError, match="a has 9 dimensions, expected 1 to 4"):
        read_gguf(changed(name, name[:-4] + struct.pack("<I", 9)))
    with pytest.raises(UnsupportedError, match="a is of type id 24, which cannot be read"):
        read_gguf(changed(info, name + struct.pack("<QQI", 64, 4, 24)))
    with pytest.raises(FormatError, match="a: 63 weights of q8_0 are not whole blocks"):
        read_gguf(changed(info, name + struct.pack("<QQI", 63, 4, 8)))
    for rows in (0, 1 << 62):
        with pytest.raises(FormatError, match=r"a has the shape \[64, "):
            read_gguf(changed(info, name + struct.pack("<QQI", 64, rows, 8)))
    with pytest.raises(FormatError, match="ends before the end of a"):
        read_gguf(changed(info, name + struct.pack("<QQI", 64, 5000, 8)))
    with pytest.raises(FormatError, match="b is there twice"):
        read_gguf(changed(name, struct.pack("<Q", 1) + b"b" + struct.pack("<I", 2)))
    text = struct.pack("<Q", 5) + b"a.f32" + struct.pack("<I", 6)
    with pytest.raises(FormatError, match=r"a.f32 has the unknown value type 77"):
        read_gguf(changed(text, text[:-4] + struct.pack("<I", 77)))
    with pytest.raises(FormatError, match=r"a.f64 is there twice"):
        read_gguf(changed(text, text.replace(b"a.f32", b"a.f64")))
    with pytest.raises(FormatError, match="a key is not UTF-8"):
        read_gguf(changed(text, text.replace(b"a.f32", b"a.\xff32")))
    with pytest.raises(FileError, match="cannot read"):
        read_gguf(tmp_path / "none.gguf")
    tensor = read_gguf(path).tensors["b"]
    path.write_bytes(data[:-900])
    with pytest.raises(FormatError, match="ends in the middle of b"):
        tensor.read(0, 1)
    with pytest.raises(FormatError, match="ends before the end of b: it is truncated"):
        read_gguf(path)


@given(cut=st.integers(0, 1 << 11), place=st.integers(0, 1 << 11), byte=st.integers(0, 255))
def test_any_damage_is_an_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, cut: int, place: int, byte: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole, damaged = folder / "whole.gguf", folder / "damaged.gguf"
    if not whole.exists():
        write(whole, {"a": ((4, 64), "q8_0"), "b": ((5,), "f32")})
    data = bytearray(whole.read_bytes())
    data[place % len(data)] = byte
    del data[len(data) - min(cut, len(data) // 2) * (cut % 2) :]
    damaged.write_bytes(data)
    try:
        model = read_gguf(damaged)
    except PyllamacppError:
        return
    for tensor in model.tensors.values():
        tensor.read(0, 1)
