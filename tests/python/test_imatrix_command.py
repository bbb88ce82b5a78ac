"""pyllamacpp imatrix, and what it is for: a smaller loss of the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyllamacpp_convert import quantize_gguf
from pyllamacpp_convert.importance import read_importance

from pyllamacpp import Llama, _core
from pyllamacpp.eval.perplexity import log_softmax

TEXT = (Path(__file__).resolve().parents[1] / "data" / "english.txt").read_text("ascii")[:6000]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


def test_the_file(run, default_model: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.imatrix"
    args = ("imatrix", "-m", str(default_model), "-f", str(text), "-o", str(out), "-c", "64")
    result = run(*args)
    assert (result.returncode, result.stdout) == (0, "")
    assert f"pyllamacpp: {out}: 210 matrices over " in result.stderr
    found = read_importance(out)
    assert found.datasets == [str(text)]
    assert found.n_chunks > 10
    assert len(found.columns["blk.29.ffn_down.weight"]) == 1536
    again = run(*args)
    assert again.returncode == 1
    assert "m.imatrix is there already; remove it, or use --force" in again.stderr


def test_errors(run, default_model: Path, text: Path, tmp_path: Path) -> None:
    model = str(default_model)
    short = run("imatrix", "-m", model, "-f", "-", "-o", str(tmp_path / "o"), stdin="short")
    assert short.returncode == 1
    assert "fewer than one window of 512" in short.stderr
    missing = run("imatrix", "-m", model, "-f", str(text), "-o", "/no/folder/o")
    assert missing.returncode == 1
    assert "/no/folder is not a folder" in missing.stderr
    assert run("imatrix", "-m", model, "-f", str(text)).returncode == 2
    assert list(tmp_path.iterdir()) == []


def predictions(path: Path, n_tokens: int) -> np.ndarray:
    with Llama(str(path), n_ctx=n_tokens, verbose=False) as llama:
        tokens = llama.tokenize(TEXT.encode())[:n_tokens]
    model = _core.Model(str(path))
    context = _core.Context(model, n_ctx=n_tokens)
    context.decode([(0, tokens, "all")])
    return log_softmax(context.logits())


def test_it_lowers_the_loss(run, default_model: Path, text: Path, tmp_path: Path) -> None:
    source, matrix = tmp_path / "f16.gguf", tmp_path / "m.imatrix"
    quantize_gguf(default_model, source, "f16")
    args = ("imatrix", "-m", str(source), "-f", str(text), "-o", str(matrix), "-c", "256")
    assert run(*args).returncode == 0
    base = predictions(source, 256)
    divergence = []
    for imatrix in (None, matrix):
        quantize_gguf(source, tmp_path / "q.gguf", "q2_k", imatrix=imatrix, force=True)
        theirs = predictions(tmp_path / "q.gguf", 256)
        divergence.append(float((np.exp(base) * (base - theirs)).sum(1).mean()))
    assert 0 < divergence[1] < 0.9 * divergence[0]
