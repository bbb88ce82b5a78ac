"""A model that thinks, through the official clients."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import anthropic
import openai
import pytest

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "oracle"))
from asking import KEY, anthropic_client, openai_client, post
from thinking_model import write_thinking_model

SAID = [{"role": "user", "content": "hi"}]
N_MARK = 1 + 3  # tokens of <think>: its own, and the bytes of the space before the text after it


@pytest.fixture(scope="module")
def thinker(start_server, tmp_path_factory) -> Iterator[str]:
    model = write_thinking_model(tmp_path_factory.mktemp("thinker") / "thinker.gguf")
    with start_server("-m", str(model), "--api-key", KEY, "-c", "512") as (address, _):
        yield address


@pytest.fixture(scope="module")
def client(thinker: str) -> Iterator[openai.OpenAI]:
    with openai_client(thinker) as found:
        yield found


@pytest.fixture(scope="module")
def claude(thinker: str) -> Iterator[anthropic.Anthropic]:
    with anthropic_client(thinker) as found:
        yield found


def prompt(address: str, **more: object) -> str:
    body = json.dumps({"messages": SAID, **more}).encode()
    return post(address, "/apply-template", body)[1]["prompt"]


def test_chats(client) -> None:
    asked = {"model": "thinker", "messages": SAID, "temperature": 0, "max_tokens": 24}
    limited = {**asked, "extra_body": {"thinking_budget_tokens": 8}}
    message = client.chat.completions.create(**limited).choices[0].message
    assert (len(message.reasoning_content), len(message.content)) == (8, 15)
    with client.chat.completions.create(stream=True, **limited) as chunks:
        deltas = [chunk.choices[0].delta for chunk in chunks]
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thought == message.reasoning_content
    assert "".join(delta.content or "" for delta in deltas) == message.content

    for off in (
        {"reasoning_effort": "none"},
        {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
    ):
        found = client.chat.completions.create(**asked, **off).choices[0].message
        assert (len(found.content), hasattr(found, "reasoning_content")) == (24, False)
    plain = {**asked, "extra_body": {**limited["extra_body"], "reasoning_format": "none"}}
    found = client.chat.completions.create(**plain).choices[0].message
    assert found.content == message.reasoning_content + message.content

    with pytest.raises(openai.BadRequestError, match="not supported beside response_format"):
        client.chat.completions.create(
            **asked, reasoning_effort="high", response_format={"type": "json_object"}
        )


def test_templates(thinker: str) -> None:
    assert prompt(thinker) == "<|user|>hi<|assistant|><think>\n"
    assert prompt(thinker, reasoning_effort="high") == "<|user|>hi[high]<|assistant|><think>\n"
    off = prompt(thinker, chat_template_kwargs={"enable_thinking": False})
    assert off == "<|user|>hi<|assistant|><think>\n\n</think>\n\n"


def test_responses(client) -> None:
    asked = {"model": "thinker", "input": "hi", "temperature": 0, "max_output_tokens": 24}
    asked |= {"extra_body": {"thinking_budget_tokens": 8}, "reasoning": {"effort": "high"}}
    answer = client.responses.create(**asked)
    thought, message = answer.output
    assert (thought.type, len(thought.content[0].text)) == ("reasoning", 8)
    assert (message.type, len(answer.output_text)) == ("message", 15)
    assert answer.usage.output_tokens_details.reasoning_tokens == 8
    with client.responses.create(stream=True, **asked) as events:
        found = list(events)
    for kind, text in (
        ("response.reasoning_text.delta", thought.content[0].text),
        ("response.output_text.delta", answer.output_text),
    ):
        assert "".join(event.delta for event in found if event.type == kind) == text
    added = [e.output_index for e in found if e.type == "response.output_item.added"]
    done = [e.item.type for e in found if e.type == "response.output_item.done"]
    assert (added, done) == ([0, 1], ["reasoning", "message"])
    with client.responses.stream(**asked) as stream:  # which puts the pieces together itself
        assert [event.type for event in stream] == [event.type for event in found]

    # What came back may be sent again; the template writes the thought before its answer.
    given = [*SAID, *(item.model_dump(exclude_none=True) for item in answer.output), *SAID]
    again = client.responses.create(
        model="thinker", input=given, max_output_tokens=2, reasoning={"effort": "none"}
    )
    n_off = len("\n") + N_MARK + len("\n\n")
    n_said = len("<|assistant|>") + 2 * N_MARK + 8 + 15 + len("<|user|>hi")
    assert again.usage.input_tokens == answer.usage.input_tokens + n_said + n_off
    assert (again.output[0].type, len(again.output_text)) == ("message", 2)


def test_messages(claude) -> None:
    asked = {"model": "thinker", "max_tokens": 24, "extra_body": {"temperature": 0}}
    asked |= {"messages": SAID, "thinking": {"type": "enabled", "budget_tokens": 8}}
    answer = claude.messages.create(**asked)
    thought, text = answer.content
    assert (thought.type, len(thought.thinking)) == ("thinking", 8)
    assert (text.type, len(text.text)) == ("text", 15)
    with claude.messages.stream(**asked) as stream:
        again = stream.get_final_message().content
    assert (again[0], again[1].text) == (thought, text.text)

    for thinking in (anthropic.omit, {"type": "disabled"}):
        (text,) = claude.messages.create(**{**asked, "thinking": thinking}).content
        assert (text.type, len(text.text)) == ("text", 24)
    (thought,) = claude.messages.create(**{**asked, "thinking": {"type": "adaptive"}}).content
    assert (thought.type, len(thought.thinking)) == ("thinking", 24)
    with pytest.raises(anthropic.BadRequestError, match="budget_tokens is given with type"):
        claude.messages.create(**{**asked, "thinking": {"type": "enabled"}})

    said = [*SAID, {"role": "assistant", "content": answer.model_dump()["content"]}, *SAID]
    counted = [
        claude.messages.count_tokens(model="thinker", messages=messages, thinking=thinking)
        for messages, thinking in ((SAID, asked["thinking"]), (said, asked["thinking"]))
    ]
    n_said = len("<|assistant|>") + 2 * N_MARK + 8 + 15 + len("<|user|>hi")
    assert counted[1].input_tokens == counted[0].input_tokens + n_said
    assert counted[0].input_tokens == answer.usage.input_tokens
