"""Whole conversions: checkpoints of every layout to logits, files and errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gguf
import meta_numpy
import numpy as np
import pytest
from checkpoints import (
    Weights,
    hugging_face_names,
    random_weights,
    write_huggingface,
    write_meta,
)
from pyllamacpp_convert import convert, plan_conversion
from pyllamacpp_convert.mixture import FILE_TYPES
from pyllamacpp_convert.pipeline import _EXPECTED_ERROR
from pyllamacpp_convert.torch_pickle import read_tensors
from text_cases import NORMAL
from vocab_cases import PIECES, sentencepiece_model, tiktoken_file

from pyllamacpp import Llama, _core
from pyllamacpp.errors import FileError, FormatError, InvalidArgumentError, UnsupportedError

DIM, N_FF = 256, 768
V1 = {"dim": DIM, "multiple_of": 256, "n_heads": 8, "n_layers": 2, "norm_eps": 1e-6}
V1 |= {"vocab_size": -1}
V2 = {"dim": DIM, "multiple_of": 256, "n_heads": 16, "n_kv_heads": 8, "n_layers": 2}
V2 |= {"norm_eps": 1e-5, "vocab_size": -1}
V3 = V2 | {"rope_theta": 500000.0, "vocab_size": 520, "use_scaled_rope": True}
PARAMS = {"v1": V1, "v2": V2, "v3": V3}
DTYPES = {"v1": "f16", "v2": "bf16", "v3": "bf16"}
N_VOCAB = {"v1": 272, "v2": 272, "v3": 520}
TOKENS = [1, *(3 + np.random.default_rng(5).integers(0, 250, 40))]


def vocabulary(folder: Path, layout: str) -> Path:
    """A tokenizer.model with as many tokens as the layout's embedding has rows."""
    path = folder / "tokenizer.model"
    if layout == "v3":
        merged = [b"ab", b" a", b" ab", b"cd", b" c", b"ef", b"gh", b"ij"]
        path.write_bytes(tiktoken_file(merged))
    else:
        pieces = [(chr(0x3B1 + i), -float(i), NORMAL) for i in range(272 - 3 - 256)]
        path.write_bytes(sentencepiece_model([*PIECES[:259], *pieces]))
    return path


@pytest.fixture(scope="module")
def weights() -> dict[str, dict[str, np.ndarray]]:
    return {
        layout: random_weights(params, N_VOCAB[layout], N_FF, DTYPES[layout])
        for layout, params in PARAMS.items()
    }


def checkpoint(folder: Path, weights: Weights, layout: str, n_shards: int) -> Path:
    write_meta(folder, weights, PARAMS[layout], n_shards, layout)
    vocabulary(folder, layout)
    return folder


def logits(path: Path) -> np.ndarray:
    context = _core.Context(_core.Model(str(path)), n_ctx=64, type_k="f32", type_v="f32")
    context.decode([(0, [int(token) for token in TOKENS], "all")])
    return context.logits()


