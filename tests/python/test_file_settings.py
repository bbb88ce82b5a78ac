"""`rope_*`, `yarn_*` and `kv_overrides` against a float64 pass of a file that says the same.

The pass reads its numbers from a second file, which states as metadata what the arguments say.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pyllamacpp import Llama
from pyllamacpp.errors import InvalidArgumentError

sys.path.append(str(Path(__file__).resolve().parents[1] / "oracle"))
from llama_numpy import LlamaNumpy
from tiny_model import TinyModel

LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}
YARN = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 8.0,
    "rope.scaling.original_context_length": 512,
}
TOKENS = [1, *(int(3 + t) for t in np.random.default_rng(5).integers(0, 256, 100))]


def logits(path: Path, **arguments: object) -> np.ndarray:
    types = {"type_k": "f32", "type_v": "f32"}
    with Llama(path, logits_all=True, verbose=False, **types, **arguments) as llm:
        llm.eval(TOKENS)
        return llm.scores[: len(TOKENS)].copy()


def distance(ours: np.ndarray, oracle: np.ndarray) -> float:
    return float(np.sqrt(np.mean((ours - oracle) ** 2) / np.mean(oracle**2)))


@pytest.mark.parametrize(
    ("file", "arguments", "as_if"),
    [
        (TinyModel(), {"rope_freq_base": 5e5}, TinyModel(rope_theta=5e5)),
        (TinyModel(), {"rope_freq_scale": 0.25}, TinyModel(metadata=LINEAR)),
        (TinyModel(metadata=LINEAR), {"rope_scaling_type": 0}, TinyModel()),
        (
            TinyModel(),
            {"rope_scaling_type": 2, "rope_freq_scale": 0.125, "yarn_orig_ctx": 512},
            TinyModel(metadata=YARN),
        ),
        (
            TinyModel(metadata=YARN),
            {"yarn_attn_factor": 0.9},
            TinyModel(metadata=YARN | {"rope.scaling.attn_factor": 0.9}),
        ),
        (
            TinyModel(metadata=YARN),
            {"yarn_orig_ctx": 2048},
            TinyModel(metadata=YARN | {"rope.scaling.original_context_length": 2048}),
        ),
        (
            TinyModel(metadata=YARN),
            {"yarn_ext_factor": 0.0},
            TinyModel(metadata={"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}),
        ),
        (
            TinyModel(metadata=LINEAR | {"rope.scaling.original_context_length": 512}),
            {"yarn_ext_factor": 1.0, "rope_freq_scale": 0.125},
            TinyModel(metadata=YARN),
        ),
        (
            TinyModel(),
            {"kv_overrides": {"llama.rope.freq_base": 5e5}},
            TinyModel(rope_theta=5e5),
        ),
        (
            TinyModel(),
            {"kv_overrides": {"llama.attention.layer_norm_rms_epsilon": 0.05}},
            TinyModel(norm_eps=0.05),
        ),
        (
            TinyModel(),
            {"kv_overrides": {"llama.attention.sliding_window": 37}},
            TinyModel(metadata={"attention.sliding_window": 37}),
        ),
    ],
    ids=str,
)
def test_as_if_the_file_said_so(
    file: TinyModel, arguments: Mapping[str, object], as_if: TinyModel, tmp_path: Path
) -> None:
    path = file.write(tmp_path / "file.gguf")
    oracle = LlamaNumpy.from_gguf(as_if.write(tmp_path / "as_if.gguf")).forward(TOKENS)
    assert distance(logits(path, **arguments), oracle) < 1e-5
    assert distance(logits(path), oracle) > 1e-3  # the file alone says something else


def test_a_base_below_the_files_is_warned_of(tmp_path: Path) -> None:
    """LangChain sends 10000 to every model."""
    path = TinyModel(rope_theta=5e5).write(tmp_path / "file.gguf")
    with pytest.warns(UserWarning, match="rope_freq_base=10000 is below the file's 500000"):
        lower = logits(path, rope_freq_base=10000.0)
    assert distance(lower, logits(path, rope_freq_base=5e5)) > 1e-3  # no warning: they are errors


def test_yarns_betas_and_share(tmp_path: Path) -> None:
    """The file's keys of the same names, and a blend by hand for the share."""
    path = TinyModel(metadata=YARN).write(tmp_path / "file.gguf")
    stated = TinyModel(
        metadata=YARN | {"rope.scaling.yarn_beta_fast": 20.0, "rope.scaling.yarn_beta_slow": 2.0}
    ).write(tmp_path / "stated.gguf")
    ours = logits(path, yarn_beta_fast=20.0, yarn_beta_slow=2.0)
    assert (ours == logits(stated)).all()
    assert distance(ours, logits(path)) > 1e-3

    oracle = LlamaNumpy.from_gguf(path)
    plain = LlamaNumpy.from_gguf(TinyModel().write(tmp_path / "plain.gguf")).inverse_frequencies
    kept = (oracle.inverse_frequencies / plain - 1 / 8) / (1 - 1 / 8)
    oracle.inverse_frequencies = plain * (0.5 * kept + (1 - 0.5 * kept) / 8)
    assert distance(logits(path, yarn_ext_factor=0.5), oracle.forward(TOKENS)) < 1e-5


