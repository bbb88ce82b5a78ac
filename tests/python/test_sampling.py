"""Biases and penalties through `Llama`; the arithmetic itself is in tests/native."""

from __future__ import annotations

import pytest

from pyllamacpp import InvalidArgumentError, Llama

PROMPT = "The capital of France is"


def complete(llm: Llama, n: int = 40, **arguments: object) -> str:
    return llm(PROMPT, max_tokens=n, temperature=0, **arguments)["choices"][0]["text"]


def token(llm: Llama, text: bytes) -> int:
    (found,) = llm.tokenize(text)
    return found


def test_a_bias_forces_and_forbids(llm: Llama) -> None:
    paris, london = token(llm, b" Paris"), token(llm, b" London")
    assert complete(llm, 1) == " Paris"
    assert complete(llm, 1, logit_bias={london: 100.0}) == " London"
    assert complete(llm, 1, logit_bias={paris: float("-inf")}) != " Paris"
    assert complete(llm, 1, logit_bias={str(london): 100}) == " London"  # as JSON has it


def test_a_bias_of_no_token_is_named(llm: Llama) -> None:
    with pytest.raises(InvalidArgumentError, match="999999"):
        complete(llm, logit_bias={999999: 1.0})
    with pytest.raises(InvalidArgumentError, match="logit_bias"):
        complete(llm, logit_bias={"Paris": 1.0})


def test_penalties_end_a_loop(llm: Llama) -> None:
    """Greedily the model repeats a sentence; each penalty gives it other words."""
    plain = complete(llm, 60)
    assert plain.count("The United States has a population") > 1
    for penalty in ({"repeat_penalty": 1.5}, {"frequency_penalty": 1.5}, {"presence_penalty": 3.0}):
        text = complete(llm, 60, **penalty)
        assert text.count("The United States has a population") <= 1, penalty


def test_the_window_of_penalties(default_model: str) -> None:
    """With no token to look back at, penalties do nothing."""
    with Llama(str(default_model), n_ctx=256, last_n_tokens_size=0, verbose=False) as llm:
        assert complete(llm, repeat_penalty=1.5) == complete(llm)


def test_a_penalty_must_be_positive(llm: Llama) -> None:
    with pytest.raises(InvalidArgumentError, match="repeat_penalty is 0"):
        complete(llm, repeat_penalty=0.0)


def test_typical_sampling_with_a_seed(llm: Llama) -> None:
    def drawn(**arguments: object) -> str:
        answer = llm(PROMPT, max_tokens=30, temperature=1.5, top_k=0, seed=3, **arguments)
        return answer["choices"][0]["text"]

    assert drawn(typical_p=0.2) == drawn(typical_p=0.2)
    assert drawn(typical_p=0.2) != drawn()


def test_seeds_with_the_cache_warm_or_cold(default_model: str) -> None:
    """The same seed gives the same text, whatever the cache holds and the batch size."""
    texts = []
    for n_batch in (512, 3):
        with Llama(str(default_model), n_ctx=256, n_batch=n_batch, verbose=False) as llm:
            for _ in range(2):
                answer = llm(PROMPT, max_tokens=30, seed=11, repeat_penalty=1.1)
                texts.append(answer["choices"][0]["text"])
            llm.reset()
            answer = llm(PROMPT, max_tokens=30, seed=11, repeat_penalty=1.1)
            texts.append(answer["choices"][0]["text"])
    assert len(set(texts)) == 1
