"""Anthropic's client, OpenAI's responses, and the paths of other servers."""

import json
import sys
import urllib.request
from pathlib import Path

import anthropic
import openai
import pytest

sys.path.append(str(Path(__file__).parent))
from asking import anthropic_client

MODEL = "smollm2-135m"
QUESTION = "Name the capital of France."


@pytest.fixture(scope="module")
def claude(address: str):
    with anthropic_client(address) as found:
        yield found


def ask(address: str, path: str, body: dict | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": "Bearer a-secret"}
    with urllib.request.urlopen(urllib.request.Request(address + path, data, headers)) as found:
        return found.read()


def test_responses_and_their_stream_are_the_same(client) -> None:
    asked = {"model": MODEL, "input": QUESTION, "temperature": 0, "max_output_tokens": 12}
    answer = client.responses.create(**asked)
    assert "Paris" in answer.output_text
    assert answer.status == "completed"
    text = ""
    with client.responses.create(stream=True, **asked) as events:
        found = list(events)
    text = "".join(e.delta for e in found if e.type == "response.output_text.delta")
    assert text == answer.output_text == found[-1].response.output_text
    assert [e.sequence_number for e in found] == list(range(len(found)))
    assert found[-1].response.usage.output_tokens == answer.usage.output_tokens


def test_responses_that_ask_for_nothing_special(client) -> None:
    asked = {"model": MODEL, "input": QUESTION, "temperature": 0, "max_output_tokens": 12}
    special = {"service_tier": "auto", "include": [], "background": False, "store": False}
    special |= {"text": {"verbosity": "medium"}, "reasoning": {"effort": "none"}}
    found = client.responses.create(**asked, **special)
    assert found.output_text == client.responses.create(**asked).output_text
    for more, name in (
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"reasoning": {"effort": "low"}}, "reasoning_effort='low' is not supported"),
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(**asked, **more)
        assert name in refused.value.body["message"]


def test_responses_call_tools(client, city_schema) -> None:
    tool = {"type": "function", "name": "weather", "parameters": city_schema}
    asked = {"model": MODEL, "input": QUESTION, "tools": [tool], "max_output_tokens": 60}
    asked["tool_choice"] = {"type": "function", "name": "weather"}
    with client.responses.stream(**asked) as stream:
        answer = stream.get_final_response()
    (call,) = answer.output
    assert (call.type, call.name, list(json.loads(call.arguments))) == (
        "function_call", "weather", ["city"],
    )  # fmt: skip
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    given = [{"role": "user", "content": QUESTION}, call.model_dump(), result]
    again = client.responses.create(model=MODEL, input=given, max_output_tokens=2)
    assert again.output_text


def test_messages_and_their_stream_are_the_same(claude) -> None:
    asked = {
        "model": MODEL,
        "max_tokens": 12,
        "extra_body": {"temperature": 0},
        "messages": [{"role": "user", "content": QUESTION}],
    }
    answer = claude.messages.create(**asked)
    assert "Paris" in answer.content[0].text
    assert answer.stop_reason == "end_turn"
    with claude.messages.stream(**asked) as stream:
        again = stream.get_final_message()
    assert again.content[0].text == answer.content[0].text
    assert again.usage.output_tokens == answer.usage.output_tokens
    counted = claude.messages.count_tokens(model=MODEL, messages=asked["messages"])
    assert counted.input_tokens == answer.usage.input_tokens
    stopped = claude.messages.create(**asked, stop_sequences=["zebra", " is", "Paris"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " is")
    ended = claude.messages.create(**asked, stop_sequences=["zebra"])
    assert (ended.stop_reason, ended.stop_sequence) == ("end_turn", None)


def test_messages_that_ask_for_nothing_special(claude) -> None:
    asked = {"model": MODEL, "max_tokens": 12, "extra_body": {"temperature": 0}}
    asked["messages"] = [{"role": "user", "content": QUESTION}]
    plain = claude.messages.create(**asked)
    for more in (
        {"thinking": {"type": "disabled"}, "service_tier": "auto"},
        {"thinking": {"type": "adaptive"}, "service_tier": "standard_only"},
    ):
        assert claude.messages.create(**asked, **more).content == plain.content
    with pytest.raises(anthropic.BadRequestError, match="thinking is not supported: the model's"):
        claude.messages.create(**asked, thinking={"type": "enabled", "budget_tokens": 1024})


def test_messages_use_tools(claude, city_schema) -> None:
    said = [{"role": "user", "content": QUESTION}]
    asked = {
        "model": MODEL,
        "max_tokens": 60,
        "tools": [{"name": "weather", "input_schema": city_schema}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    }
    with claude.messages.stream(messages=said, **asked) as stream:
        answer = stream.get_final_message()
    (use,) = answer.content
    assert (use.type, use.name, list(use.input)) == ("tool_use", "weather", ["city"])
    assert answer.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "rain"}
    said += [
        {"role": "assistant", "content": [use.model_dump(include={"type", "id", "name", "input"})]},
        {"role": "user", "content": [result]},
    ]
    assert claude.messages.create(messages=said, model=MODEL, max_tokens=2).content


def test_errors_have_anthropics_form(claude) -> None:
    with pytest.raises(anthropic.NotFoundError) as found:
        claude.messages.create(
            model="another", max_tokens=1, messages=[{"role": "user", "content": "a"}]
        )
    assert found.value.body["error"]["type"] == "not_found_error"


def test_tokens_by_both_names(address: str) -> None:
    tokens = json.loads(ask(address, "/tokenize", {"content": "Hello world"}))["tokens"]
    assert json.loads(ask(address, "/detokenize", {"tokens": tokens})) == {"content": "Hello world"}
    extras = json.loads(ask(address, "/extras/tokenize", {"input": "Hello world"}))["tokens"]
    counted = json.loads(ask(address, "/extras/tokenize/count", {"input": "Hello world"}))
    assert counted == {"count": len(extras)}
    text = json.loads(ask(address, "/extras/detokenize", {"tokens": extras}))["text"]
    assert text.strip() == "Hello world"


def test_a_template_is_applied(address: str) -> None:
    said = {"messages": [{"role": "user", "content": "Hi"}]}
    prompt = json.loads(ask(address, "/apply-template", said))["prompt"]
    assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_state_is_told(address: str) -> None:
    assert json.loads(ask(address, "/props"))["n_ctx"] == 512
    assert json.loads(ask(address, f"/v1/models/{MODEL}"))["id"] == MODEL
    found = ask(address, "/metrics").decode()
    assert "pyllamacpp_generated_tokens_total" in found
    # As many counts as there are paths, however many names requests have.
    assert 'pyllamacpp_requests_total{path="/v1/models/{name}",status="200"}' in found
    assert f"/v1/models/{MODEL}" not in found
    assert json.loads(ask(address, "/health")) == {"status": "ok"}
