"""Models in several files: NAME-00001-of-0000N.gguf, as the `gguf` package writes them."""

from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest

from pyllamacpp import Llama
from pyllamacpp.errors import FileError, FormatError, InvalidArgumentError

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
N_VOCAB, N_EMBD, N_FF, N_HEADS, HEAD_DIM, N_LAYERS = 3 + len(BYTES), 64, 96, 4, 16, 2
TEXT = b"split"


def tensors(rope: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)

    def matrix(rows: int, cols: int) -> np.ndarray:
        return (rng.standard_normal((rows, cols)) / cols**0.5).astype(np.float32)

    weights = {"token_embd.weight": matrix(N_VOCAB, N_EMBD)}
    for layer in range(N_LAYERS):
        p = f"blk.{layer}."
        weights |= {p + f"{name}_norm.weight": matrix(1, N_EMBD)[0] for name in ("attn", "ffn")}
        weights |= {p + f"attn_{name}.weight": matrix(N_EMBD, N_EMBD) for name in "qkv"}
        weights[p + "attn_output.weight"] = matrix(N_EMBD, N_EMBD)
        weights[p + "ffn_gate.weight"] = matrix(N_FF, N_EMBD)
        weights[p + "ffn_up.weight"] = matrix(N_FF, N_EMBD)
        weights[p + "ffn_down.weight"] = matrix(N_EMBD, N_FF)
    weights["output_norm.weight"] = 1 + matrix(1, N_EMBD)[0]
    weights["output.weight"] = matrix(N_VOCAB, N_EMBD)
    if rope:  # read with the configuration, from whichever file has it
        weights["rope_freqs.weight"] = np.linspace(1, 4, HEAD_DIM // 2, dtype=np.float32)
    return weights


def add_metadata(writer: gguf.GGUFWriter) -> None:
    writer.add_block_count(N_LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *BYTES])
    writer.add_token_scores([0.0] * N_VOCAB)
    writer.add_token_types([2, 3, 3] + [6] * len(BYTES))


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_model(path: Path, **options: object) -> list[Path]:
    """The files written: one, or several where the options of the gguf package's writer say so."""
    writer = gguf.GGUFWriter(path, "llama", **options)
    add_metadata(writer)
    for name, values in tensors().items():
        if values.ndim == 2 and "attn" in name:  # packed at load: released from the file's map
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    finish(writer)
    return sorted(path.parent.glob(f"{path.stem}*.gguf"))


def write_part(
    path: Path, weights: dict[str, np.ndarray], metadata: bool = False, **split: int
) -> None:
    """One file by hand, with any `split.*` values: no, count, tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    if metadata:
        add_metadata(writer)
    if "no" in split:
        writer.add_uint16("split.no", split["no"])
    if "count" in split:
        writer.add_uint16("split.count", split["count"])
    if "tensors" in split:
        writer.add_int32("split.tensors.count", split["tensors"])
    for name, values in weights.items():
        writer.add_tensor(name, values)
    finish(writer)


def logits(path: Path) -> np.ndarray:
    with Llama(str(path), n_ctx=32, logits_all=True, verbose=False) as llama:
        llama.eval(llama.tokenize(TEXT, add_bos=False))
        return np.array(llama.scores[: llama.n_tokens])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    (path,) = write_model(tmp_path_factory.mktemp("whole") / "model.gguf")
    found = logits(path)
    assert found.shape[0] >= len(TEXT)
    assert np.ptp(found) > 0.1
    return found


@pytest.mark.parametrize(
    ("options", "n_files"),
    [
        ({"split_max_tensors": 1}, 22),
        ({"split_max_tensors": 4}, 6),
        ({"split_max_size": 100_000}, None),
        ({"split_max_tensors": 7, "small_first_shard": True}, 5),
    ],
    ids=["1 tensor", "4 tensors", "by size", "first without tensors"],
)
def test_the_same_logits_as_one_file(tmp_path, whole, options, n_files):
    files = write_model(tmp_path / "model.gguf", **options)
    assert len(files) == n_files if n_files else len(files) > 1
    np.testing.assert_array_equal(logits(files[0]), whole)


def test_a_model_split_into_one_file(tmp_path, whole):
    write_part(tmp_path / "any name.gguf", tensors(), metadata=True, no=0, count=1)
    assert logits(tmp_path / "any name.gguf").shape == whole.shape


def halves() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    items = list(tensors().items())
    return dict(items[:8]), dict(items[8:])


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A sound model of two files, for a test to break."""
    first, second = (tmp_path / f"two-0000{part}-of-00002.gguf" for part in (1, 2))
    for no, (path, weights) in enumerate(zip((first, second), halves(), strict=True)):
        write_part(path, weights, metadata=no == 0, no=no, count=2, tensors=len(tensors()))
    logits(first)
    return first, second


