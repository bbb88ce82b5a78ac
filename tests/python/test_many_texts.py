"""Lists of prompts, several texts per prompt, log-probabilities, asyncio, cancelling, drafting."""

import asyncio
import math
import threading
import weakref

import numpy as np
import pytest

from pyllamacpp import Llama
from pyllamacpp.drafting import Guesser, LlamaPromptLookupDecoding
from pyllamacpp.errors import CancelledError, ContextFullError, InvalidArgumentError
from pyllamacpp.jobs import _Bell

PROMPTS = ["The capital of France is", "Once upon a time", "def fibonacci(n):"]
MESSAGES = [{"role": "user", "content": "Name the capital city of France."}]


def texts_of(completion) -> list[str]:
    return [choice["text"] for choice in completion["choices"]]


def test_a_list_of_prompts_gives_a_choice_each(llm: Llama) -> None:
    alone = [llm(p, max_tokens=12, seed=3) for p in PROMPTS]
    together = llm(PROMPTS, max_tokens=12, seed=3)
    assert texts_of(together) == [texts_of(one)[0] for one in alone]
    assert [choice["index"] for choice in together["choices"]] == [0, 1, 2]
    assert together["usage"] == {
        key: sum(one["usage"][key] for one in alone) for key in together["usage"]
    }
    ids = [llm.tokenize(p.encode()) for p in PROMPTS]
    assert texts_of(llm(ids, max_tokens=12, seed=3)) == texts_of(together)
    assert texts_of(llm(PROMPTS[:1], max_tokens=12, seed=3)) == texts_of(together)[:1]


def test_streams_of_a_list_name_their_choice(llm: Llama) -> None:
    whole = llm(PROMPTS, max_tokens=12, temperature=0.0)
    texts = ["", "", ""]
    reasons: list[str | None] = [None] * 3
    for chunk in llm(PROMPTS, max_tokens=12, temperature=0.0, stream=True):
        (choice,) = chunk["choices"]
        assert reasons[choice["index"]] is None
        texts[choice["index"]] += choice["text"]
        reasons[choice["index"]] = choice["finish_reason"]
    assert texts == texts_of(whole)
    assert reasons == [choice["finish_reason"] for choice in whole["choices"]]


def test_several_texts_share_a_prompt(llm: Llama) -> None:
    three = llm(PROMPTS[1], n=3, max_tokens=12, seed=5)
    assert texts_of(three) == [
        texts_of(llm(PROMPTS[1], max_tokens=12, seed=5 + j))[0] for j in range(3)
    ]
    assert len(set(texts_of(three))) == 3
    assert three["usage"]["prompt_tokens"] == len(llm.tokenize(PROMPTS[1].encode()))
    assert three["usage"]["completion_tokens"] == 36
    answers = llm.create_chat_completion(MESSAGES, n=2, max_tokens=8, temperature=1.0, seed=1)
    assert [choice["index"] for choice in answers["choices"]] == [0, 1]


def test_best_of_gives_out_the_likeliest(llm: Llama) -> None:
    drawn = llm(PROMPTS[1], n=5, max_tokens=10, temperature=1.2, seed=8, logprobs=0)
    means = [np.mean(choice["logprobs"]["token_logprobs"]) for choice in drawn["choices"]]
    best = llm(PROMPTS[1], n=2, best_of=5, max_tokens=10, temperature=1.2, seed=8)
    order = np.argsort(means)[::-1]
    assert texts_of(best) == [texts_of(drawn)[i] for i in order[:2]]
    assert best["choices"][0]["logprobs"] is None
    assert best["usage"]["completion_tokens"] == 50
    with pytest.raises(InvalidArgumentError, match="best_of"):
        llm("a", n=1, best_of=2, stream=True)


@pytest.mark.parametrize("stream", [False, True])
def test_log_probs_name_tokens_and_where_they_begin(llm: Llama, stream: bool) -> None:
    prompt = "Smörgås 日本 is"
    options = {"max_tokens": 10, "temperature": 0.0, "logprobs": 2, "echo": True}
    if stream:
        chunks = [chunk["choices"][0] for chunk in llm(prompt, stream=True, **options)]
        text = "".join(chunk["text"] for chunk in chunks)
        found = {
            key: [item for chunk in chunks for item in chunk["logprobs"][key]]
            for key in ("tokens", "text_offset", "token_logprobs", "top_logprobs")
        }
    else:
        choice = llm(prompt, **options)["choices"][0]
        text, found = choice["text"], choice["logprobs"]
    assert text.startswith(prompt)
    n_prompt = len(llm.tokenize(prompt.encode(), special=True))
    assert {len(values) for values in found.values()} == {n_prompt + 10}
    assert found["token_logprobs"][0] is None
    assert found["top_logprobs"][0] is None
    whole = [i for i, token in enumerate(found["tokens"]) if "\ufffd" not in token]
    for i in whole:
        start = found["text_offset"][i]
        assert text[start : start + len(found["tokens"][i])] == found["tokens"][i]
    assert len(whole) < n_prompt + 10  # some characters take several tokens
    for chosen, top, token in zip(
        found["token_logprobs"][n_prompt:],
        found["top_logprobs"][n_prompt:],
        found["tokens"][n_prompt:],
        strict=True,
    ):
        assert top[token] == chosen == max(top.values())
        assert len(top) == 2
    assert all(-50 < p <= 0 for p in found["token_logprobs"][1:])


