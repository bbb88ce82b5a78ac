"""A GGUF quantized: types, metadata, importance, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from pyllamacpp_convert import quantize_gguf
from pyllamacpp_convert.gguf_file import read_gguf
from pyllamacpp_convert.mixture import FILE_TYPES
from pyllamacpp_convert.quantize import plan_quantization
from tiny_model import TinyModel

from pyllamacpp import Llama
from pyllamacpp.errors import FileError, FormatError, InvalidArgumentError
from pyllamacpp.kernels import dequantize, quantize

MODEL = TinyModel(n_layers=2, n_embd=256, n_ff=512, n_heads=4, n_kv_heads=2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODEL.write(tmp_path_factory.mktemp("model") / "model.gguf")


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_every_file_type(source: Path, tmp_path: Path, file_type: str) -> None:
    target = tmp_path / "out.gguf"
    plan = quantize_gguf(source, target, file_type.upper(), n_threads=2, verify=True)
    assert list(tmp_path.iterdir()) == [target]
    out = read_gguf(target)
    assert list(out.tensors) == list(MODEL.weights())
    assert {job.spec.name: job.spec.dtype for job in plan.jobs} == {
        name: tensor.dtype for name, tensor in out.tensors.items()
    }
    for name, x in MODEL.weights().items():
        tensor = out.tensors[name]
        rows = np.atleast_2d(x)
        expected = quantize(tensor.dtype, rows)
        assert tensor.read(0, len(rows)).tobytes() == expected.tobytes(), name
    metadata = read_gguf(source).metadata
    changed = {key for key in out.metadata if out.metadata[key] != metadata.get(key)}
    assert changed == {"general.file_type", "general.quantization_version"}
    assert out.number("general.file_type") == FILE_TYPES[file_type].number
    assert out.number("general.quantization_version") == gguf.GGML_QUANT_VERSION
    with Llama(str(target), n_ctx=32, verbose=False) as llama:
        assert llama.create_completion("ab", max_tokens=2, temperature=0)["choices"]


def as_type(source: Path, folder: Path, file_type: str, **options: Any) -> Path:
    target = folder / f"{file_type}.gguf"
    quantize_gguf(source, target, file_type, **options)
    return target


def test_sixteen_bit_sources_give_the_same(source: Path, tmp_path: Path) -> None:
    """f16 and bf16 are read as what they are."""
    for dtype in ("f16", "bf16"):
        half = as_type(source, tmp_path, dtype)
        q = read_gguf(as_type(half, tmp_path, "q4_k_m", force=True)).tensors["blk.1.ffn_up.weight"]
        x = MODEL.weights()["blk.1.ffn_up.weight"]
        near = dequantize(dtype, quantize(dtype, x), x.size).reshape(x.shape)
        assert q.read(0, 512).tobytes() == quantize("q4_k", near).tobytes()


def test_split_source(source: Path, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=5)
    model = read_gguf(source)
    for key, value in model.metadata.items():
        if key != "general.architecture":
            writer.add_key_value(key, value.value, value.type, value.item_type)
    for name, x in MODEL.weights().items():
        writer.add_tensor(name, x)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parts = sorted(tmp_path.glob("m-*.gguf"))
    assert len(parts) > 2
    whole, joined = tmp_path / "whole.gguf", tmp_path / "joined.gguf"
    quantize_gguf(source, whole, "q5_k_s")
    quantize_gguf(parts[0], joined, "q5_k_s")
    assert joined.read_bytes() == whole.read_bytes()


def test_what_is_quantized_already(source: Path, tmp_path: Path) -> None:
    once = as_type(source, tmp_path, "q4_k_m")
    other = tmp_path / "other.gguf"
    with pytest.raises(
        InvalidArgumentError,
        match=r"token_embd.weight is q4_k already and would become q8_0; quantizing",
    ):
        quantize_gguf(once, other, "q8_0")
    assert not other.exists()
    # What has its type is copied: to the same type all is.
    plan = quantize_gguf(once, other, "q4_k_m")
    assert other.read_bytes() == once.read_bytes()
    assert plan.n_copied == len([x for x in MODEL.weights().values() if x.ndim == 2])
    # Expanding loses nothing and needs no permission.
    floats = read_gguf(as_type(once, tmp_path, "f32")).tensors["output.weight"]
    stored = read_gguf(once).tensors["output.weight"]
    raw = stored.read(0, stored.shape[0])
    expected = dequantize("q6_k", raw, floats.shape[0] * floats.shape[1])
    assert floats.read(0, floats.shape[0]).tobytes() == expected.tobytes()
    quantize_gguf(once, other, "q3_k_s", allow_requantize=True, force=True)
    x = MODEL.weights()["blk.0.ffn_up.weight"]
    near = dequantize("q4_k", quantize("q4_k", x), x.size).reshape(x.shape)
    again = read_gguf(other).tensors["blk.0.ffn_up.weight"].read(0, 512)
    assert again.tobytes() == quantize("q3_k", near).tobytes()


def test_target(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    target.write_bytes(b"kept")
    with pytest.raises(InvalidArgumentError, match=r"out.gguf is there already; remove it, or use"):
        quantize_gguf(source, target, "q8_0")
    assert target.read_bytes() == b"kept"
    quantize_gguf(source, target, "q8_0", force=True)
    assert read_gguf(target).tensors
    own = tmp_path / "own.gguf"
    shutil.copy(source, own)
    with pytest.raises(InvalidArgumentError, match=r"own.gguf is the file that is read"):
        quantize_gguf(own, tmp_path / "." / "own.gguf", "q8_0", force=True)
    with pytest.raises(FileError, match="is a folder; name the file to write"):
        quantize_gguf(source, tmp_path, "q8_0", force=True)
    with pytest.raises(FileError, match="none is not a folder"):
        quantize_gguf(source, tmp_path / "none" / "out.gguf", "q8_0")


def rewritten(source: Path, target: Path, change: Callable[[str, np.ndarray], None]) -> Path:
    """A copy of which `change` altered some weights."""
    data = bytearray(source.read_bytes())
    for name, tensor in read_gguf(source).tensors.items():
        values = np.frombuffer(data, np.float32, tensor.n_bytes // 4, tensor.offset)
        change(name, values)
    target.write_bytes(data)
    return target


def test_weights_that_are_not_finite(source: Path, tmp_path: Path) -> None:
    def damage(name: str, values: np.ndarray) -> None:
        if name == "blk.1.ffn_down.weight":
            values[3 * 512 + 17] = np.nan

    bad, target = rewritten(source, tmp_path / "bad.gguf", damage), tmp_path / "out.gguf"
    with pytest.raises(
        FormatError, match=r"blk.1.ffn_down.weight: row 3, column 17 is not a finite number"
    ):
        quantize_gguf(bad, target, "q4_k_m")
    assert sorted(tmp_path.iterdir()) == [bad]


@pytest.mark.parametrize("key", ["block_count", "attention.head_count"])
def test_files_that_are_no_language_model(tmp_path: Path, key: str) -> None:
    path = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(path, "clip")
    for name in {"block_count", "attention.head_count"} - {key}:
        writer.add_uint32(f"clip.{name}", 2)
    writer.add_tensor("v.weight", np.ones((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(FormatError, match=f"states no clip.{key}: it is no language model"):
        plan_quantization(path, "q8_0")


def test_plan_reads_headers_only(source: Path, tmp_path: Path) -> None:
    plan = plan_quantization(source, "q4_k_m", tensor_types=[("ffn_up", "q2_k")])
    assert plan.n_weights == sum(x.size for x in MODEL.weights().values())
    target = tmp_path / "out.gguf"
    quantize_gguf(source, target, "q4_k_m", tensor_types=[("ffn_up", "q2_k")])
    out = read_gguf(target).tensors
    assert plan.n_bytes == sum(tensor.n_bytes for tensor in out.values())
    assert plan.n_bytes_before == 4 * plan.n_weights
    assert out["blk.0.ffn_up.weight"].dtype == "q2_k"
    assert plan.seconds(2) > 0
    assert plan.memory(2) >= 4 * 256 * 512
