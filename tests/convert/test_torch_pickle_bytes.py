"""Torch files whose pickles are written opcode by opcode: far offsets, bombs, any order."""

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyllamacpp_convert.torch_pickle import read_tensors

from pyllamacpp.errors import FormatError


def tensor(name: str, key: str, n: int, start: int, shape: tuple[int, int]) -> bytes:
    """Opcodes that put a contiguous half tensor of the storage `key`, of n elements, in a dict."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def numbers(*values: int) -> bytes:
        return b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values)

    storage = b"(" + text("storage") + b"ctorch\nHalfStorage\n" + text(key) + text("cpu")
    return (
        text(name)
        + b"ctorch._utils\n_rebuild_tensor_v2\n("
        + (storage + numbers(n) + b"tQ" + numbers(start))
        + (b"(" + numbers(*shape) + b"t(" + numbers(shape[1], 1) + b"t")
        + b"\x89ccollections\nOrderedDict\n)RtRs"
    )


def save(path: Path, opcodes: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", opcodes)
        archive.writestr("archive/data/0", bytes(16))
    return path


def test_offsets_past_4_gib(tmp_path: Path) -> None:
    """A storage of 5 GiB that is a hole on disk, and one behind it."""
    path, n = tmp_path / "a.pth", (5 << 30) // 2
    last, late = tensor("last", "0", n, n - 8, (2, 4)), tensor("late", "1", 4, 0, (1, 4))
    with path.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}" + last + late + b".")
        info = zipfile.ZipInfo("archive/data/0")
        with archive.open(info, "w", force_zip64=True):
            begin = file.tell()
        # The directory is told the size that the local header leaves open.
        info.file_size = info.compress_size = 2 * n
        file.seek(begin + 2 * n - 16)
        file.write(np.arange(8, dtype="<f2").tobytes())
        archive.start_dir = file.tell()
        archive.writestr("archive/data/1", np.full(4, 3, "<f2").tobytes())
    tensors = read_tensors(path)
    assert tensors["late"].offset > 5 << 30
    np.testing.assert_array_equal(tensors["last"].read(0, 2), np.arange(8.0).reshape(2, 4))
    np.testing.assert_array_equal(tensors["last"].read(1, 2), [[4, 5, 6, 7]])
    np.testing.assert_array_equal(tensors["late"].read(0, 1), [[3, 3, 3, 3]])


@pytest.mark.parametrize(
    "opcodes",
    [
        pytest.param(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", id="deep nesting"),
        pytest.param(b"\x80\x02]r\xff\xff\xff\xff.", id="far memo index"),
        pytest.param(b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b".", id="huge bytearray"),
        pytest.param(b"\x80\x02)" + b"q\0h\0\x86" * 2000 + b"q\0}h\0Ns.", id="doubling key"),
        pytest.param(b"\x80\x02}" + tensor("w", "0", 1 << 40, 0, (8, 8)) + b".", id="huge storage"),
        pytest.param(b"\x80\x02}" + tensor("w", "0", 8, 0, (1 << 40, 8)) + b".", id="huge shape"),
        pytest.param(b"\x80\x02}", id="no end"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\x80\x02R.", id="empty stack"),
    ],
)
def test_bombs_are_refused(opcodes: bytes, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"a\.pth") as caught:
        read_tensors(save(tmp_path / "a.pth", opcodes))
    assert "\n" not in str(caught.value)


OPCODES = [bytes([byte]) for byte in b"})](tausQRbNe\x85\x86\x87"] + [b"q\0", b"h\0", b"K\1"]


@given(st.lists(st.sampled_from(OPCODES)))
def test_opcodes_in_any_order(tmp_path_factory: pytest.TempPathFactory, opcodes: list) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pth"
    try:
        found = read_tensors(save(path, b"\x80\x02" + b"".join(opcodes) + b"."))
    except FormatError:
        return
    # No opcode of these names a storage.
    assert found == {}
