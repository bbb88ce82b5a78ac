"""What a model thinks before it answers: asked for, limited, told from the answer."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from pyllamacpp import Llama
from pyllamacpp.chat.reasoning import Reasoning, ThoughtLimit, ThoughtReader
from pyllamacpp.errors import InvalidArgumentError, UnsupportedError

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
from thinking_model import TEMPLATE, write_thinking_model

QUESTION = [{"role": "user", "content": "hi"}]
ASKED = {"temperature": 0, "max_tokens": 24, "thinking_budget_tokens": 8}
OPEN, EMPTY = "<|assistant|><think>\n", "<|assistant|><think>\n\n</think>\n\n"
OFF, ON = {"enable_thinking": False}, {"enable_thinking": True}
ALWAYS = "{{ messages[-1].content + '<think>\\n' }}"
NEVER = "{{ messages[-1].content }}!"


@pytest.fixture(scope="module")
def open_model(tmp_path_factory):
    """Opens the model with a template, each once."""
    folder, found = tmp_path_factory.mktemp("thinkers"), {}

    def opened(template: str = TEMPLATE) -> Llama:
        if template not in found:
            path = write_thinking_model(folder / f"{len(found)}.gguf", template)
            found[template] = Llama(str(path), n_ctx=512, verbose=False)
        return found[template]

    yield opened
    for llm in found.values():
        llm.close()


def prompt_of(llm: Llama, reasoning: Reasoning, **options: object) -> str:
    prepared = llm.chat().prepare(QUESTION, reasoning=reasoning, **options)
    # Without the space that the vocabulary puts before text.
    return llm.detokenize(prepared.tokens, special=True).decode().replace("\u2581", "")


def test_a_thought_comes_apart_and_keeps_to_its_limit(open_model) -> None:
    llm = open_model()
    answer = llm.create_chat_completion(QUESTION, reasoning_format="deepseek", **ASKED)
    message = answer["choices"][0]["message"]
    # A letter is a token; one more closes the thought.
    assert (len(message["reasoning_content"]), len(message["content"])) == (8, 15)
    assert (message["reasoning_content"] + message["content"]).isalpha()
    assert answer["usage"]["completion_tokens"] == 24
    chunks = llm.create_chat_completion(QUESTION, stream=True, reasoning_format="auto", **ASKED)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    for name in ("reasoning_content", "content"):
        assert "".join(delta.get(name, "") for delta in deltas) == message[name]
    # As in llama-cpp-python, unless asked: all in one text, where control tokens have none.
    plain = llm.create_chat_completion(QUESTION, **ASKED)["choices"][0]["message"]
    assert plain["content"] == message["reasoning_content"] + message["content"]
    assert "reasoning_content" not in plain


def test_a_thought_that_is_cut_off(open_model) -> None:
    options = {**ASKED, "thinking_budget_tokens": None, "reasoning_format": "deepseek"}
    (choice,) = open_model().create_chat_completion(QUESTION, **options)["choices"]
    assert choice["finish_reason"] == "length"
    assert (len(choice["message"]["reasoning_content"]), choice["message"]["content"]) == (24, "")


@pytest.mark.parametrize(
    ("effort", "variables", "level", "end"),
    [
        (None, None, "", OPEN),
        ("none", None, "[none]", EMPTY),
        ("high", None, "[high]", OPEN),
        (None, OFF, "", EMPTY),
        (None, {"thinking": False}, "", EMPTY),
        (None, ON, "", OPEN),
        ("none", ON, "[none]", OPEN),  # the variable is the more definite one
    ],
)
def test_what_a_template_is_given(open_model, effort, variables, level: str, end: str) -> None:
    reasoning = Reasoning.of(reasoning_effort=effort, chat_template_kwargs=variables)
    assert prompt_of(open_model(), reasoning) == f"<s><|user|>hi{level}{end}"


def test_a_model_that_always_thinks(open_model, caplog) -> None:
    llm = open_model(ALWAYS)
    for off in (Reasoning(effort="none"), Reasoning(variables=OFF)):
        assert prompt_of(llm, off) == "<s>hi<think>\n\n</think>\n\n"
    assert prompt_of(llm, Reasoning(variables=ON)) == "<s>hi<think>\n"
    with caplog.at_level(logging.WARNING, logger="pyllamacpp"):
        assert prompt_of(llm, Reasoning(effort="low")) == "<s>hi<think>\n"
    assert "reasoning_effort='low': the chat template knows no levels" in caplog.text


def test_a_model_that_never_thinks(open_model) -> None:
    llm = open_model(NEVER)
    for off in (Reasoning(effort="none"), Reasoning(variables=OFF), Reasoning(limit=1)):
        assert prompt_of(llm, off) == "<s>hi!"
    for asked, name in (({"reasoning_effort": "low"}, "reasoning_effort='low'"), ({}, "thinking")):
        options = asked or {"chat_template_kwargs": ON}
        with pytest.raises(UnsupportedError, match=f"{name} is not supported"):
            llm.create_chat_completion(QUESTION, **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"reasoning_effort": "much"}, "reasoning_effort must be one of None, 'none', 'minimal'"),
        ({"reasoning_effort": 3}, "reasoning_effort must be one of"),
        ({"reasoning_format": "xml"}, "reasoning_format must be one of 'none', 'deepseek', 'auto'"),
        ({"thinking_budget_tokens": 0}, "thinking_budget_tokens must be an integer >= 1, found 0"),
        ({"chat_template_kwargs": {"enable_thinkin": True}}, "has no variable 'enable_thinkin'"),
        ({"chat_template_kwargs": {"messages": []}}, "cannot replace 'messages'"),
        ({"chat_template_kwargs": {"enable_thinking": "no"}}, "must be true or false, found 'no'"),
        ({"chat_template_kwargs": {"x": {1}}}, "chat_template_kwargs is not JSON"),
        ({"chat_template_kwargs": "x"}, "must be a dict by names, found 'x'"),
    ],
)
def test_other_values_are_refused(open_model, options: dict, sentence: str) -> None:
    with pytest.raises(InvalidArgumentError, match=sentence):
        open_model().create_chat_completion(QUESTION, **options)


def test_a_bound_answer_has_no_thoughts(open_model) -> None:
    llm = open_model()
    as_json = {"response_format": {"type": "json_object"}}
    assert prompt_of(llm, Reasoning(), **as_json).endswith(EMPTY)
    assert prompt_of(open_model(ALWAYS), Reasoning(), **as_json).endswith("\n\n</think>\n\n")
    assert prompt_of(llm, Reasoning(), bound="grammar").endswith(EMPTY)
    tool = {"type": "function", "function": {"name": "f"}}
    for options, name in (
        (as_json, "response_format"),
        ({"tools": [tool], "tool_choice": "required"}, "calls that are required"),
        ({"regex": "a"}, "regex"),
    ):
        with pytest.raises(UnsupportedError, match=f"thinking is not supported beside {name}"):
            llm.create_chat_completion(QUESTION, reasoning_effort="high", **options)
    message = llm.create_chat_completion(QUESTION, regex="[0-9]{3}", reasoning_format="deepseek")
    message = message["choices"][0]["message"]
    assert message["content"].isdigit()
    assert "reasoning_content" not in message


def test_a_variable_begins_no_turn(open_model) -> None:
    llm = open_model("{{ who }}{{ messages[-1].content }}")
    given = Reasoning(variables={"who": "</think>"})
    tokens = llm.chat().prepare(QUESTION, reasoning=given).tokens
    assert llm.tokenize(b"</think>", add_bos=False, special=True)[-1] not in tokens


def test_a_formatter_is_given_all() -> None:
    found = Reasoning(effort="low", variables={"more": 1}).for_formatter()
    assert found == {"reasoning_effort": "low", "enable_thinking": True, "more": 1}


@pytest.mark.parametrize(
    ("starts_inside", "text", "thought", "answer"),
    [
        (False, "<think>\nabc \n</think>\n\nYes.\n", "abc", "Yes.\n"),
        (False, "\n<think>a <b> c</thi></think>Yes", "a <b> c</thi>", "Yes"),
        (False, "<think>\n\n</think>\n\nYes", "", "Yes"),
        (False, " Yes <think>no</think>", "", " Yes <think>no</think>"),
        (False, "<thin", "", "<thin"),
        (False, " \n", "", " \n"),
        (True, " abc</think> Yes</think>", "abc", "Yes</think>"),
        (True, "abc </thi\n", "abc </thi", ""),
        (True, "abc</think>\n", "abc", ""),
        (True, "", "", ""),
    ],
)
def test_a_reader_however_it_is_split(starts_inside, text, thought, answer) -> None:
    pieces = [[text], list(text), *([text[:i], text[i:]] for i in range(len(text)))]
    for split in pieces:
        reader = ThoughtReader(starts_inside=starts_inside)
        found = [*map(reader.feed, split), reader.finish()]
        assert ("".join(t for t, _ in found), "".join(a for _, a in found)) == (thought, answer)


def allowed(text_filter) -> list[int] | None:
    """The tokens that may come next; None: any."""
    mask = np.zeros(8, np.uint32)
    if not text_filter.fill(mask):
        assert not mask.any()
        return None
    return [i for i in range(256) if mask[i // 32] >> (i % 32) & 1]


def test_a_limit_counts_what_is_thought() -> None:
    limit = ThoughtLimit(3, (200, 201), lambda token: bytes([token]), starts_inside=False)
    written = limit.filter()
    for token in b" <think>ab":
        assert allowed(written) is None
        written.accept(token)
    written.accept(ord("c"))
    for closing in (200, 201):
        assert allowed(written) == [closing]
        written.accept(closing)
    assert allowed(written) is None
    assert not written.done()
    # A model that closes its thought, or has none, goes on as it likes.
    for text in (b"<think>a", b"no thought at all"):
        free = ThoughtLimit(20, (200,), lambda token: bytes([token]), starts_inside=False).filter()
        for token in text + b"</think>" + 30 * b"x":
            assert allowed(free) is None
            free.accept(token)
