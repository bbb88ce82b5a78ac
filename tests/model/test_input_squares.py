"""Sums of the squares of every matrix's inputs, against a float64 forward pass."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "oracle"))

from llama_numpy import LlamaNumpy
from tiny_model import TinyModel

from pyllamacpp import _core
from pyllamacpp.errors import InvalidArgumentError, UnsupportedError
from pyllamacpp.eval.importance import input_squares

MODELS = {
    "llama": TinyModel(n_layers=3),
    "qwen3, wider than its feed-forward": TinyModel(
        architecture="qwen3", head_dim=32, qk_norm=True, n_ff=32, tied=True
    ),
    "qwen2": TinyModel(architecture="qwen2", qkv_bias=True),
}
TOKENS = [1, *range(40, 240, 5)]


def expected(path: Path, sequences: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    model = LlamaNumpy.from_gguf(path)
    sums: dict[str, np.ndarray] = {}
    for tokens in sequences:
        inputs: dict[str, np.ndarray] = {}
        model.forward(tokens, inputs=inputs)
        for name, x in inputs.items():
            sums[name] = sums.get(name, 0) + np.square(x).sum(0)
    # The output matrix is left out: its columns would be judged by few rows.
    return {name: total for name, total in sums.items() if name.startswith("blk.")}


def assert_near(
    found: dict[str, tuple[np.ndarray, int]], sums: dict[str, np.ndarray], n_rows: int
) -> None:
    assert found.keys() == sums.keys()
    for name, (squares, count) in found.items():
        assert (squares.dtype, count) == (np.float64, n_rows), name
        np.testing.assert_allclose(squares, sums[name], rtol=2e-5, err_msg=name)


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_against_float64(model: TinyModel, tmp_path: Path) -> None:
    path = model.write(tmp_path / "tiny.gguf")
    loaded = _core.Model(str(path))
    for n_batch, n_threads in ((512, 1), (16, 2), (1, 2)):
        context = _core.Context(
            loaded,
            n_ctx=128,
            n_batch=n_batch,
            n_threads=n_threads,
            max_sequences=2,
            type_k="f32",
            type_v="f32",
            measure_inputs=True,
        )
        context.decode([(0, TOKENS, "last"), (1, TOKENS[:9], "none")])
        sums = expected(path, [TOKENS, TOKENS[:9]])
        assert_near(context.input_squares(), sums, len(TOKENS) + 9)
        # What was measured before stays; trimming forgets only keys and values.
        context.trim(0, 0)
        context.decode([(0, TOKENS[:5], "all")])
        sums = expected(path, [TOKENS, TOKENS[:9], TOKENS[:5]])
        assert_near(context.input_squares(), sums, len(TOKENS) + 14)


def test_measuring_changes_no_logits(tmp_path: Path) -> None:
    loaded = _core.Model(str(MODELS["llama"].write(tmp_path / "tiny.gguf")))
    logits = []
    for measure in (False, True):
        context = _core.Context(loaded, n_ctx=128, measure_inputs=measure)
        context.decode([(0, TOKENS, "all")])
        logits.append(context.logits())
    np.testing.assert_array_equal(*logits)
    with pytest.raises(InvalidArgumentError, match="was made without measure_inputs"):
        _core.Context(loaded, n_ctx=128).input_squares()


def test_windows_of_a_text(tmp_path: Path) -> None:
    path = MODELS["llama"].write(tmp_path / "tiny.gguf")
    loaded = _core.Model(str(path))
    text = bytes(range(65, 100))
    told: list[tuple[int, int]] = []
    found = input_squares(
        loaded, text, n_ctx=8, n_batch=5, on_window=lambda done, n: told.append((done, n))
    )
    tokens = loaded.tokenizer.encode(text, True, False)
    n = len(tokens) // 8
    assert found.n_windows == n
    assert told == [(i + 1, n) for i in range(n)]
    windows = [[1, *tokens[8 * i + 1 : 8 * i + 8]] for i in range(n)]
    # The KV cache is of halves here.
    for name, total in expected(path, windows).items():
        squares, count = found.sums[name]
        assert count == 8 * n
        np.testing.assert_allclose(squares, total, rtol=5e-3)
    with pytest.raises(InvalidArgumentError, match="fewer than one window of 512"):
        input_squares(loaded, text)


def test_inputs_that_are_not_finite(tmp_path: Path) -> None:
    model = TinyModel(tensors={"token_embd.weight": np.full((259, 64), np.inf, np.float32)})
    loaded = _core.Model(str(model.write(tmp_path / "bad.gguf")))
    with pytest.raises(UnsupportedError, match=r"an input of blk\.0\.attn_q\.weight is not finite"):
        input_squares(loaded, b"some text", n_ctx=4)
