"""The streamed GGUF writer: what it writes is read by us and by the `gguf` package."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from pyllamacpp_convert.writer import GgufStreamWriter, TensorSpec, Typed

from pyllamacpp import _core
from pyllamacpp.errors import FileError, FormatError, InvalidArgumentError

METADATA = {
    "general.architecture": "llama",
    "general.name": "tiny",
    "llama.block_count": 2,
    "llama.big": 1 << 40,
    "llama.rope.freq_base": 1e4,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.tokens": ["a", "b"],
}
SPECS = [
    TensorSpec("norm", (5,), "f32"),
    TensorSpec("matrix", (6, 64), "q8_0"),
    TensorSpec("half", (3, 7), "f16"),
]


def contents() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    return {spec.name: rng.bytes(spec.n_bytes) for spec in SPECS}


def test_bands_in_any_order(tmp_path: Path) -> None:
    data = contents()
    path = tmp_path / "out.gguf"
    with GgufStreamWriter(path, METADATA, SPECS) as writer:
        for spec in reversed(SPECS):
            for row in reversed(range(spec.n_rows)):
                start = row * spec.row_bytes
                writer.write(spec.name, row, data[spec.name][start : start + spec.row_bytes])
            assert not path.exists()
        writer.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["out.gguf"]
    ours = _core.GgufFile(str(path))
    assert {key: ours.metadata[key] for key in METADATA} == METADATA
    shapes = [(t.name, t.dtype, tuple(reversed(t.shape))) for t in ours.tensors]
    assert shapes == [(s.name, s.dtype, s.shape) for s in SPECS]
    for tensor in gguf.GGUFReader(path).tensors:
        assert tensor.data.tobytes() == data[tensor.name]


def test_an_unfinished_file_is_resumed_or_removed(tmp_path: Path) -> None:
    data = contents()
    path = tmp_path / "out.gguf"
    with GgufStreamWriter(path, METADATA, SPECS) as writer:
        writer.write("norm", 0, data["norm"])
    assert [p.name for p in tmp_path.iterdir()] == ["out.gguf.part"]
    with pytest.raises(FormatError, match="begun with other options"):
        GgufStreamWriter(path, METADATA | {"general.name": "other"}, SPECS, resume=True)
    with GgufStreamWriter(path, METADATA, SPECS, resume=True) as writer:
        assert writer.read("norm", 0, 1) == data["norm"]
        writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_values_of_stated_types(tmp_path: Path) -> None:
    kinds = gguf.GGUFValueType
    typed = {
        "a.u8": Typed(7, kinds.UINT8),
        "a.f64": Typed(0.1, kinds.FLOAT64),
        "a.i16s": Typed([1, -2], kinds.ARRAY, kinds.INT16),
        "a.below": -5,
        "a.far": -(1 << 40),
    }
    path = tmp_path / "out.gguf"
    with GgufStreamWriter(path, METADATA | typed, []) as writer:
        writer.finish()
    fields = gguf.GGUFReader(path).fields
    values = {key: fields[key].contents() for key in typed}
    assert values == {
        "a.u8": 7,
        "a.f64": 0.1,
        "a.i16s": [1, -2],
        "a.below": -5,
        "a.far": -(1 << 40),
    }
    assert fields["a.u8"].types == [kinds.UINT8]
    assert fields["a.i16s"].types == [kinds.ARRAY, kinds.INT16]
    assert fields["a.below"].types == [kinds.INT32]
    assert fields["a.far"].types == [kinds.INT64]


def test_wrong_bands(tmp_path: Path) -> None:
    with GgufStreamWriter(tmp_path / "out.gguf", METADATA, SPECS) as writer:
        for row, n_bytes in [(0, 67), (6, 68), (-1, 68), (5, 2 * 68)]:
            with pytest.raises(InvalidArgumentError, match=r"matrix: .* not whole rows of 68"):
                writer.write("matrix", row, bytes(n_bytes))
    with pytest.raises(InvalidArgumentError, match="the same name"):
        GgufStreamWriter(tmp_path / "out.gguf", METADATA, [SPECS[0], SPECS[0]])
    with pytest.raises(FileError, match="cannot write"):
        GgufStreamWriter(tmp_path / "none" / "out.gguf", METADATA, SPECS)
