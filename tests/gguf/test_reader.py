"""The GGUF reader through its binding: files of the `gguf` package, and hostile files made here."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Quant
from gguf import GGUFValueType as Meta
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pyllamacpp
from pyllamacpp._core import GgufFile

# Examples overwrite one file in the same tmp_path.
REUSED_DIRECTORY = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write_gguf(path: Path, fill) -> Path:
    """A file by the reference writer; `fill` adds metadata and tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    fill(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# --- A raw writer, which also writes what the reference writer refuses to. ---

F32 = int(Quant.F32)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def entry(key: bytes, meta: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", meta) + value


def array(meta: int, count: int, elements: bytes = b"") -> bytes:
    return struct.pack("<IQ", meta, count) + elements


def tensor(name: bytes, shape: tuple[int, ...], dtype: int = F32, offset: int = 0) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dims + struct.pack("<IQ", dtype, offset)


def raw_gguf(
    entries: list[bytes] = [],  # noqa: B006 - never changed
    tensors: list[bytes] = [],  # noqa: B006
    data: bytes = b"",
    *,
    version: int = 3,
    n_entries: int | None = None,
    n_tensors: int | None = None,
    alignment: int = 32,
) -> bytes:
    n_entries = len(entries) if n_entries is None else n_entries
    n_tensors = len(tensors) if n_tensors is None else n_tensors
    out = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_entries)
    out += b"".join(entries) + b"".join(tensors)
    return out + bytes(-len(out) % alignment) + data


def open_bytes(directory: Path, content: bytes) -> GgufFile:
    path = directory / "raw.gguf"
    path.write_bytes(content)
    return GgufFile(str(path))


# --- Good files. ---


@pytest.mark.parametrize("version", [2, 3])
def test_versions(tmp_path, version):
    file = open_bytes(tmp_path, raw_gguf([entry(b"k", Meta.UINT8, b"\x07")], version=version))
    assert file.version == version
    assert file.alignment == 32
    assert file.metadata == {"k": 7}
    assert list(file.tensors) == []


def test_tensors_match_the_reference_reader(tmp_path):
    rng = np.random.default_rng(0)
    types = [Quant.Q4_0, Quant.Q4_1, Quant.Q5_0, Quant.Q5_1, Quant.Q8_0, Quant.BF16]

    def fill(writer):
        writer.add_custom_alignment(64)
        writer.add_tensor("one", np.ones(1, np.int8))
        writer.add_tensor("vector", np.arange(5, dtype=np.float64))
        writer.add_tensor("cube", np.zeros((2, 3, 4, 5), np.float32))
        writer.add_tensor("half", np.zeros((3, 7), np.float16))
        writer.add_tensor("q6_k", np.zeros((3, 2 * 210), np.uint8), raw_dtype=Quant.Q6_K)
        for quant in types:
            weights = rng.standard_normal((3, 64)).astype(np.float32)
            writer.add_tensor(quant.name, gguf.quants.quantize(weights, quant), raw_dtype=quant)

    path = write_gguf(tmp_path / "tensors.gguf", fill)
    file = GgufFile(str(path))
    expected = gguf.GGUFReader(path)
    assert file.alignment == 64
    assert len(file.tensors) == len(expected.tensors) == 5 + len(types)
    for ours, theirs in zip(file.tensors, expected.tensors, strict=True):
        assert ours.name == theirs.name
        assert ours.dtype == theirs.tensor_type.name.lower()
        assert ours.shape == tuple(int(n) for n in theirs.shape)
        assert ours.n_bytes == theirs.n_bytes
        assert ours.offset == theirs.data_offset


def test_bytes_after_the_last_tensor_are_ignored(tmp_path):
    file = open_bytes(tmp_path, raw_gguf([], [tensor(b"t", (4,))], bytes(16) + b"more"))
    assert [t.n_bytes for t in file.tensors] == [16]


def test_non_ascii_path(tmp_path):
    path = tmp_path / "modèle 模型.gguf"
    path.write_bytes(raw_gguf())
    assert GgufFile(str(path)).version == 3


# --- Files that are no GGUF files, and files that are no files. ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"GGU", "begins with 'GGU'"),
        (b"lmgg" + bytes(40), "old GGML"),
        (b"fmgg" + bytes(40), "old GGML"),
        (b"tjgg" + bytes(40), "old GGML"),
        (b"PK\x03\x04" + bytes(40), "zip archive.*pyllamacpp_convert"),
        (b"\x80\x02\x8a\x0a" + bytes(40), "pickle"),
        (text(b'{"__metadata__":{}}'), "safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>", "web page"),
        (bytes(64), "zeros"),
        (b"\xff\xfe\xfd\xfc", r"\\xff\\xfe\\xfd\\xfc"),
    ],
)
def test_other_formats_are_named(tmp_path, content, message):
    with pytest.raises(pyllamacpp.FormatError, match=message) as caught:
        open_bytes(tmp_path, content)
    assert "raw.gguf" in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_missing_file(tmp_path):
    with pytest.raises(pyllamacpp.FileError, match=r"absent\.gguf") as caught:
        GgufFile(str(tmp_path / "absent.gguf"))
    assert isinstance(caught.value, OSError)


