"""pyllamacpp imatrix, and what it is for: a smaller loss of the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyllamacpp_convert import quantize_gguf
from pyllamacpp_convert.importance import read_importance

from pyllamacpp import _core
from pyllamacpp.eval.importance import input_squares
from pyllamacpp.eval.perplexity import log_softmax

TEXT = (Path(__file__).resolve().parents[1] / "data" / "english.txt").read_text("ascii")[:3000]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


def predictions(path: Path) -> np.ndarray:
    """Log-probabilities after each of the first 192 tokens."""
    model = _core.Model(str(path))
    context = _core.Context(model, n_ctx=192)
    context.decode([(0, model.tokenizer.encode(TEXT.encode(), True, False)[:192], "all")])
    return log_softmax(context.logits())


def test_a_smaller_loss(run, default_model: Path, text: Path, tmp_path: Path) -> None:
    matrix, source = tmp_path / "m.imatrix", tmp_path / "f16.gguf"
    args = ("imatrix", "-m", str(default_model), "-f", str(text), "-o", str(matrix), "-c", "128")
    result = run(*args)
    assert (result.returncode, result.stdout) == (0, "")
    assert f"pyllamacpp: {matrix}: 210 matrices over " in result.stderr
    found = read_importance(matrix)
    model = _core.Model(str(default_model))
    expected = input_squares(model, TEXT.encode(), n_ctx=128)
    assert (found.datasets, found.n_chunks) == ([str(text)], expected.n_windows)
    for name, (squares, count) in expected.sums.items():
        np.testing.assert_allclose(found.columns[name], squares / count, rtol=1e-6)
    again = run(*args)
    assert again.returncode == 1
    assert "m.imatrix is there already; remove it, or use --force" in again.stderr

    quantize_gguf(default_model, source, "f16")
    base = predictions(source)
    divergence = []
    for imatrix in (None, matrix):
        quantize_gguf(source, tmp_path / "q.gguf", "q2_k", imatrix=imatrix, force=True)
        theirs = predictions(tmp_path / "q.gguf")
        divergence.append(float((np.exp(base) * (base - theirs)).sum(1).mean()))
    assert 0 < divergence[1] < 0.8 * divergence[0]


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
