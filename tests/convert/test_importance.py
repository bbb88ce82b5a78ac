"""Importance matrices: files of ours and llama.cpp's, and quantizing with them."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from pyllamacpp_convert import quantize_gguf
from pyllamacpp_convert.gguf_file import read_gguf
from pyllamacpp_convert.importance import read_importance, write_importance
from pyllamacpp_convert.quantize import plan_quantization
from tiny_model import TinyModel

from pyllamacpp.errors import FileError, FormatError, InvalidArgumentError
from pyllamacpp.kernels import quantize

MODEL = TinyModel(n_layers=8, n_embd=64, n_ff=96)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODEL.write(tmp_path_factory.mktemp("model") / "model.gguf")


def sums(n_rows: int = 10) -> dict[str, tuple[np.ndarray, int]]:
    rng = np.random.default_rng(3)
    return {
        name: (np.exp(2 * rng.standard_normal(x.shape[1])), n_rows)
        for name, x in MODEL.weights().items()
        if x.ndim == 2 and name.startswith("blk.")
    }


def write(path: Path, values: dict[str, tuple[np.ndarray, int]]) -> Path:
    write_importance(
        path, values, architecture="llama", dataset="book.txt", n_chunks=7, chunk_size=512
    )
    return path


def test_the_file_is_llama_cpps(tmp_path: Path) -> None:
    path = write(tmp_path / "m.imatrix", sums())
    assert list(tmp_path.iterdir()) == [path]
    reader = gguf.GGUFReader(path)
    fields = {key: (f.types, f.contents()) for key, f in reader.fields.items()}
    kinds = gguf.GGUFValueType
    assert fields["general.type"] == ([kinds.STRING], "imatrix")
    assert fields["imatrix.datasets"] == ([kinds.ARRAY, kinds.STRING], ["book.txt"])
    assert fields["imatrix.chunk_count"] == ([kinds.UINT32], 7)
    assert fields["imatrix.chunk_size"] == ([kinds.UINT32], 512)
    tensors = {t.name: t for t in reader.tensors}
    assert len(tensors) == 2 * len(sums())
    for name, (squares, n_rows) in sums().items():
        total, count = tensors[name + ".in_sum2"], tensors[name + ".counts"]
        assert total.tensor_type == count.tensor_type == gguf.GGMLQuantizationType.F32
        np.testing.assert_array_equal(total.data, squares.astype(np.float32))
        assert count.data.tolist() == [n_rows]


def test_reading_back(tmp_path: Path) -> None:
    values = sums()
    values["blk.0.attn_q.weight"] = (np.ones(64), 0)  # no row went through it
    found = read_importance(write(tmp_path / "m.imatrix", values))
    assert (found.datasets, found.n_chunks) == (["book.txt"], 7)
    for name, (squares, n_rows) in values.items():
        expected = squares / n_rows if n_rows else np.ones(64)
        np.testing.assert_allclose(found.columns[name], expected, rtol=1e-6)
        assert found.of(name, len(squares)) is found.columns[name]
    assert found.of("output.weight", 64) is None
    with pytest.raises(
        InvalidArgumentError, match=r"has 64 columns for blk.0.attn_q.weight, which"
    ):
        found.of("blk.0.attn_q.weight", 65)


def legacy(values: dict[str, np.ndarray], n_calls: int, tail: bytes = b"") -> bytes:
    data = struct.pack("<i", len(values))
    for name, column in values.items():
        data += (
            struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", n_calls, len(column))
        )
        data += (n_calls * column).astype("<f4").tobytes()
    return data + tail


def test_the_older_format(tmp_path: Path) -> None:
    path = tmp_path / "m.dat"
    values = {"blk.0.attn_q.weight": np.float32([1, 2]), "b": np.float32([3])}
    path.write_bytes(legacy(values, 4))
    found = read_importance(path)
    assert {name: column.tolist() for name, column in found.columns.items()} == {
        "blk.0.attn_q.weight": [1, 2],
        "b": [3],
    }
    assert (found.datasets, found.n_chunks) == ([], 0)
    path.write_bytes(legacy(values, 4, struct.pack("<ii", 9, 5) + b"a.txt"))
    found = read_importance(path)
    assert (found.datasets, found.n_chunks) == (["a.txt"], 9)
    whole = path.read_bytes()
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        if n == len(whole) - 13:
            continue  # without its tail it is whole too
        with pytest.raises(FormatError, match=r"m.dat is not an importance matrix"):
            read_importance(path)


def test_bad_files(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.imatrix"
    with pytest.raises(FileError, match=r"cannot read .*m\.imatrix"):
        read_importance(path)
    with pytest.raises(FormatError, match=r"model.gguf is not an importance matrix"):
        read_importance(source)
    write(path, {})
    with pytest.raises(FormatError, match="holds no importances"):
        read_importance(path)
    for bad in (np.nan, np.inf, -1.0):
        write(path, {"a": (np.array([1.0, bad]), 1)})
        with pytest.raises(FormatError, match="the importance of a is not finite and positive"):
            read_importance(path)
    data = write(path, {"a": (np.ones(32), 1)}).read_bytes()
    path.write_bytes(data.replace(b"a.counts", b"b.counts"))
    with pytest.raises(FormatError, match=r"a\.counts is missing"):
        read_importance(path)


def test_quantizing_with_it(source: Path, tmp_path: Path) -> None:
    path, target = write(tmp_path / "m.imatrix", sums()), tmp_path / "out.gguf"
    plan = quantize_gguf(source, target, "q4_0", imatrix=path)
    assert plan.without_importance == ["token_embd.weight", "output.weight"]
    out = read_gguf(target)
    for name, x in MODEL.weights().items():
        tensor = out.tensors[name]
        if name in sums():
            # The mixture uses that there is one.
            assert tensor.dtype == ("q4_1" if name == "blk.0.ffn_down.weight" else "q4_0")
            columns = (sums()[name][0].astype(np.float32) / np.float32(10)).astype(np.float32)
            expected = quantize(tensor.dtype, x, columns)
            assert tensor.read(0, len(x)).tobytes() == expected.tobytes(), name
            assert expected.tobytes() != quantize(tensor.dtype, x).tobytes()
    stated = {key: value.value for key, value in out.metadata.items() if "imatrix" in key}
    assert stated == {
        "quantize.imatrix.file": "m.imatrix",
        "quantize.imatrix.dataset": "book.txt",
        "quantize.imatrix.entries_count": len(sums()),
        "quantize.imatrix.chunks_count": 7,
    }
    write(path, {"blk.0.attn_q.weight": (np.ones(32), 1)})
    with pytest.raises(
        InvalidArgumentError, match=r"has 32 columns for blk.0.attn_q.weight, which"
    ):
        plan_quantization(source, "q4_0", imatrix=path)
    # Floats are not chosen by importance.
    assert plan_quantization(source, "f16", imatrix=path).without_importance == []