def test_log_probs_end_with_the_text(llm: Llama) -> None:
    plain = llm(PROMPTS[0], max_tokens=16, temperature=0.0)["choices"][0]["text"]
    stop = plain[len(plain) // 2 : len(plain) // 2 + 4]
    for stream in (False, True):
        result = llm(
            PROMPTS[0], max_tokens=16, temperature=0.0, stop=[stop], logprobs=1, stream=stream
        )
        choices = [c["choices"][0] for c in (result if stream else [result])]
        offsets = [o for choice in choices for o in choice["logprobs"]["text_offset"]]
        assert all(o < plain.index(stop) for o in offsets)
        assert "".join(choice["text"] for choice in choices) == plain[: plain.index(stop)]


def test_chats_have_log_probs_of_their_own_layout(llm: Llama) -> None:
    options = {"max_tokens": 6, "temperature": 0.0, "logprobs": True, "top_logprobs": 3}
    answer = llm.create_chat_completion(MESSAGES, **options)["choices"][0]
    content = answer["logprobs"]["content"]
    assert (
        b"".join(bytes(token["bytes"]) for token in content).decode()
        == answer["message"]["content"]
    )
    for token in content:
        assert len(token["top_logprobs"]) == 3
        assert token["top_logprobs"][0] == {
            key: token[key] for key in ("token", "bytes", "logprob")
        }
        total = sum(math.exp(other["logprob"]) for other in token["top_logprobs"])
        assert 0 < total <= 1 + 1e-5
    streamed = [
        token
        for chunk in llm.create_chat_completion(MESSAGES, stream=True, **options)
        for token in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert streamed == content


def test_a_suffix_ends_the_text(llm: Llama) -> None:
    plain = texts_of(llm(PROMPTS[0], max_tokens=4, temperature=0.0))
    assert texts_of(llm(PROMPTS[0], suffix="[END]", max_tokens=4, temperature=0.0)) == [
        plain[0] + "[END]"
    ]


def test_asyncio_evaluates_together(llm: Llama) -> None:
    alone = [llm(p, max_tokens=8, temperature=0.0)["choices"] for p in PROMPTS]

    async def all_of_them() -> None:
        calls = [llm.acreate_completion(p, max_tokens=8, temperature=0.0) for p in PROMPTS]
        assert [result["choices"] for result in await asyncio.gather(*calls)] == alone
        chunks = await llm.acreate_completion(
            PROMPTS[0], max_tokens=8, temperature=0.0, stream=True
        )
        text = "".join([chunk["choices"][0]["text"] async for chunk in chunks])
        assert text == alone[0][0]["text"]
        answer = await llm.acreate_chat_completion(MESSAGES, max_tokens=4, temperature=0.0)
        same = llm.create_chat_completion(MESSAGES, max_tokens=4, temperature=0.0)
        assert answer["choices"] == same["choices"]
        with pytest.raises(TypeError, match="n_gqa"):
            await llm.acreate_completion("a", n_gqa=1)

    asyncio.run(all_of_them())


def test_one_thread_serves_all_asyncio_calls(llm: Llama) -> None:
    async def many() -> int:
        calls = [llm.acreate_completion(p, max_tokens=6) for p in PROMPTS * 6]
        task = asyncio.ensure_future(asyncio.gather(*calls))
        most = 0
        while not task.done():
            most = max(most, threading.active_count())
            await asyncio.sleep(0.001)
        assert len(await task) == 18
        return most

    before = threading.active_count()
    assert asyncio.run(many()) == before + 1


def test_cancelling_a_task_ends_the_evaluation(llm: Llama) -> None:
    async def give_up() -> None:
        task = asyncio.create_task(
            llm.acreate_completion(PROMPTS[1], max_tokens=400, min_tokens=400)
        )
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    assert llm.n_tokens < 400
    assert llm(PROMPTS[0], max_tokens=1)["choices"]


def test_nothing_is_kept_for_a_loop_that_was_closed() -> None:
    """An event would keep its loop alive, and each asyncio.run has a new one."""
    loop, bell, event = asyncio.new_event_loop(), _Bell(), asyncio.Event()
    bell.ring(loop, event)
    loop.run_until_complete(event.wait())
    loop.close()
    bell.ring(loop, event)
    kept = weakref.ref(event)
    del event
    assert kept() is None


def test_a_stream_is_cancelled_from_another_thread(llm: Llama) -> None:
    stream = llm(PROMPTS[1], max_tokens=400, min_tokens=400, stream=True)
    next(stream)
    threading.Timer(0.1, stream.cancel).start()
    with pytest.raises(CancelledError):
        for _ in stream:
            pass
    stream.close()
    assert list(stream) == []


def test_the_caller_chooses_what_a_full_context_does(default_model) -> None:
    with Llama(str(default_model), n_ctx=48, verbose=False) as llm:
        options = {"max_tokens": 100, "temperature": 0.0, "ignore_eos": True}
        stopped = llm(PROMPTS[1], **options)
        assert stopped["choices"][0]["finish_reason"] == "length"
        assert stopped["usage"]["total_tokens"] == 48
        with pytest.raises(ContextFullError, match="48"):
            llm(PROMPTS[1], when_full="error", **options)
        shifted = llm(PROMPTS[1], when_full="shift", n_keep=4, **options)
        assert shifted["usage"]["completion_tokens"] == 100
        assert shifted["context_shifts"] > 0
        assert "context_shifts" not in stopped
        assert texts_of(shifted)[0].startswith(texts_of(stopped)[0])


def test_prompt_lookup_finds_what_followed() -> None:
    lookup = LlamaPromptLookupDecoding(max_ngram_size=3, num_pred_tokens=4)
    ids = np.array([1, 2, 3, 4, 5, 6, 9, 2, 3], dtype=np.intc)
    assert lookup(ids).tolist() == [4, 5, 6, 9]
    assert lookup(np.array([7, 8], dtype=np.intc)).tolist() == []
    # The latest place counts, and a longer match before a shorter one.
    assert lookup(np.array([1, 2, 5, 1, 2, 6, 3, 2, 7, 1, 2], dtype=np.intc)).tolist() == [
        6,
        3,
        2,
        7,
    ]
    with pytest.raises(InvalidArgumentError, match="num_pred_tokens"):
        LlamaPromptLookupDecoding(num_pred_tokens=0)


class Counted:
    def __init__(self, model: LlamaPromptLookupDecoding) -> None:
        self.model, self.n_calls = model, 0

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        self.n_calls += 1
        return self.model(ids)


def test_drafting_changes_no_text(default_model) -> None:
    prompt = "one two three four five six seven one two three four five six seven one two three"
    for options in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 4}):
        with Llama(str(default_model), n_ctx=128, verbose=False) as plain:
            expected = texts_of(plain(prompt, max_tokens=40, **options))
        draft = Counted(LlamaPromptLookupDecoding())
        with Llama(str(default_model), n_ctx=128, verbose=False, draft_model=draft) as drafting:
            assert texts_of(drafting(prompt, max_tokens=40, **options)) == expected
        if options["temperature"] == 0:
            assert draft.n_calls < 25  # it repeats itself


