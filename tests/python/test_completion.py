"""create_completion: results, streams, stops, seeds."""

import pytest

from pyllamacpp import Llama
from pyllamacpp.errors import ContextFullError, InvalidArgumentError, PyllamacppError

FRANCE = "The capital of France is"


def text_of(chunks) -> str:
    return "".join(chunk["choices"][0]["text"] for chunk in chunks)


def test_result_has_the_shape_of_openai(llm: Llama) -> None:
    result = llm(FRANCE, max_tokens=8, temperature=0.0)
    assert set(result) == {"id", "object", "created", "model", "choices", "usage"}
    assert result["id"].startswith("cmpl-")
    assert result["object"] == "text_completion"
    assert result["model"] == llm.model_path
    (choice,) = result["choices"]
    assert "Paris" in choice["text"]
    assert {**choice, "text": ""} == {
        "text": "",
        "index": 0,
        "logprobs": None,
        "finish_reason": "length",
    }
    n_prompt = len(llm.tokenize(FRANCE.encode()))
    assert result["usage"] == {
        "prompt_tokens": n_prompt,
        "completion_tokens": 8,
        "total_tokens": n_prompt + 8,
    }


def test_call_is_create_completion(llm: Llama) -> None:
    first = llm(FRANCE, max_tokens=4, temperature=0.0)
    second = llm.create_completion(FRANCE, max_tokens=4, temperature=0.0)
    assert first["choices"] == second["choices"]


def test_model_names_the_model(llm: Llama) -> None:
    assert llm(FRANCE, max_tokens=1, model="mine")["model"] == "mine"


def test_prompt_may_be_token_ids(llm: Llama) -> None:
    ids = llm.tokenize(FRANCE.encode())
    as_ids = llm(ids, max_tokens=6, temperature=0.0)
    as_text = llm(FRANCE, max_tokens=6, temperature=0.0)
    assert as_ids["choices"] == as_text["choices"]


@pytest.mark.parametrize("stop", [None, ["\n\n"], ["United"]])
def test_stream_gives_the_same_text(llm: Llama, stop: list[str] | None) -> None:
    whole = llm(FRANCE, max_tokens=24, temperature=0.0, stop=stop)
    chunks = list(llm(FRANCE, max_tokens=24, temperature=0.0, stop=stop, stream=True))
    assert text_of(chunks) == whole["choices"][0]["text"]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons[:-1] == [None] * (len(chunks) - 1)
    assert reasons[-1] == whole["choices"][0]["finish_reason"]
    assert chunks[-1]["choices"][0]["text"] == ""
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)


def test_multibyte_text_streams_in_whole_characters(llm: Llama) -> None:
    prompt = "日本語で「ありがとう」は「"
    whole = llm(prompt, max_tokens=32, temperature=0.0)["choices"][0]["text"]
    pieces = [
        chunk["choices"][0]["text"]
        for chunk in llm(prompt, max_tokens=32, temperature=0.0, stream=True)
    ]
    assert "".join(pieces) == whole
    assert any(ord(char) > 127 for char in whole)


def test_echo_puts_the_prompt_in_front(llm: Llama) -> None:
    plain = llm(FRANCE, max_tokens=4, temperature=0.0)["choices"][0]["text"]
    options = {"max_tokens": 4, "temperature": 0.0, "echo": True}
    assert llm(FRANCE, **options)["choices"][0]["text"] == FRANCE + plain
    assert text_of(llm(FRANCE, stream=True, **options)) == FRANCE + plain
    ids = llm.tokenize(FRANCE.encode())
    assert llm(ids, **options)["choices"][0]["text"] == FRANCE + plain


def test_stop_strings_are_found_across_tokens(llm: Llama) -> None:
    full = llm(FRANCE, max_tokens=24, temperature=0.0)["choices"][0]["text"]
    # A stop that begins inside one token and ends inside another one.
    cut = full.index("Paris") + 2
    stop = full[cut : cut + 6]
    result = llm(FRANCE, max_tokens=24, temperature=0.0, stop=stop)
    assert result["choices"][0]["text"] == full[: full.index(stop)]
    assert result["choices"][0]["finish_reason"] == "stop"


def test_the_earliest_stop_counts_whatever_the_order(llm: Llama) -> None:
    full = llm(FRANCE, max_tokens=24, temperature=0.0)["choices"][0]["text"]
    early, late = full[2:5], full[10:14]
    assert full.index(early) < full.index(late)
    for stop in ([early, late], [late, early]):
        text = llm(FRANCE, max_tokens=24, temperature=0.0, stop=stop)["choices"][0]["text"]
        assert text == full[: full.index(early)]