def test_contexts_of_one_model_differ_in_their_rope(tmp_path: Path) -> None:
    path = TinyModel().write(tmp_path / "file.gguf")
    with Llama(path, verbose=False) as one, one.new_context(rope_freq_base=5e5) as two:
        for llm in (one, two):
            llm.eval(TOKENS)
        assert (one.scores[len(TOKENS) - 1] != two.scores[len(TOKENS) - 1]).any()
        # Rotated keys are of no use to the other.
        with pytest.raises(InvalidArgumentError, match="RoPE of base 500000"):
            two.load_state(one.save_state())
        with pytest.raises(TypeError, match="kv_overrides"):
            one.new_context(kv_overrides={"llama.rope.freq_base": 5e5})


def test_the_tokenizer_and_the_metadata_are_overridden(default_model: Path) -> None:
    overrides = {
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.eos_token_id": 5,
        "general.name": "another",
        "my.own": -3,
    }
    with Llama(default_model, verbose=False, vocab_only=True, kv_overrides=overrides) as llm:
        assert llm.tokenize(b"Hello")[0] == llm.token_bos()
        assert llm.token_eos() == 5
        assert (llm.metadata["general.name"], llm.metadata["my.own"]) == ("another", "-3")


def test_another_model_for_states(tmp_path: Path) -> None:
    path = TinyModel().write(tmp_path / "file.gguf")
    overrides = {"llama.attention.layer_norm_rms_epsilon": 0.05}
    with (
        Llama(path, verbose=False) as one,
        Llama(path, verbose=False, kv_overrides=overrides) as two,
    ):
        one.eval(TOKENS)
        with pytest.raises(InvalidArgumentError, match="another model"):
            two.load_state(one.save_state())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rope_freq_base": 0.5}, "rope_freq_base is 0.5"),
        ({"rope_freq_base": "a"}, "rope_freq_base must be a number"),
        ({"rope_freq_scale": -1.0}, "rope_freq_scale is -1"),
        ({"rope_freq_scale": float("nan")}, "rope_freq_scale is nan"),
        ({"rope_scaling_type": 0, "rope_freq_scale": 0.5}, "rope_freq_scale has no effect"),
        ({"rope_scaling_type": 3}, "no factors"),
        ({"rope_scaling_type": 4}, "rope_scaling_type is 4"),
        ({"yarn_beta_fast": 20.0}, "yarn_beta_fast has no effect"),
        ({"yarn_ext_factor": 1.0}, "yarn_ext_factor has no effect"),
        ({"yarn_orig_ctx": 4096}, "yarn_orig_ctx has no effect"),
        ({"yarn_orig_ctx": 40.5}, "yarn_orig_ctx must be an integer"),
        ({"kv_overrides": {"llama.rope.freq_base": 10000}}, "is an integer; in .* it is a float"),
        ({"kv_overrides": {"llama.block_count": 2.0}}, "is a float; in .* it is an integer"),
        ({"kv_overrides": {"tokenizer.ggml.tokens": "a"}}, "it is an array"),
        ({"kv_overrides": {"general.alignment": 64}}, "cannot be overridden"),
        ({"kv_overrides": {"a key": 1}}, "is no key"),
        ({"kv_overrides": {"x": [1]}}, "must be an int, a float, a bool or a string"),
        ({"kv_overrides": {"x": 1 << 64}}, "must lie in"),
        ({"kv_overrides": {3: 1}}, "a key is a string"),
        ({"kv_overrides": [("x", 1)]}, "kv_overrides must be a mapping"),
    ],
)
def test_refused_in_one_sentence(
    arguments: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    path = TinyModel().write(tmp_path / "file.gguf")
    with pytest.raises(InvalidArgumentError, match=sentence):
        Llama(path, verbose=False, **arguments)
