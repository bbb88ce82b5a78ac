"""pyllamacpp quantize, as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyllamacpp_convert.mixture import FILE_TYPES

from pyllamacpp import Llama
from pyllamacpp.cli.quantizing import TYPE_NAMES


@pytest.fixture(scope="module")
def f16(default_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pyllamacpp_convert import quantize_gguf

    target = tmp_path_factory.mktemp("f16") / "f16.gguf"
    quantize_gguf(default_model, target, "f16")
    return target


def test_help_names_all_types(run) -> None:
    assert TYPE_NAMES.split() == list(FILE_TYPES)
    words = run("quantize", "--help").stdout.replace(",", " ").replace(";", " ").split()
    assert set(FILE_TYPES) <= set(words)


def test_a_model_that_is_smaller(run, f16: Path, tmp_path: Path) -> None:
    target = tmp_path / "q4.gguf"
    dry = run("quantize", str(f16), str(target), "Q4_K_M", "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert not target.exists()
    result = run("quantize", str(f16), str(target), "Q4_K_M", "-t", "2", "--verify")
    assert (result.returncode, result.stdout) == (0, "")
    size = "q4_k_m, 269.1 MB to 103.7 MB, 6.17 bits per weight"
    assert dry.stdout.startswith(size + "\n")
    assert "about " in dry.stdout
    assert f"pyllamacpp: {target}: {size}, " in result.stderr
    for text in (dry.stdout, result.stderr):
        assert "15 matrices of 576 columns: q8_0 instead of q6_k, which holds" in text
        assert "166 matrices of 576 columns: q5_0 instead of q4_k, which holds" in text
    assert [file.name for file in tmp_path.iterdir()] == ["q4.gguf"]
    with Llama(str(target), n_ctx=64, verbose=False) as llama:
        text = llama("The capital of France is", max_tokens=2, temperature=0)["choices"][0]["text"]
    assert text.startswith(" Paris")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["q9_k"], "unknown file type 'q9_k', expected one of f32, f16,"),
        (["q4_0", "--tensor-type", "ffn=q9"], "unknown tensor type 'q9', expected one of"),
        (["q4_0", "--tensor-type", "fnn=q8_0"], "the tensor type pattern 'fnn' matches no matrix"),
        (["q4_0", "--output-type", "q9"], "unknown tensor type 'q9', expected one of"),
        (["q4_0", "--imatrix", "/no/file"], "cannot read /no/file"),
    ],
)
def test_errors(run, f16: Path, tmp_path: Path, args: list[str], sentence: str) -> None:
    result = run("quantize", str(f16), str(tmp_path / "out.gguf"), *args)
    assert result.returncode == 1
    assert result.stdout == ""
    assert f"pyllamacpp: error: {sentence}" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_usage_errors(run, f16: Path) -> None:
    for args in (
        ["quantize", str(f16), "out.gguf"],
        ["quantize", "--tensor-type", "ffn", "a", "b"],
    ):
        assert run(*args).returncode == 2


def test_the_default_model_is_quantized_already(run, default_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    refused = run("quantize", str(default_model), str(target), "q4_k_s")
    assert refused.returncode == 1
    assert "already and would become" in refused.stderr
    assert "--allow-requantize" in refused.stderr
    result = run("quantize", str(default_model), str(target), "q4_k_s", "--allow-requantize")
    assert result.returncode == 0
    assert "1 tensors have their type already and are copied" in result.stderr
    again = run("quantize", str(default_model), str(target), "q4_k_s", "--allow-requantize")
    assert again.returncode == 1
    assert "out.gguf is there already; remove it, or use --force" in again.stderr
