"""create_chat_completion with tools and handlers, on answers that the test dictates."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "oracle")]
from tiny_model import TinyModel
from tool_templates import LLAMA_31, TEMPLATES, mistral

from pyllamacpp import Llama
from pyllamacpp.errors import InvalidArgumentError
from pyllamacpp.llama_chat_format import (
    ChatFormatterResponse,
    Jinja2ChatFormatter,
    chat_formatter_to_chat_completion_handler,
)

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
QUESTION = [{"role": "user", "content": "Is it raining in Paris?"}]
PARIS = '{"city": "Paris"}'
CALL = f'<tool_call>\n{{"name": "get_weather", "arguments": {PARIS}}}\n</tool_call>'


def dictated(llm: Llama, answer: str | list[int]) -> Any:
    """A logits processor that lets one answer only."""
    if isinstance(answer, str):
        answer = llm.tokenize(answer.encode(), add_bos=False)
    left = iter([*answer, llm.token_eos()])

    def process(_ids: object, logits: np.ndarray) -> np.ndarray:
        only = np.full_like(logits, -np.inf)
        only[next(left)] = 0
        return only

    return process


def whole(llm: Llama, text: str | list[int], **options) -> dict:
    options = {"messages": QUESTION, "tools": [WEATHER], **options}
    answer = llm.create_chat_completion(logits_processor=dictated(llm, text), **options)
    (choice,) = answer["choices"]
    return choice


def streamed(llm: Llama, text: str, **options) -> list[dict]:
    options = {"messages": QUESTION, "tools": [WEATHER], "stream": True, **options}
    chunks = llm.create_chat_completion(logits_processor=dictated(llm, text), **options)
    return [choice for chunk in chunks for choice in chunk["choices"]]


def test_a_call(llm: Llama) -> None:
    choice = whole(llm, CALL)
    assert choice["finish_reason"] == "tool_calls"
    message = choice["message"]
    assert message["role"] == "assistant"
    assert message["content"] is None
    (call,) = message["tool_calls"]
    assert call["type"] == "function"
    assert call["function"] == {"name": "get_weather", "arguments": PARIS}
    # The message goes back as it is, with what the call gave.
    result = {"role": "tool", "tool_call_id": call["id"], "content": "It rains."}
    messages = [*QUESTION, message, result]
    answer = whole(llm, "Yes.", messages=messages)
    assert answer["message"] == {"role": "assistant", "content": "Yes."}
    assert answer["finish_reason"] == "stop"


def test_several_calls_and_text(llm: Llama) -> None:
    message = whole(llm, f"Let me look.\n{CALL}\n{CALL}")["message"]
    assert message["content"] == "Let me look."
    assert [call["function"]["arguments"] for call in message["tool_calls"]] == [PARIS, PARIS]
    assert len({call["id"] for call in message["tool_calls"]}) == 2


def test_one_call_where_no_more_are_wanted(llm: Llama) -> None:
    text, options = f"Let me look.\n{CALL}\n{CALL}", {"parallel_tool_calls": False}
    choice = whole(llm, text, **options)
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["arguments"] == PARIS
    assert choice["finish_reason"] == "tool_calls"
    deltas = [choice["delta"] for choice in streamed(llm, text, **options)]
    pieces = [piece for delta in deltas for piece in delta.get("tool_calls", ())]
    assert {piece["index"] for piece in pieces} == {0}
    assert "".join(piece["function"]["arguments"] for piece in pieces) == PARIS


def test_a_stream_of_calls(llm: Llama) -> None:
    choices = streamed(llm, f"Let me look.\n{CALL}\n{CALL}")
    deltas = [choice["delta"] for choice in choices]
    assert deltas[0] == {"role": "assistant"}
    assert deltas[-1] == {}
    assert "".join(delta.get("content", "") for delta in deltas) == "Let me look."
    reasons = [choice["finish_reason"] for choice in choices]
    assert reasons == [None] * (len(choices) - 1) + ["tool_calls"]
    pieces = [piece for delta in deltas for piece in delta.get("tool_calls", ())]
    for index in (0, 1):
        first, *others = [piece for piece in pieces if piece["index"] == index]
        assert first["type"] == "function"
        assert first["function"]["name"] == "get_weather"
        assert len(first["id"]) == 9
        assert len(others) > 1  # the arguments come in pieces
        assert all(piece.keys() == {"index", "function"} for piece in others)
        arguments = "".join(piece["function"]["arguments"] for piece in [first, *others])
        assert arguments == PARIS


def test_without_tools_a_call_is_text(llm: Llama) -> None:
    for options in ({"tools": None}, {"tool_choice": "none"}):
        choice = whole(llm, CALL, **options)
        assert choice["message"] == {"role": "assistant", "content": CALL}
        assert choice["finish_reason"] == "stop"


def test_a_call_that_is_cut_off(llm: Llama) -> None:
    n_tokens = len(llm.tokenize(CALL.split("Paris")[0].encode(), add_bos=False))
    choice = whole(llm, CALL, max_tokens=n_tokens)
    assert choice["finish_reason"] == "length"
    (call,) = choice["message"]["tool_calls"]
    assert PARIS.startswith(call["function"]["arguments"])


def test_the_older_form(llm: Llama) -> None:
    options = {"tools": None, "functions": [WEATHER["function"]], "function_call": "auto"}
    choice = whole(llm, CALL, **options)
    assert choice["finish_reason"] == "function_call"
    message = choice["message"]
    assert message == {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "get_weather", "arguments": PARIS},
    }
    deltas = [choice["delta"] for choice in streamed(llm, CALL, **options)]
    pieces = [delta["function_call"] for delta in deltas if "function_call" in delta]
    assert pieces[0]["name"] == "get_weather"
    assert "".join(piece["arguments"] for piece in pieces) == PARIS
    result = {"role": "function", "name": "get_weather", "content": "It rains."}
    answer = whole(llm, "Yes.", messages=[*QUESTION, message, result], **options)
    assert answer["message"]["content"] == "Yes."


def test_the_older_form_has_place_for_one_call(llm: Llama, caplog) -> None:
    options = {"tools": None, "functions": [WEATHER["function"]]}
    with caplog.at_level("WARNING", "pyllamacpp"):
        message = whole(llm, CALL + CALL, **options)["message"]
    assert message["function_call"]["arguments"] == PARIS
    assert "calls get_weather too, which function_call has no place for" in caplog.text


def test_log_probabilities_of_calls(llm: Llama) -> None:
    """Every token's, with the text and calls of a whole answer and of a stream."""
    options = {"logprobs": True, "top_logprobs": 1}
    found = whole(llm, "See.\n" + CALL, **options)["logprobs"]["content"]
    assert b"".join(bytes(t["bytes"]) for t in found).decode() == "See.\n" + CALL
    choices = streamed(llm, "See.\n" + CALL, **options)
    in_chunks = [t for c in choices if c["logprobs"] for t in c["logprobs"]["content"]]
    assert in_chunks == found