def test_directory(tmp_path):
    with pytest.raises(pyllamacpp.FileError, match="directory"):
        GgufFile(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(pyllamacpp.FileError, match="pipe"):
        GgufFile(str(tmp_path / "pipe"))


# --- Hostile files: the sentence names the file and what is wrong in it. ---

HUGE = struct.pack("<Q", 1 << 63)
ONE = [tensor(b"t", (8,))]
NESTED = 20 * struct.pack("<IQ", Meta.ARRAY, 1)


def with_alignment(value: int) -> bytes:
    return raw_gguf([entry(b"general.alignment", Meta.UINT32, struct.pack("<I", value))])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (raw_gguf(version=1), "version 1"),
        (raw_gguf(version=4), "version 4"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (raw_gguf(n_entries=1 << 63), "metadata count is 9223372036854775808"),
        (raw_gguf(n_entries=3), "metadata count is 3"),
        (raw_gguf(n_tensors=(1 << 64) - 1), "tensor count is 18446744073709551615"),
        (raw_gguf([HUGE]) + bytes(32), "key has 9223372036854775808 bytes"),
        (raw_gguf([text(b"") + bytes(32)]), "key has 0 bytes"),
        (raw_gguf([text(b"\xff") + bytes(32)]), r"'\\xff' is not printable ASCII"),
        (raw_gguf([entry(b"k", 13, bytes(8))]), "'k': the value has type id 13"),
        (raw_gguf([entry(b"k", Meta.BOOL, b"\x02")]), "'k': a bool is stored as 2"),
        (raw_gguf([entry(b"k", Meta.STRING, HUGE)]), "'k': a string takes 9223372036854775808"),
        (raw_gguf([entry(b"k", Meta.ARRAY, array(99, 0))]), "element has type id 99"),
        (raw_gguf([entry(b"k", Meta.ARRAY, array(Meta.UINT64, 1 << 61))]), "230584300921369395"),
        (raw_gguf([entry(b"k", Meta.ARRAY, array(Meta.STRING, 1 << 60))]), "115292150460684697"),
        (raw_gguf([entry(b"k", Meta.ARRAY, array(Meta.BOOL, 2, b"\x01\x07"))]), "stored as 7"),
        (raw_gguf([entry(b"k", Meta.ARRAY, NESTED)]), "nested deeper"),
        (raw_gguf(2 * [entry(b"k", Meta.UINT8, b"\x00")]), "key 'k' appears twice"),
        (with_alignment(0), "general.alignment' is 0"),
        (with_alignment(3), "general.alignment' is 3"),
        (with_alignment(1 << 31), "general.alignment' is 2147483648"),
        (raw_gguf([entry(b"general.alignment", Meta.STRING, text(b"32"))]), "of type string"),
        (raw_gguf([], [tensor(b"", (8,))], bytes(32)), "name has 0 bytes"),
        (raw_gguf([], [tensor(b"t" * 256, (8,))], bytes(32)), "name has 256 bytes"),
        (raw_gguf([], [tensor(b"t", ())], bytes(32)), "'t': it has 0 dimensions"),
        (raw_gguf([], [tensor(b"t", (1,) * 5)], bytes(32)), "it has 5 dimensions"),
        (raw_gguf([], [tensor(b"t", (4, 0))], bytes(32)), "is zero"),
        (raw_gguf([], [tensor(b"t", (1 << 32, 1 << 32))], bytes(32)), "2\\^63 elements"),
        (raw_gguf([], [tensor(b"t", (1 << 62,))], bytes(32)), "past the end"),
        (raw_gguf([], [tensor(b"t", (16,), Quant.Q4_1)], bytes(32)), "multiple of 32.*q4_1"),
        (raw_gguf([], [tensor(b"t", (256,), Quant.IQ2_XXS)], bytes(99)), "iq2_xxs .id 16."),
        (raw_gguf([], [tensor(b"t", (8,), 12345)], bytes(32)), "12345"),
        (raw_gguf([], [tensor(b"t", (8,), offset=8)], bytes(64)), "offset 8 is not a multiple"),
        (raw_gguf([], ONE, bytes(31)), "past the end"),
        (raw_gguf([], [tensor(b"t", (8,), offset=32)], bytes(32)), "past the end"),
        (raw_gguf([], [tensor(b"t", (8,), offset=(1 << 64) - 32)], bytes(32)), "past the end"),
        (raw_gguf([], 2 * ONE, bytes(32)), "tensor 't' appears twice"),
        (raw_gguf([], [*ONE, tensor(b"u", (1,))], bytes(32)), "overlaps"),
    ],
)
def test_hostile_files_are_refused_with_a_sentence(tmp_path, content, message):
    with pytest.raises(pyllamacpp.PyllamacppError, match=message) as caught:
        open_bytes(tmp_path, content)
    assert "raw.gguf" in str(caught.value)
    assert not isinstance(caught.value, OSError)
    assert "\n" not in str(caught.value)