def test_a_held_back_tail_comes_out_at_the_end(llm: Llama) -> None:
    full = llm(FRANCE, max_tokens=5, temperature=0.0)["choices"][0]["text"]
    stop = full[-1] + "\x00never"
    assert llm(FRANCE, max_tokens=5, temperature=0.0, stop=stop)["choices"][0]["text"] == full


def test_a_seed_gives_the_same_text_again(llm: Llama) -> None:
    def sample(seed: int) -> str:
        return llm("Once upon a time", max_tokens=24, temperature=1.5, seed=seed)["choices"][0][
            "text"
        ]

    texts = [sample(seed) for seed in (0, 1, 2, 3)]
    assert texts == [sample(seed) for seed in (0, 1, 2, 3)]
    assert len(set(texts)) > 1


def test_the_constructors_seed_gives_a_chain(llm: Llama) -> None:
    def sample() -> str:
        return llm("Once upon a time", max_tokens=24, temperature=1.5)["choices"][0]["text"]

    llm.set_seed(0)
    first = [sample(), sample()]
    assert first[0] != first[1]
    llm.set_seed(0)
    assert [sample(), sample()] == first


def test_without_a_seed_texts_differ(llm: Llama) -> None:
    llm.set_seed(0xFFFFFFFF)
    texts = {
        llm("Once upon a time", max_tokens=24, temperature=1.5)["choices"][0]["text"]
        for _ in range(3)
    }
    assert len(texts) > 1


@pytest.mark.parametrize("max_tokens", [None, 0, -1])
def test_no_max_tokens_is_the_rest_of_the_context(default_model, max_tokens) -> None:
    with Llama(str(default_model), n_ctx=24, verbose=False) as small:
        ids = small.tokenize(b"1 2 3 4 5 6 7 8 9 10 11")
        result = small(ids, max_tokens=max_tokens, temperature=0.0)
        assert result["choices"][0]["finish_reason"] == "length"
        assert result["usage"]["total_tokens"] == 24


def test_too_long_a_prompt_says_what_the_peer_says(llm: Llama) -> None:
    ids = [1] * llm.n_ctx()
    sentence = rf"Requested tokens \({len(ids)}\) exceed context window of {llm.n_ctx()}"
    for stream in (False, True):
        with pytest.raises(ContextFullError, match=sentence):
            llm(ids, stream=stream)
    with pytest.raises(ValueError, match=sentence):
        llm(ids)
    assert llm(FRANCE, max_tokens=1)["choices"]  # still usable


def test_bad_arguments_are_errors(llm: Llama) -> None:
    for options in ({"stop": ""}, {"stop": [3]}, {"seed": -2}, {"temperature": float("nan")}):
        with pytest.raises(InvalidArgumentError):
            llm(FRANCE, max_tokens=1, **options)
    with pytest.raises(InvalidArgumentError):
        llm([10**6], max_tokens=1)


def test_streams_and_calls_go_on_beside_each_other(llm: Llama) -> None:
    alone = llm(FRANCE, max_tokens=16, temperature=0.0)["choices"][0]["text"]
    streams = [llm(FRANCE, max_tokens=16, temperature=0.0, stream=True) for _ in range(2)]
    texts = [next(stream)["choices"][0]["text"] for stream in streams]
    llm("Another text", max_tokens=1)
    assert [text + text_of(stream) for text, stream in zip(texts, streams, strict=True)] == [
        alone
    ] * 2


def test_a_stream_whose_context_was_changed_says_so(llm: Llama) -> None:
    stream = llm(FRANCE, max_tokens=16, temperature=0.0, stream=True)
    next(stream)
    llm.reset()
    with pytest.raises(PyllamacppError, match="its context was changed"):
        text_of(stream)


def test_a_stream_may_be_left_early(llm: Llama) -> None:
    expected = llm(FRANCE, max_tokens=8, temperature=0.0)["choices"]
    stream = llm(FRANCE, max_tokens=16, temperature=0.0, stream=True)
    next(stream)
    stream.close()
    assert llm(FRANCE, max_tokens=8, temperature=0.0)["choices"] == expected


def test_end_of_text_stops_without_text(llm: Llama) -> None:
    prompt = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    result = llm(prompt, max_tokens=200, temperature=0.0)
    assert result["choices"][0]["finish_reason"] == "stop"
    assert "<|im_end|>" not in result["choices"][0]["text"]
    assert result["usage"]["completion_tokens"] < 200


def test_threads_wait_for_each_other(llm: Llama) -> None:
    from concurrent.futures import ThreadPoolExecutor

    prompts = [FRANCE, "Once upon a time", "def fibonacci(n):", "Water boils at"]

    def complete(prompt: str) -> str:
        return llm(prompt, max_tokens=8, temperature=0.0)["choices"][0]["text"]

    alone = [complete(prompt) for prompt in prompts]
    with ThreadPoolExecutor(len(prompts)) as pool:
        assert list(pool.map(complete, prompts)) == alone