def test_asyncio(llm: Llama) -> None:
    options = {"tools": [WEATHER], "messages": QUESTION}

    async def answers() -> tuple[Any, list[Any]]:
        answer = await llm.acreate_chat_completion(logits_processor=dictated(llm, CALL), **options)
        stream = await llm.acreate_chat_completion(
            logits_processor=dictated(llm, CALL), stream=True, **options
        )
        return answer, [chunk async for chunk in stream]

    answer, chunks = asyncio.run(answers())
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["arguments"] == PARIS
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_what_is_no_tool_is_named(llm: Llama) -> None:
    with pytest.raises(InvalidArgumentError, match="1 to 64 letters"):
        whole(llm, "x", tools=[{"type": "function", "function": {"name": ""}}])
    with pytest.raises(InvalidArgumentError, match="response_format must be"):
        whole(llm, "x", response_format={"type": "yaml"})


# -- families whose marks are control tokens -------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "markers", "texts"),
    [
        (
            mistral("v3"),
            ("[TOOL_CALLS]", "[INST]", "[/INST]"),
            ("[TOOL_CALLS]", f'[{{"name": "get_weather", "arguments": {PARIS}}}]'),
        ),
        (
            mistral("v11"),
            ("[TOOL_CALLS]", "[ARGS]"),
            ("[TOOL_CALLS]", "get_weather", "[ARGS]", PARIS),
        ),
        (LLAMA_31, ("<|python_tag|>",), (f'{{"name": "get_weather", "parameters": {PARIS}}}',)),
        (
            LLAMA_31,
            ("<|python_tag|>",),
            ("<|python_tag|>", f'{{"name": "get_weather", "parameters": {PARIS}}}'),
        ),
    ],
)
def test_marks_that_are_control_tokens(template, markers, texts, tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    TinyModel(chat_template=template, control_tokens=markers).write(path)
    ids: list[int] = []
    for text in texts:
        # The tiny vocabulary: three tokens, the bytes, the control tokens.
        is_marker = text in markers
        ids += [259 + markers.index(text)] if is_marker else [3 + byte for byte in text.encode()]
    with Llama(str(path), n_ctx=2048, verbose=False) as llm:
        choice = whole(llm, ids)
        assert choice["finish_reason"] == "tool_calls"
        (call,) = choice["message"]["tool_calls"]
        assert call["function"] == {"name": "get_weather", "arguments": PARIS}
        # Without tools these tokens have no text, as ever.
        content = whole(llm, ids, tools=None)["message"]["content"]
        assert not any(marker in content for marker in markers)
        assert "Paris" in content


SWITCH = {
    "type": "function",
    "function": {
        "name": "switch",
        "parameters": {
            "type": "object",
            "properties": {"on": {"type": "boolean"}},
            "required": ["on"],
            "additionalProperties": False,
        },
    },
}
ALL_MARKERS = ("[TOOL_CALLS]", "[ARGS]", "<tool_call>", "</tool_call>", "<|python_tag|>")


@pytest.mark.parametrize("has_tokens", [True, False])
@pytest.mark.parametrize("name", ["qwen", "llama-3.1", "mistral-v3", "mistral-v11", None])
def test_a_call_that_is_required(name: str | None, has_tokens: bool, tmp_path: Path) -> None:
    """A random model has to make it, in every family and in words."""
    path = tmp_path / "tiny.gguf"
    template = TEMPLATES[name] if name else "{{ messages[-1].content }}"
    control_tokens = ALL_MARKERS if has_tokens else ("<|unused|>",)
    TinyModel(chat_template=template, control_tokens=control_tokens).write(path)
    choice_of_one = {"type": "function", "function": {"name": "switch"}}
    options = {"tools": [WEATHER, SWITCH], "tool_choice": choice_of_one, "max_tokens": 200}
    with Llama(str(path), n_ctx=2048, seed=1, verbose=False) as llm:
        answer = llm.create_chat_completion(QUESTION, **options)["choices"][0]
        chunks = list(llm.create_chat_completion(QUESTION, stream=True, **options))
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"]["content"] is None
    (call,) = answer["message"]["tool_calls"]
    assert call["function"]["name"] == "switch"
    assert call["function"]["arguments"] in ('{"on": true}', '{"on": false}')
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    pieces = [piece for delta in deltas for piece in delta.get("tool_calls", ())]
    arguments = "".join(piece["function"]["arguments"] for piece in pieces)
    assert arguments in ('{"on": true}', '{"on": false}')
    assert not any("content" in delta for delta in deltas)


def test_a_form_of_the_answer_beside_tools(llm: Llama) -> None:
    """The answer is in the form, or a call."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    response_format = {
        "type": "json_schema",
        "json_schema": {"name": "ok", "schema": {**schema, "additionalProperties": False}},
    }
    options = {"messages": QUESTION, "tools": [SWITCH], "response_format": response_format}
    for seed in range(3):
        answer = llm.create_chat_completion(seed=seed, temperature=2.0, top_k=0, **options)
        (choice,) = answer["choices"]
        if choice["finish_reason"] == "tool_calls":
            assert choice["message"]["tool_calls"][0]["function"]["name"] == "switch"
        else:
            assert json.loads(choice["message"]["content"]).keys() == {"ok"}


# -- handlers --------------------------------------------------------------------------------------


def answering(*, llama: Llama, messages: list[Any], **options: Any) -> Any:
    """A handler that answers by itself."""
    assert options["temperature"] == 0.5
    assert options["tools"] == [WEATHER]
    chunks: Iterator[Any] = iter([messages[-1]["content"], llama.model_path])
    return chunks if options["stream"] else list(chunks)


def test_a_handler_that_answers_by_itself(default_model: Path) -> None:
    path = str(default_model)
    expected = [QUESTION[0]["content"], path]
    options = {"messages": QUESTION, "tools": [WEATHER], "temperature": 0.5}
    with Llama(path, n_ctx=64, chat_handler=answering, verbose=False) as llm:
        assert llm.create_chat_completion(**options) == expected
        assert list(llm.create_chat_completion(stream=True, **options)) == expected

        async def answers() -> tuple[Any, list[Any]]:
            stream = await llm.acreate_chat_completion(stream=True, **options)
            return await llm.acreate_chat_completion(**options), [item async for item in stream]

        assert asyncio.run(answers()) == (expected, expected)


def test_a_formatter_for_one_call(llm: Llama) -> None:
    template = "{{ messages[0].content }}"
    prompt = QUESTION[0]["content"]
    expected = llm(prompt, max_tokens=4, temperature=0.0)["choices"][0]["text"]
    handler = Jinja2ChatFormatter(template, eos_token="", bos_token="").to_chat_handler()
    answer = handler(llama=llm, messages=QUESTION, max_tokens=4, temperature=0.0)
    assert answer["choices"][0]["message"]["content"] == expected
    chunks = handler(llama=llm, messages=QUESTION, max_tokens=4, temperature=0.0, stream=True)
    texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(texts) == expected


def test_what_ends_an_answer_of_a_formatter(default_model: Path) -> None:
    def formatted(messages: list[Any], **_: Any) -> ChatFormatterResponse:
        def is_enough(ids: np.ndarray, _logits: object) -> bool:
            return len(ids) >= n_prompt + 3

        text = messages[0]["content"]
        n_prompt = len(llm.tokenize(text.encode(), special=True))
        return ChatFormatterResponse(text, stop="two", stopping_criteria=is_enough)

    handler = chat_formatter_to_chat_completion_handler(formatted)
    with Llama(str(default_model), n_ctx=128, chat_handler=handler, verbose=False) as llm:
        choice = whole(llm, "one two three", tools=None)
        assert choice["message"]["content"] == "one "
        assert choice["finish_reason"] == "stop"
        answer = llm.create_chat_completion(QUESTION, temperature=0.0)
        assert answer["usage"]["completion_tokens"] == 3