def test_every_truncation_is_refused(tmp_path):
    whole = raw_gguf(
        [entry(b"s", Meta.STRING, text(b"value")), entry(b"u", Meta.UINT64, bytes(8))],
        ONE,
        bytes(32),
    )
    open_bytes(tmp_path, whole)
    for size in range(len(whole)):
        with pytest.raises(pyllamacpp.FormatError):
            open_bytes(tmp_path, whole[:size])


# --- Properties. ---


def integers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    if signed:
        return st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return st.integers(0, (1 << bits) - 1)


SCALARS = {
    Meta.UINT8: integers(8, False),
    Meta.INT8: integers(8, True),
    Meta.UINT16: integers(16, False),
    Meta.INT16: integers(16, True),
    Meta.UINT32: integers(32, False),
    Meta.INT32: integers(32, True),
    Meta.UINT64: integers(64, False),
    Meta.INT64: integers(64, True),
    Meta.FLOAT32: st.floats(width=32),
    Meta.FLOAT64: st.floats(),
    Meta.BOOL: st.booleans(),
    Meta.STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
}
SCALAR_TYPES = st.sampled_from(sorted(SCALARS))
KEYS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=30)
PACKED = {
    Meta.UINT8: "<B",
    Meta.INT8: "<b",
    Meta.UINT16: "<H",
    Meta.INT16: "<h",
    Meta.UINT32: "<I",
    Meta.INT32: "<i",
    Meta.UINT64: "<Q",
    Meta.INT64: "<q",
    Meta.FLOAT32: "<f",
    Meta.FLOAT64: "<d",
    Meta.BOOL: "<?",
}


def packed(meta: int, value) -> bytes:
    return text(value.encode()) if meta == Meta.STRING else struct.pack(PACKED[meta], value)


def packed_array(meta: int, values: list) -> bytes:
    return array(meta, len(values), b"".join(packed(meta, v) for v in values))