def test_a_draft_model_that_is_wrong_is_left_alone() -> None:
    calls: list[int] = []

    def wrong(ids: np.ndarray) -> np.ndarray:
        calls.append(len(ids))
        return np.array([7, 7, 7])

    guesser = Guesser(wrong)
    for n in range(1, 400):
        guesser.guess([1] * n)
    assert len(calls) < 40
    with pytest.raises(InvalidArgumentError, match="draft_model"):
        Guesser(lambda _: np.array([0.5])).guess([1])


def test_a_time_limit_ends_the_text(llm: Llama) -> None:
    options = {"max_tokens": 12, "temperature": 0.0, "when_full": "error"}
    whole = llm(PROMPTS[0], **options)["choices"][0]
    assert llm(PROMPTS[0], time_limit=1e6, **options)["choices"][0] == whole
    # The first token comes in any case, and then the limit is over.
    cut = llm(PROMPTS[0], time_limit=0, stop=["never found"], **options)
    assert cut["usage"]["completion_tokens"] == 1
    assert cut["choices"][0]["finish_reason"] == "length"
    assert whole["text"].startswith(cut["choices"][0]["text"])
    for wrong in (-1.0, float("nan"), "1"):
        with pytest.raises(InvalidArgumentError, match="time_limit"):
            llm(PROMPTS[0], time_limit=wrong, **options)
