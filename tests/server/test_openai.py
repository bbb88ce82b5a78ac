"""The official client against a real server."""

import json

import openai
import pytest

QUESTION = [{"role": "user", "content": "Name the capital of France."}]


def test_a_chat_and_its_stream_are_the_same(client) -> None:
    model = client.models.list().data[0].id
    asked = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 12}
    answer = client.chat.completions.create(**asked)
    text = answer.choices[0].message.content
    assert "Paris" in text
    with client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert chunks[-1].usage == answer.usage
    assert chunks[-2].choices[0].finish_reason == answer.choices[0].finish_reason


def test_one_model(client) -> None:
    (listed,) = client.models.list().data
    assert client.models.retrieve(listed.id) == listed
    for name in ("gpt-4", "a/b"):
        with pytest.raises(openai.NotFoundError) as found:
            client.models.retrieve(name)
        assert found.value.code == "model_not_found"


def test_null_is_not_given(client) -> None:
    asked = {"model": "smollm2-135m", "messages": QUESTION, "max_tokens": 4, "seed": 1}
    nothing = ("temperature", "top_p", "n", "stop", "frequency_penalty", "logit_bias", "stream")
    nothing += ("presence_penalty", "response_format", "tools", "user", "logprobs", "top_logprobs")
    given = client.chat.completions.create(**asked, **dict.fromkeys(nothing))
    assert given.choices == client.chat.completions.create(**asked).choices
    with pytest.raises(openai.BadRequestError) as found:
        client.chat.completions.create(**{**asked, "messages": None})
    assert found.value.code == "missing_required_parameter"


def test_completions_of_several_prompts(client) -> None:
    asked = {"model": "smollm2-135m", "max_tokens": 3, "seed": 5, "n": 2, "logprobs": 1}
    prompts = ["The capital of France is", "Once upon a"]
    both = client.completions.create(prompt=prompts, **asked)
    assert [c.index for c in both.choices] == [0, 1, 2, 3]
    assert all(1 <= len(c.logprobs.tokens) <= 3 for c in both.choices)
    with client.completions.create(prompt=prompts, stream=True, **asked) as stream:
        texts = [""] * 4
        for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [c.text for c in both.choices]


def test_ignore_eos_and_stop(client) -> None:
    asked = {"model": "smollm2-135m", "temperature": 0}
    message = client.chat.completions.create(
        messages=QUESTION, max_tokens=24, extra_body={"ignore_eos": True}, **asked
    )
    assert message.usage.completion_tokens == 24
    message = client.chat.completions.create(messages=QUESTION, stop=[" is"], **asked)
    assert message.choices[0].message.content == "The capital of France"


def test_sampling_that_openai_has_not(client) -> None:
    asked = {"model": "smollm2-135m", "messages": QUESTION, "max_tokens": 12, "seed": 5}

    def text(temperature: float = 1.0, **more: object) -> str:
        answer = client.chat.completions.create(**asked, temperature=temperature, extra_body=more)
        return answer.choices[0].message.content

    assert "Paris" in text(top_k=1)
    assert "Paris" not in text(top_k=1, banned_strings=["Paris"])
    for temperature, more in ((1.0, {"adaptive_target": 0.2}), (3.0, {"tfs_z": 0.1})):
        found = text(temperature, **more)
        assert found == text(temperature, **more) != text(temperature)
    with pytest.raises(openai.BadRequestError, match="adaptive_target is 2"):
        text(adaptive_target=2.0)


def test_what_asks_for_nothing_special(client) -> None:
    asked = {"model": "smollm2-135m", "messages": QUESTION, "max_tokens": 4, "seed": 1}
    plain = client.chat.completions.create(**asked)
    for more in (
        {"service_tier": "auto", "reasoning_effort": "none", "verbosity": "medium"},
        {"service_tier": "default", "modalities": ["text"], "prompt_cache_key": "a"},
        {"safety_identifier": "a", "user": "b", "metadata": {"c": "d"}, "store": False},
    ):
        assert client.chat.completions.create(**asked, **more).choices == plain.choices
    for more, sentence in (
        ({"service_tier": "flex"}, "service_tier: Input should be 'auto' or 'default'"),
        ({"reasoning_effort": "low"}, "reasoning_effort='low' is not supported: the model's chat"),
        ({"reasoning_effort": "much"}, "reasoning_effort: Input should be 'none'"),
        ({"verbosity": "low"}, "verbosity: Input should be 'medium'"),
    ):
        with pytest.raises(openai.BadRequestError) as found:
            client.chat.completions.create(**asked, **more)
        assert sentence in found.value.body["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_that_must_be_called(client, city_schema, stream: bool) -> None:
    weather = {"name": "weather", "description": "The weather of a city."}
    tool = {"type": "function", "function": {**weather, "parameters": city_schema}}
    asked = {
        "model": "smollm2-135m",
        "messages": QUESTION,
        "tools": [tool],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 60,
    }
    if stream:
        name, arguments = "", ""
        with client.chat.completions.create(stream=True, **asked) as chunks:
            for chunk in chunks:
                for call in chunk.choices[0].delta.tool_calls or ():
                    name += call.function.name or ""
                    arguments += call.function.arguments
    else:
        answer = client.chat.completions.create(**asked)
        assert answer.choices[0].finish_reason == "tool_calls"
        (call,) = answer.choices[0].message.tool_calls
        name, arguments = call.function.name, call.function.arguments
    assert name == "weather"
    assert list(json.loads(arguments)) == ["city"]


def test_an_answer_in_a_schema(client) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    answer = client.chat.completions.create(
        model="smollm2-135m",
        messages=QUESTION,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": {**schema, "additionalProperties": False}},
        },
        max_tokens=60,
    )
    assert json.loads(answer.choices[0].message.content)["a"] in (1, 2)


def test_embeddings_in_both_encodings(client) -> None:
    # The client asks for base64 unless told otherwise.
    packed = client.embeddings.create(model="smollm2-135m", input=["A cat.", "A dog."])
    plain = client.embeddings.create(model="smollm2-135m", input="A dog.", encoding_format="float")
    assert packed.data[1].embedding == pytest.approx(plain.data[0].embedding)
    assert sum(x * x for x in plain.data[0].embedding) == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "model_not_found"),
        ({"max_tokens": 0}, openai.BadRequestError, "invalid_value"),
        ({"extra_body": {"colour": 1}}, openai.BadRequestError, "unknown_parameter"),
        ({"messages": [{"role": "user", "content": "x " * 600}]}, openai.BadRequestError,
         "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": 7}]}, openai.BadRequestError, None),
        ({"extra_body": {"top_k": 1 << 40}}, openai.BadRequestError, "invalid_value"),
        ({"n": 100}, openai.BadRequestError, None),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {
            "type": "nonsense"}}}}, openai.BadRequestError, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_poisoned_requests_fail_alone(client, change, error, code, stream: bool) -> None:
    asked = {"model": "smollm2-135m", "messages": QUESTION, "max_tokens": 2, "stream": stream}
    with pytest.raises(error) as found:
        client.chat.completions.create(**{**asked, **change})
    assert found.value.code == code
    assert client.chat.completions.create(**{**asked, "stream": False}).usage.completion_tokens


def test_a_wrong_key_is_refused(client) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="another").models.list()
