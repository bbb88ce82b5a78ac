"""create_chat_completion."""

import pytest

from pyllamacpp import Llama
from pyllamacpp.errors import InvalidArgumentError, UnsupportedError

QUESTION = [{"role": "user", "content": "Name the capital city of France."}]


def test_answer_has_the_shape_of_openai(llm: Llama) -> None:
    result = llm.create_chat_completion(QUESTION, temperature=0.0)
    assert set(result) == {"id", "object", "created", "model", "choices", "usage"}
    assert result["id"].startswith("chatcmpl-")
    assert result["object"] == "chat.completion"
    (choice,) = result["choices"]
    assert choice["message"]["role"] == "assistant"
    assert "Paris" in choice["message"]["content"]
    assert choice["finish_reason"] == "stop"
    assert choice["index"] == 0
    usage = result["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_stream_begins_with_the_role(llm: Llama) -> None:
    whole = llm.create_chat_completion(QUESTION, temperature=0.0)
    chunks = list(llm.create_chat_completion(QUESTION, temperature=0.0, stream=True))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant"}
    assert deltas[-1] == {}
    text = "".join(delta["content"] for delta in deltas[1:-1])
    assert text == whole["choices"][0]["message"]["content"]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]


def test_prompt_is_the_files_template(llm: Llama) -> None:
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    prompt = (
        f"<|im_start|>system\n{system}<|im_end|>\n"
        "<|im_start|>user\nName the capital city of France.<|im_end|>\n<|im_start|>assistant\n"
    )
    raw = llm(prompt, max_tokens=None, temperature=0.0)
    chat = llm.create_chat_completion(QUESTION, temperature=0.0)
    assert chat["choices"][0]["message"]["content"] == raw["choices"][0]["text"]
    assert chat["usage"] == raw["usage"]


def test_text_parts_are_joined(llm: Llama) -> None:
    parts = [
        {"type": "text", "text": "Name the capital "},
        {"type": "text", "text": "city of France."},
    ]
    plain = llm.create_chat_completion(QUESTION, temperature=0.0)
    in_parts = llm.create_chat_completion([{"role": "user", "content": parts}], temperature=0.0)
    assert in_parts["choices"] == plain["choices"]


def test_max_tokens_and_stop(llm: Llama) -> None:
    short = llm.create_chat_completion(QUESTION, temperature=0.0, max_tokens=2)
    assert short["choices"][0]["finish_reason"] == "length"
    assert short["usage"]["completion_tokens"] == 2
    stopped = llm.create_chat_completion(QUESTION, temperature=0.0, stop=["Paris"])
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert "Paris" not in stopped["choices"][0]["message"]["content"]


def test_wrong_messages_are_errors(llm: Llama) -> None:
    for messages in ([], ["hi"], [{"content": "hi"}], [{"role": "user", "content": 3}]):
        with pytest.raises(InvalidArgumentError):
            llm.create_chat_completion(messages)
    image = {"type": "image_url", "image_url": {"url": "x"}}
    with pytest.raises(UnsupportedError, match="image_url"):
        llm.create_chat_completion([{"role": "user", "content": [image]}])


def test_what_asks_for_nothing(llm: Llama) -> None:
    answer = llm.create_chat_completion(
        QUESTION, tools=[], tool_choice="none", response_format={"type": "text"}, max_tokens=1
    )
    assert answer["choices"]


def test_chat_format_chooses_the_template(default_model) -> None:
    path = str(default_model)
    with Llama(path, n_ctx=256, chat_format="chatml", verbose=False) as llm:
        answer = llm.create_chat_completion(QUESTION, temperature=0.0)
        assert "Paris" in answer["choices"][0]["message"]["content"]
    with Llama(path, n_ctx=256, chat_format="chat_template.default", verbose=False) as llm:
        assert llm.create_chat_completion(QUESTION, max_tokens=1)["choices"]
    with Llama(path, n_ctx=256, chat_format="vicuna", verbose=False) as llm:
        assert llm.create_chat_completion(QUESTION, max_tokens=1)["choices"]
    for name in ("llama-9", "functionary", "chat_template.other"):
        with (
            Llama(path, n_ctx=256, chat_format=name, verbose=False) as llm,
            pytest.raises(UnsupportedError, match=name),
        ):
            llm.create_chat_completion(QUESTION)


def test_objects_of_the_openai_package(llm: Llama) -> None:
    answer = llm.create_chat_completion_openai_v1(QUESTION, temperature=0.0, max_tokens=8)
    assert type(answer).__name__ == "ChatCompletion"
    expected = llm.create_chat_completion(QUESTION, temperature=0.0, max_tokens=8)
    assert answer.choices[0].message.content == expected["choices"][0]["message"]["content"]
    chunks = list(
        llm.create_chat_completion_openai_v1(QUESTION, temperature=0.0, max_tokens=8, stream=True)
    )
    assert {type(chunk).__name__ for chunk in chunks} == {"ChatCompletionChunk"}
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == answer.choices[0].message.content