def relative_rms(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


@pytest.mark.parametrize("n_shards", [1, 2, 4, 8])
@pytest.mark.parametrize("layout", PARAMS)
def test_metas_layouts(
    layout: str, n_shards: int, weights: dict[str, Weights], tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "7B", weights[layout], layout, n_shards)
    files = convert(source, tmp_path / "out.gguf", "f32", verify=True, n_threads=2)
    assert files == [tmp_path / "out.gguf"]
    scale = 8.0 if layout == "v3" else None
    expected = meta_numpy.logits(weights[layout], PARAMS[layout], TOKENS, scale)
    assert relative_rms(logits(tmp_path / "out.gguf"), expected) <= 1e-5
    plan = plan_conversion(source)
    assert plan.metadata["general.name"] == "LLaMA 7B"
    expected_ctx = {"v1": 2048, "v2": 4096, "v3": 131072}[layout]
    assert plan.metadata["llama.context_length"] == expected_ctx
    assert any(f"a context of {expected_ctx} tokens" in note for note in plan.notes)


@pytest.mark.parametrize(("layout", "epsilon", "n_ctx"), [("v1", 1e-5, 2048), ("v2", 1e-6, 4096)])
def test_the_context_is_not_guessed_from_the_norms_epsilon(
    layout: str, epsilon: float, n_ctx: int, weights: dict[str, Weights], tmp_path: Path
) -> None:
    """LLaMA 65B has Llama 2's epsilon and Llama-2-7b-chat LLaMA 1's."""
    params = PARAMS[layout] | {"norm_eps": epsilon}
    source = tmp_path / "a"
    write_meta(source, weights[layout], params, 2, layout)
    vocabulary(source, layout)
    assert plan_conversion(source).metadata["llama.context_length"] == n_ctx


def test_float_types_keep_every_bit(weights: dict[str, Weights], tmp_path: Path) -> None:
    for layout, dtype in (("v1", "f16"), ("v2", "bf16")):
        source = checkpoint(tmp_path / layout, weights[layout], layout, 2)
        convert(source, tmp_path / "out.gguf", dtype, verify=True, force=True)
        tensors = {t.name: t for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
        gate = tensors["blk.1.ffn_gate.weight"]
        found = gguf.quants.dequantize(gate.data, gate.tensor_type)
        assert np.array_equal(found, weights[layout]["layers.1.feed_forward.w1.weight"])


@pytest.mark.parametrize("name", FILE_TYPES)
def test_every_file_type(name: str, weights: dict[str, Weights], tmp_path: Path) -> None:
    """Each tensor within the error of its type, and each file one that runs."""
    source = checkpoint(tmp_path / "llama-2-7b", weights["v2"], "v2", 2)
    out = tmp_path / "out.gguf"
    convert(source, out, name.upper(), verify=True)
    plan = plan_conversion(source, name)
    fields = gguf.GGUFReader(out).fields
    assert fields["general.file_type"].contents() == FILE_TYPES[name].number
    assert fields["general.quantization_version"].contents() == 2
    assert {job.spec.dtype for job in plan.jobs} >= {"f32", FILE_TYPES[name].base}
    size = sum(t.n_bytes for t in gguf.GGUFReader(out).tensors)
    assert plan.n_bytes == size
    expected = meta_numpy.logits(weights["v2"], V2, TOKENS)
    # Errors of weights, relative to them, become some four times that in the logits here.
    most = min(6 * _EXPECTED_ERROR[FILE_TYPES[name].base] + 1e-4, 1.0)
    assert relative_rms(logits(out), expected) < most
    answer = Llama(str(out), verbose=False)("αβγ", max_tokens=4, temperature=0)
    assert answer["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("n_files", [1, 3])
def test_hugging_face(
    suffix: str, n_files: int, weights: dict[str, Weights], tmp_path: Path
) -> None:
    """The same weights through Hugging Face's names and order of rows: the same file."""
    for layout, changes in (
        ("v2", {}),
        ("v3", {"rope_scaling": LLAMA3_SCALING, "rope_theta": 500000.0}),
    ):
        folder = tmp_path / layout
        meta = checkpoint(folder / "original", weights[layout], layout, 2)
        tensors = hugging_face_names(weights[layout], PARAMS[layout])
        write_huggingface(
            folder / "hf", tensors, CONFIG | changes, "bf16", n_files=n_files, suffix=suffix
        )
        vocabulary(folder / "hf", layout)
        convert(meta, folder / "meta.gguf", "q8_0", ctx=4096)
        convert(folder / "hf", folder / "hf.gguf", "q8_0", verify=True)
        ours, theirs = (
            {t.name: t.data.tobytes() for t in gguf.GGUFReader(folder / name).tensors}
            for name in ("hf.gguf", "meta.gguf")
        )
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if ours[name] != theirs[name]] == []
        assert np.array_equal(logits(folder / "hf.gguf"), logits(folder / "meta.gguf"))


LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": DIM,
    "intermediate_size": N_FF,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


def test_tied_output_is_stored_once(tmp_path: Path) -> None:
    weights = random_weights(V3, 520, N_FF, "bf16", tied=True)
    source = checkpoint(tmp_path / "Llama3.2-1B", weights, "v3", 2)
    convert(source, tmp_path / "out.gguf", "f32")
    plan = plan_conversion(source, "f32")
    assert "output.weight" not in {job.spec.name for job in plan.jobs}
    assert "the output matrix is the embedding, which is stored once" in plan.notes
    expected = meta_numpy.logits(weights, V3, TOKENS, 8.0)
    assert relative_rms(logits(tmp_path / "out.gguf"), expected) <= 1e-5


def test_keys_stored_twice(tmp_path: Path) -> None:
    """More shards than heads of keys: each two shards hold the same head."""
    params = V2 | {"n_kv_heads": 4, "n_heads": 8}
    once = random_weights(params, 272, N_FF, "bf16")
    head_dim = DIM // 8

    def doubled(name: str, x: np.ndarray) -> np.ndarray:
        if ".wk." in name or ".wv." in name:
            return x.reshape(4, 1, head_dim, DIM).repeat(2, axis=1).reshape(-1, DIM)
        return x

    twice = {name: doubled(name, x) for name, x in once.items()}
    for stated in (4, 8):
        source = tmp_path / str(stated)
        write_meta(source, twice, params | {"n_kv_heads": stated}, 8, "v2")
        vocabulary(source, "v2")
        convert(source, tmp_path / "out.gguf", "f32", force=True)
        assert plan_conversion(source).metadata["llama.attention.head_count_kv"] == 4
        expected = meta_numpy.logits(once, params, TOKENS)
        assert relative_rms(logits(tmp_path / "out.gguf"), expected) <= 1e-5


def test_choices(weights: dict[str, Weights], tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "a", weights["v2"], "v2", 2)
    with pytest.raises(InvalidArgumentError, match="n_threads is 0"):
        convert(source, tmp_path / "out.gguf", n_threads=0)
    with pytest.raises(InvalidArgumentError, match="split_max_bytes is 0"):
        convert(source, tmp_path / "out.gguf", split_max_bytes=0)
    plan = plan_conversion(
        source,
        "q4_0",
        ctx=77,
        rope_scale_factor=4.0,
        pure=True,
        tensor_types=[("attn_v", "q6_k")],
        output_type="f16",
        embedding_type="bf16",
    )
    types = {job.spec.name: job.spec.dtype for job in plan.jobs}
    assert types["blk.0.attn_v.weight"] == "q6_k"
    assert types["blk.0.ffn_down.weight"] == "q4_0"
    assert (types["output.weight"], types["token_embd.weight"]) == ("f16", "bf16")
    assert types["rope_freqs.weight"] == "f32"
    assert plan.metadata["llama.context_length"] == 77
    assert plan.memory(2) > 0
    assert plan.seconds(2) > 0


def damage(folder: Path, what: str) -> None:
    """What goes wrong with downloads."""
    shard = folder / "consolidated.01.pth"
    params = folder / "params.json"
    if what == "missing":
        shard.unlink()
    elif what == "first missing":
        (folder / "consolidated.00.pth").unlink()
    elif what == "truncated":
        os.truncate(shard, shard.stat().st_size // 2)
    elif what == "flipped":
        data = bytearray(shard.read_bytes())
        data[read_tensors(shard)["output.weight"].offset + 100] ^= 1
        shard.write_bytes(data)
    elif what == "reordered":
        other = folder / "consolidated.00.pth"
        a, b = shard.read_bytes(), other.read_bytes()
        shard.write_bytes(b)
        other.write_bytes(a)
    elif what == "mixed":
        other = random_weights(V2 | {"n_layers": 1}, 272, N_FF, "bf16")
        write_meta(folder / "other", other, V2, 2, "v2")
        shard.write_bytes((folder / "other" / shard.name).read_bytes())
    elif what == "too many":
        (folder / "consolidated.02.pth").write_bytes(shard.read_bytes())
    elif what == "no params":
        params.unlink()
    elif what == "other params":
        params.write_text(json.dumps(V2 | {"n_layers": 1}))
    elif what == "other heads":
        params.write_text(json.dumps(V2 | {"n_heads": 6, "n_kv_heads": 3}))
    elif what == "other dim":
        params.write_text(json.dumps(V2 | {"dim": 512}))
    elif what == "no JSON":
        params.write_text("{" * 100000)
    elif what == "vision":
        params.write_text(json.dumps(V2 | {"vision_chunk_size": 560}))
    elif what == "no vocabulary":
        (folder / "tokenizer.model").unlink()
    elif what == "other vocabulary":
        vocabulary(folder, "v3")
    elif what == "unlisted":
        (folder / "checklist.chk").write_text("nonsense")


@pytest.mark.parametrize("checklist", [True, False])
@pytest.mark.parametrize(
    ("what", "error", "sentence"),
    [
        ("missing", FormatError, r"01\.pth, which is missing|shard is missing"),
        ("first missing", FormatError, r"not consolidated\.00\.pth: fetch it"),
        ("truncated", FormatError, r"consolidated\.01\.pth"),
        ("mixed", FormatError, r"01\.pth is damaged|not of one model"),
        ("too many", FormatError, "the shards are joined|must have the same|heads cannot share"),
        ("no params", FileError, r"params\.json is missing"),
        ("other params", FormatError, r"params\.json is damaged|another model's"),
        ("other heads", FormatError, "another model's|is damaged"),
        ("other dim", FormatError, "another model's|is damaged"),
        ("no JSON", FormatError, "is not JSON"),
        ("vision", UnsupportedError, "vision model"),
        ("no vocabulary", FileError, "no vocabulary: looked for"),
        ("other vocabulary", FormatError, "not this model's vocabulary"),
    ],
)
def test_bad_downloads(
    what: str,
    error: type[Exception],
    sentence: str,
    checklist: bool,
    weights: dict[str, Weights],
    tmp_path: Path,
) -> None:
    source = checkpoint(tmp_path / "a", weights["v2"], "v2", 2)
    if not checklist:
        (source / "checklist.chk").unlink()
    damage(source, what)
    with pytest.raises(error, match=sentence):
        convert(source, tmp_path / "out.gguf", "q4_0")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("what", ["flipped", "reordered"])
def test_the_checklist(what: str, weights: dict[str, Weights], tmp_path: Path) -> None:
    """It finds what nothing else can; without it such a checkpoint is taken as it is."""
    source = checkpoint(tmp_path / "a", weights["v2"], "v2", 2)
    damage(source, what)
    with pytest.raises(FormatError, match=r"consolidated\.0[01]\.pth is damaged: its md5 is"):
        convert(source, tmp_path / "out.gguf", "q4_0")
    convert(source, tmp_path / "out.gguf", "q4_0", checksum=False)
    damage(source, "unlisted")
    with pytest.raises(FormatError, match="'nonsense' is not a line of md5sum"):
        convert(source, tmp_path / "out.gguf", "q4_0", force=True)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(FileError, match="nothing does not exist"):
        convert(tmp_path / "nothing", out)
    with pytest.raises(FormatError, match="holds no checkpoint: neither Meta's"):
        convert(tmp_path, out)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidArgumentError, match="pyllamacpp quantize takes GGUF files"):
        convert(tmp_path / "x.gguf", out)
    with pytest.raises(InvalidArgumentError, match="is there already"):
        convert(tmp_path, tmp_path / "x.gguf")
    with pytest.raises(FileError, match="is a folder; name the file"):
        convert(tmp_path, tmp_path)
    with pytest.raises(FileError, match="is not a folder"):
        convert(tmp_path, tmp_path / "none" / "x.gguf")
    with pytest.raises(InvalidArgumentError, match="unknown file type 'q9'"):
        convert(tmp_path, out, "q9")


def command(*arguments: object, module: bool = False) -> subprocess.CompletedProcess[str]:
    start = ["-m", "pyllamacpp_convert"] if module else ["-m", "pyllamacpp", "convert"]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


@pytest.mark.parametrize("module", [False, True])
def test_the_command(module: bool, weights: dict[str, Weights], tmp_path: Path) -> None:
    source, out = checkpoint(tmp_path / "7B", weights["v2"], "v2", 4), tmp_path / "out.gguf"
    dry = command(source, "-o", out, "--type", "q4_k_s", "--dry-run", module=module)
    assert dry.returncode == 0, dry.stderr
    assert "token_embd.weight" in dry.stdout
    assert "bf16 to q4_k" in dry.stdout
    assert "bits" in dry.stdout
    assert not out.exists()
    done = command(
        source, "-o", out, "--type", "q4_k_s", "--tensor-type", "attn_v=q8_0", "--verify",
        module=module,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n"
    assert "a context of 4096 tokens, as Llama 2 has it" in done.stderr
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(out).tensors}
    assert types["blk.1.attn_v.weight"] == "Q8_0"
    again = command(source, "-o", out, module=module)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.count("\n") == 1
    assert "is there already" in again.stderr


def test_the_commands_default_output(weights: dict[str, Weights], tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "llama-2-7b", weights["v2"], "v2", 1)
    done = subprocess.run(
        [sys.executable, "-m", "pyllamacpp", "convert", source, "--type", "Q8_0"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout == "llama-2-7b-q8_0.gguf\n"
    assert (tmp_path / "llama-2-7b-q8_0.gguf").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tensor-type", "attn_v"], "is not REGEX=TYPE"),
        (["--split-max-size", "many"], "is not a size such as 16G"),
        (["--ctx", "0"], "--ctx"),
    ],
)
def test_wrong_options(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = command(tmp_path, *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on(how: signal.Signals, tmp_path: Path) -> None:
    params = V2 | {"n_layers": 12}
    weights = random_weights(params, 272, 8 * N_FF, "bf16")
    source = write_meta(tmp_path / "a", weights, params, 2, "v2")
    vocabulary(source, "v2")
    whole, out = tmp_path / "whole.gguf", tmp_path / "out.gguf"
    convert(source, whole, "q2_k")
    arguments = [sys.executable, "-m", "pyllamacpp", "convert", source, "-o", out, "--type", "q2_k"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, cwd="/") as run:
        while not (tmp_path / "out.gguf.part.json").exists() and run.poll() is None:
            time.sleep(0.001)
        run.send_signal(how)
        _, said = run.communicate()
    assert run.returncode == (130 if how == signal.SIGINT else -how)
    assert ("the same command with --resume goes on" in said) == (how == signal.SIGINT)
    assert not out.exists()
    assert (tmp_path / "out.gguf.part").exists()
    subprocess.run([*arguments, "--resume"], check=True, cwd="/", capture_output=True)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out.gguf", "whole.gguf"]
