"""The sampling arguments through `Llama` and the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyllamacpp import InvalidArgumentError, Llama

PROMPT = "The capital of France is"
MANY: dict[str, Any] = {
    "dynatemp_range": 0.3,
    "dry_multiplier": 0.8,
    "xtc_probability": 0.5,
    "top_n_sigma": 2.0,
    "repeat_penalty": 1.1,
}


def text(llm: Llama, n: int = 30, **arguments: Any) -> str:
    return llm(PROMPT, max_tokens=n, **{"seed": 3, **arguments})["choices"][0]["text"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"mirostat_mode": 1, "mirostat_tau": 2.0},
        {"mirostat_mode": 2, "mirostat_tau": 2.0},
        {"dynatemp_range": 0.7},
        {"xtc_probability": 1.0, "temperature": 1.5},
        {"top_n_sigma": 0.3, "temperature": 1.5},
        {"tfs_z": 0.4, "temperature": 1.5},
        {"adaptive_target": 0.3},
        {"samplers": ["top_k"]},
    ],
)
def test_an_argument_changes_the_text(llm: Llama, arguments: dict[str, Any]) -> None:
    base = {"temperature": arguments.get("temperature", 0.8)}
    assert text(llm, **arguments) != text(llm, **base)
    assert text(llm, **arguments) == text(llm, **arguments)


def test_dry_ends_a_loop(llm: Llama) -> None:
    sentence = "The United States has a population"
    assert text(llm, 60, temperature=0).count(sentence) > 1
    assert text(llm, 60, temperature=0, dry_multiplier=2.0).count(sentence) <= 1


def test_min_tokens_bars_the_end(llm: Llama) -> None:
    eos = {llm.token_eos(): 50.0}
    assert text(llm, 8, logit_bias=eos) == ""
    answer = llm(PROMPT, max_tokens=8, min_tokens=5, logit_bias=eos, seed=1)
    assert answer["usage"]["completion_tokens"] == 5
    stopped = llm(PROMPT, max_tokens=8, min_tokens=3, stop=[" "], temperature=0)
    assert stopped["usage"]["completion_tokens"] > 3
    assert stopped["choices"][0]["finish_reason"] == "stop"
    with pytest.raises(InvalidArgumentError, match="min_tokens"):
        text(llm, min_tokens=-1)


def test_line_feeds_may_go_without_penalties(default_model: Path) -> None:
    with Llama(str(default_model), n_ctx=64, verbose=False) as llm:
        line_feed, other = llm.token_nl(), llm.tokenize(b" one", add_bos=False)[0]
        ids = [line_feed, other, line_feed]

        def two(_ids: Any, scores: Any) -> Any:
            scores[:] = -20
            scores[[line_feed, other]] = [0, -1]
            return scores

        options = {"temp": 0.0, "presence_penalty": 0.5, "logits_processor": [two]}
        llm.eval(ids)
        for penalty, penalize_nl, expected in (
            ({"frequency_penalty": 2.0}, True, other),
            ({"frequency_penalty": 2.0}, False, line_feed),
            ({"repeat_penalty": 2.0}, False, line_feed),
        ):
            call = {**options, **penalty, "penalize_nl": penalize_nl}
            assert llm.sample(**call) == expected
            steps = llm.generate(ids, **call)
            assert next(steps) == expected
            steps.close()
            llm.reset()
            llm.eval(ids)


def test_bad_arguments_are_named(llm: Llama) -> None:
    with pytest.raises(InvalidArgumentError, match="xtc_probability is 2"):
        text(llm, xtc_probability=2.0)
    with pytest.raises(InvalidArgumentError, match="dry_base must be a number"):
        text(llm, dry_base="much")
    with pytest.raises(InvalidArgumentError, match="tail"):
        text(llm, samplers="top_k;tail")
    with pytest.raises(InvalidArgumentError, match="takes the place of top_n_sigma"):
        text(llm, mirostat_mode=2, top_n_sigma=1.0)
    with pytest.raises(InvalidArgumentError, match="takes the place of adaptive_target"):
        text(llm, mirostat_mode=2, adaptive_target=0.5)
    with pytest.raises(TypeError, match="dry_bas"):
        text(llm, dry_bas=2.0)


@pytest.mark.parametrize(
    "arguments",
    [MANY, {"mirostat_mode": 2, "dry_multiplier": 0.8}, {"adaptive_target": 0.3, "tfs_z": 0.9}],
)
def test_seeds_whatever_the_cache_and_threads(default_model: str, arguments: Any) -> None:
    texts = set()
    for n_threads in (1, 2):
        with Llama(str(default_model), n_ctx=256, n_threads=n_threads, verbose=False) as llm:
            for _ in range(2):
                texts.add(text(llm, **arguments))
            llm.reset()
            texts.add(text(llm, **arguments))
    assert len(texts) == 1


def test_chat_and_generate_take_them(llm: Llama) -> None:
    messages = [{"role": "user", "content": "Say something."}]
    assert llm.create_chat_completion(
        messages,
        max_tokens=5,
        mirostat_mode=1,
        **MANY | {"xtc_probability": 0.0, "top_n_sigma": -1.0},
    )["choices"]
    ids = llm.generate(llm.tokenize(PROMPT.encode()), top_n_sigma=1.0, samplers="top_n_sigma")
    assert next(ids) >= 0
    ids.close()


def test_the_commands_take_them(run: Any) -> None:
    base = ["generate", "-p", PROMPT, "-n", "20", "--seed", "3"]
    plain = run(*base).stdout
    for option in (
        ["--mirostat", "2", "--mirostat-tau", "2"],
        ["--top-n-sigma", "0.2", "--temp", "2"],
        ["--tfs", "0.2", "--temp", "2"],
        ["--adaptive-target", "0.2"],
        ["--samplers", "top_k"],
    ):
        result = run(*base, *option)
        assert result.returncode == 0, result.stderr
        assert result.stdout != plain
    wrong = run(*base, "--xtc-probability", "3")
    assert wrong.returncode == 1
    assert "xtc_probability is 3" in wrong.stderr
    assert run(*base, "--samplers", "nonsense").returncode == 1