@st.composite
def metadata_values(draw) -> tuple[int, bytes, object]:
    """(type id, bytes in the file, Python value): a scalar, an array, or an array of arrays."""
    meta = draw(SCALAR_TYPES)
    lists = st.lists(SCALARS[meta], max_size=6)
    match draw(st.sampled_from(["scalar", "array", "nested"])):
        case "scalar":
            value = draw(SCALARS[meta])
            return meta, packed(meta, value), value
        case "array":
            values = draw(lists)
            return Meta.ARRAY, packed_array(meta, values), values
        case _:
            rows = draw(st.lists(lists, max_size=4))
            elements = b"".join(packed_array(meta, row) for row in rows)
            return Meta.ARRAY, array(Meta.ARRAY, len(rows), elements), rows


def same(a, b) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(b):
        return math.isnan(a)
    return type(a) is type(b) and a == b


@REUSED_DIRECTORY
@given(st.dictionaries(KEYS.filter(lambda k: k != "general.alignment"), metadata_values()))
def test_metadata_round_trip(tmp_path, values):
    entries = [entry(key.encode(), meta, raw) for key, (meta, raw, _) in values.items()]
    metadata = open_bytes(tmp_path, raw_gguf(entries)).metadata
    assert list(metadata) == list(values)
    for key, (_, _, value) in values.items():
        assert same(metadata[key], value), key


@REUSED_DIRECTORY
@given(st.dictionaries(KEYS, SCALAR_TYPES.flatmap(lambda m: st.tuples(st.just(m), SCALARS[m]))))
def test_metadata_of_the_reference_writer(tmp_path, values):
    values = {k: v for k, v in values.items() if not k.startswith("general.")}

    def fill(writer):
        for key, (meta, value) in values.items():
            writer.add_key_value(key, value, meta)

    metadata = GgufFile(str(write_gguf(tmp_path / "scalars.gguf", fill))).metadata
    assert metadata.pop("general.architecture") == "llama"
    assert list(metadata) == list(values)
    for key, (_, value) in values.items():
        assert same(metadata[key], value), key


@pytest.fixture(scope="module")
def valid_file(tmp_path_factory) -> bytes:
    def fill(writer):
        writer.add_custom_alignment(64)
        writer.add_token_list(["<unk>", "<s>", "▁a"])
        writer.add_token_scores([0.0, -1.0, -2.5])
        writer.add_bool("llama.flag", True)
        writer.add_key_value("llama.nested", [[1, 2], [3]], Meta.ARRAY)
        writer.add_tensor("blk.0.weight", np.ones((2, 20), np.uint8), raw_dtype=Quant.Q4_1)
        writer.add_tensor("norm", np.ones(32, np.float32))

    path = tmp_path_factory.mktemp("valid") / "valid.gguf"
    return write_gguf(path, fill).read_bytes()


MUTATIONS = st.one_of(
    st.tuples(st.just("replace"), st.integers(0, 4095), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("insert"), st.integers(0, 4095), st.binary(min_size=1, max_size=16)),
    st.tuples(st.just("delete"), st.integers(0, 4095), st.integers(1, 16).map(bytes)),
    st.tuples(st.just("truncate"), st.integers(0, 4095), st.just(b"")),
)


def mutate(content: bytes, kind: str, at: int, piece: bytes) -> bytes:
    at %= len(content) + 1
    before, after = content[:at], content[at:]
    match kind:
        case "replace":
            return before + piece + after[len(piece) :]
        case "insert":
            return before + piece + after
        case "delete":
            return before + after[len(piece) :]
        case _:
            return before


@settings(REUSED_DIRECTORY, max_examples=1000)
@given(mutations=st.lists(MUTATIONS, min_size=1, max_size=4))
def test_mutated_files_parse_or_are_refused(tmp_path, valid_file, mutations):
    content = valid_file
    for mutation in mutations:
        content = mutate(content, *mutation)
    try:
        file = open_bytes(tmp_path, content)
    except pyllamacpp.PyllamacppError:
        return
    for t in file.tensors:
        assert t.offset % file.alignment == 0
        assert t.offset + t.n_bytes <= len(content)
    assert all(isinstance(key, str) for key in file.metadata)