def test_another_part_names_the_first(two):
    message = r"two-00002-of-00002\.gguf: this is part 2 of 2 .* first, .*two-00001-of-00002\.gguf"
    with pytest.raises(InvalidArgumentError, match=message):
        Llama(str(two[1]), verbose=False)


def test_a_missing_part_is_named(two):
    two[1].unlink()
    with pytest.raises(FileError, match=r"part 2 of 2 of a model: .*two-00002-of-00002\.gguf"):
        Llama(str(two[0]), verbose=False)


def test_a_broken_part_is_named(two):
    two[1].write_bytes(two[1].read_bytes()[:1000])
    with pytest.raises(FormatError, match=r"part 2 of 2 of a model: .*two-00002-of-00002\.gguf"):
        Llama(str(two[0]), verbose=False)


def test_a_renamed_part_says_how_it_should_be_called(two, tmp_path):
    for name in ("two.gguf", "two-00001-of-00003.gguf", "two-1-of-2.gguf", "-00001-of-00002.GGUF"):
        shutil.copy(two[0], tmp_path / name)
        with pytest.raises(FormatError, match=r"should end in -00001-of-00002\.gguf"):
            Llama(str(tmp_path / name), verbose=False)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"no": 0, "count": 2}, "split.no is 0 and split.count is 2; its name says 1 and 2"),
        ({"no": 1, "count": 3}, "split.no is 1 and split.count is 3; its name says 1 and 2"),
        ({}, "split.no is 0 and split.count is 1; its name says 1 and 2"),
        ({"no": 1, "count": 2, "tensors": 5}, "split.tensors.count is 5, but the files have 22"),
    ],
)
def test_numbers_that_contradict_each_other(two, split, message):
    write_part(two[1], halves()[1], **split)
    with pytest.raises(FormatError, match=rf"two-00002-of-00002\.gguf: {message}"):
        Llama(str(two[0]), verbose=False)


def test_a_first_part_with_an_impossible_number(two):
    write_part(two[0], halves()[0], metadata=True, no=2, count=2)
    with pytest.raises(FormatError, match=r"split\.no is 2, but split\.count is 2"):
        Llama(str(two[0]), verbose=False)


def test_a_lost_tensor_is_missed(two):
    weights = halves()[1]
    weights.pop("output_norm.weight")
    write_part(two[1], weights, no=1, count=2, tensors=len(tensors()))
    with pytest.raises(FormatError, match=r"split\.tensors\.count is 22, but the files have 21"):
        Llama(str(two[0]), verbose=False)


def test_a_tensor_in_two_files(two):
    weights = halves()[1] | {"token_embd.weight": np.zeros((N_VOCAB, N_EMBD), np.float32)}
    write_part(two[1], weights, no=1, count=2)
    write_part(two[0], halves()[0], metadata=True, no=0, count=2)
    message = r"two-00002-of.*: tensor 'token_embd.weight' is also in .*two-00001-of-00002\.gguf"
    with pytest.raises(FormatError, match=message):
        Llama(str(two[0]), verbose=False)
