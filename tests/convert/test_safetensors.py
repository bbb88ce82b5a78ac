"""The reader of safetensors files: ranges of good ones, and every kind of damage."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyllamacpp_convert.safetensors import read_tensors

from pyllamacpp.errors import FileError, FormatError, PyllamacppError, UnsupportedError

TENSORS = {
    "a": np.arange(24, dtype="<f2").reshape(6, 4),
    "b": np.arange(10, dtype="<u2").reshape(2, 5),
    "norm": np.arange(5, dtype="<f4"),
    "positions": np.arange(3, dtype="<i8"),
}
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_ranges(tmp_path: Path) -> None:
    tensors = read_tensors(write_safetensors(tmp_path / "x.safetensors", TENSORS))
    assert {name: t.dtype for name, t in tensors.items()} == {
        "a": "f16",
        "b": "bf16",
        "norm": "f32",
    }
    np.testing.assert_array_equal(tensors["a"].read(2, 5), TENSORS["a"][2:5])
    np.testing.assert_array_equal(tensors["b"].read(0, 2), TENSORS["b"])
    np.testing.assert_array_equal(tensors["norm"].read(0, 1), TENSORS["norm"][None])


def file_of(path: Path, header: Any, data: bytes = bytes(64)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(**changes: object) -> dict[str, object]:
    return {"dtype": "F16", "shape": [2, 4], "data_offsets": [0, 16]} | changes


@pytest.mark.parametrize(
    ("header", "error", "sentence"),
    [
        (b"[]", FormatError, "its header is not a JSON object"),
        (b"{" * 100_000, FormatError, "its header is not a JSON object"),
        (b"\xff", FormatError, "its header is not a JSON object"),
        ({"w": 1}, FormatError, "nothing sensible of w"),
        ({"w": entry(shape=[2, -4])}, FormatError, "nothing sensible of w"),
        ({"w": entry(shape=[True, 4])}, FormatError, "nothing sensible of w"),
        ({"w": entry(shape="24")}, FormatError, "nothing sensible of w"),
        ({"w": entry(data_offsets=[0, 15])}, FormatError, "does not fit its shape"),
        ({"w": entry(data_offsets=[16, 0])}, FormatError, "does not fit its shape"),
        ({"w": entry(data_offsets=[60, 76])}, FormatError, "ends before w does"),
        ({"w": entry(dtype="F8_E4M3")}, UnsupportedError, "16 or 32 bits"),
        ({"w": entry(dtype="Q7")}, UnsupportedError, "unknown type 'Q7'"),
        ({"w": entry(dtype=7)}, UnsupportedError, "unknown type 7"),
    ],
)
def test_headers_that_lie(
    header: Any, error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence):
        read_tensors(file_of(tmp_path / "x.safetensors", header))


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileError, match="cannot read"):
        read_tensors(path)
    path.write_bytes(b"1234")
    with pytest.raises(FormatError, match="too short"):
        read_tensors(path)
    path.write_bytes(struct.pack("<Q", 1 << 60) + bytes(100))
    with pytest.raises(FormatError, match="truncated or no safetensors file"):
        read_tensors(path)


def test_a_file_that_shrinks(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", TENSORS)
    tensors = read_tensors(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FormatError, match="ends in the middle of a tensor"):
        tensors["norm"].read(0, 1)


@same_folder
@given(st.data())
def test_any_damage_is_an_error_or_harmless(tmp_path: Path, data: st.DataObject) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", TENSORS)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with suppress(PyllamacppError):
        for tensor in read_tensors(path).values():
            tensor.read(0, tensor.shape[0] if len(tensor.shape) > 1 else 1)
