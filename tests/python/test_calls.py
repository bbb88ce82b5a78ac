"""Calls of tools in an answer: every family, any split, hostile texts."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyllamacpp.chat.calls import CallParser, CallPiece, new_call_id
from pyllamacpp.chat.syntax import HERMES, LLAMA3, MISTRAL, MISTRAL_ARGS, SYNTAXES, ToolSyntax

NAMES = ("get_weather", "get", "add")
PARIS = {"city": "Paris", "where": {"x": [1, {"y": "}]"}]}, "quote": 'a "b" \\ é 😀'}

# What a parse gives: the text and the calls as (name, text of the arguments).
Parsed = tuple[str, list[tuple[str, str]]]


def parse(syntax: ToolSyntax, pieces: list[str], names=NAMES) -> Parsed:
    parser = CallParser(syntax, names)
    out = [piece for text in pieces for piece in parser.feed(text)] + parser.finish()
    text, calls, ids = "", [], []
    for piece in out:
        if isinstance(piece, CallPiece):
            if piece.id is not None:
                assert piece.index == len(calls)
                calls.append((piece.name, ""))
                ids.append(piece.id)
            assert piece.index == len(calls) - 1
            name, arguments = calls[-1]
            calls[-1] = (name, arguments + piece.arguments)
        else:
            assert piece
            text += piece
    assert len(set(ids)) == len(ids) == parser.n_calls
    return text, calls


def read(syntax: ToolSyntax, text: str) -> Parsed:
    return parse(syntax, [text])


def arguments_of(parsed: Parsed) -> list[tuple[str, object]]:
    return [(name, json.loads(arguments)) for name, arguments in parsed[1]]


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("calls", [[("get_weather", PARIS)], [("add", {}), ("get", PARIS)]])
def test_what_a_family_writes_is_read(syntax: ToolSyntax, calls) -> None:
    text = syntax.written(calls)
    parsed = read(syntax, text)
    assert arguments_of(parsed) == calls
    assert parsed[0] == ""
    if not syntax.is_bare:
        before = "I will look.\n" + text
        assert read(syntax, before + "\nDone") == ("I will look.\nDone", parsed[1])


WEATHER = '{"city": "Paris"}'
EXAMPLES = {
    "qwen": (HERMES, f'\n<tool_call>\n{{"name": "get", "arguments": {WEATHER}}}\n</tool_call>'),
    "no closing": (HERMES, f'<tool_call>{{"name": "get", "arguments": {WEATHER}}}'),
    "one brace short": (
        HERMES,
        f'<tool_call>{{"name": "get", "arguments": {WEATHER}\n</tool_call>',
    ),
    "arguments first": (
        HERMES,
        f'<tool_call>{{"arguments": {WEATHER}, "name": "get"}}</tool_call>',
    ),
    "parameters": (HERMES, f'<tool_call>{{"name": "get", "parameters": {WEATHER}}}</tool_call>'),
    "more keys": (
        HERMES,
        f'<tool_call>{{"n": [1, "]"], "name": "get", "arguments": {WEATHER}, "z": 1}}</tool_call>',
    ),
    "a list": (HERMES, f'<tool_call>[{{"name": "get", "arguments": {WEATHER}}}]</tool_call>'),
    "as a string": (
        HERMES,
        f'<tool_call>{{"name": "get", "arguments": {json.dumps(WEATHER)}}}</tool_call>',
    ),
    "escaped name": (
        HERMES,
        f'<tool_call>{{"name": "g\\u0065t", "arguments": {WEATHER}}}</tool_call>',
    ),
    "llama": (LLAMA3, f'{{"name": "get", "parameters": {WEATHER}}}'),
    "llama with type": (
        LLAMA3,
        f'\n{{"type": "function", "name": "get", "parameters": {WEATHER}}}',
    ),
    "llama with its tag": (LLAMA3, f'<|python_tag|>{{"name": "get", "parameters": {WEATHER}}}'),
    "mistral": (MISTRAL, f'[TOOL_CALLS] [{{"name": "get", "arguments": {WEATHER}}}]'),
    "mistral with id": (
        MISTRAL,
        f'[TOOL_CALLS][{{"name": "get", "arguments": {WEATHER}, "id": "abcdefghi"}}]',
    ),
    "mistral without its token": (MISTRAL, f'[{{"name": "get", "arguments": {WEATHER}}}]'),
    "mistral's newer one": (MISTRAL_ARGS, f"[TOOL_CALLS]get[ARGS]{WEATHER}"),
    "with a call's id": (MISTRAL_ARGS, f"[TOOL_CALLS]get[CALL_ID]a1B2c3D4e[ARGS]{WEATHER}"),
    "without its tokens": (MISTRAL_ARGS, f"get{WEATHER}"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_models_write(name: str) -> None:
    syntax, text = EXAMPLES[name]
    assert read(syntax, text) == ("", [("get", WEATHER)])


def test_no_arguments_are_an_empty_object() -> None:
    for given_none in ("", ', "arguments": null', ', "arguments": {}', ', "arguments": "{}"'):
        text = f'<tool_call>{{"name": "get"{given_none}}}</tool_call>'
        assert read(HERMES, text) == ("", [("get", "{}")])


@pytest.mark.parametrize(
    "text",
    [
        "no call at all <tool",
        "a < b <tool_call",
        "<tool_call>",
        "<tool_call>\n",
        "<tool_call>not JSON</tool_call>",
        '<tool_call>{"name": "other", "arguments": {}}</tool_call>',
        '<tool_call>{"name": ["get"], "arguments": {}}</tool_call>',
        '<tool_call>{"name": "get", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "get", "arguments": "no object"}</tool_call>',
        '<tool_call>{"name": "get", "arguments": "\\ud800"}</tool_call>',
        '<tool_call>{"name": "\\u00"}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name" "get"}',
        '<tool_call>{"name": "ge',
        '<tool_call>{"name": "get", "argum',
        '<tool_call>{"name": "get", "arguments":',
        '<tool_call>{"arguments": ' + "[" * 5000,
        '<tool_call>{"arguments": ' + "[" * 5000 + "]" * 5000 + ', "name": "get"}',
        "<tool_call>[]</tool_call>",
        "<tool_call>{}</tool_call>",
        "<tool_call>{,}",
        " \n ",
    ],
    ids=lambda text: text[:50],
)
def test_what_is_no_call_is_text(text: str) -> None:
    assert read(HERMES, text) == (text, [])
    assert parse(HERMES, list(text)) == (text, [])


@pytest.mark.parametrize(
    "text",
    ['{"answer": 42}', '{"name": "Ada", "parameters": {}}', '{"name": "get", "year": 1}', "[1, 2]"],
)
def test_an_answer_in_json_is_no_call(text: str) -> None:
    for syntax in (LLAMA3, MISTRAL):
        assert read(syntax, text) == (text, [])


def test_a_call_in_the_middle_needs_its_opening() -> None:
    text = f'Like this: {{"name": "get", "parameters": {WEATHER}}}'
    assert read(LLAMA3, text) == (text, [])


def test_a_failed_opening_does_not_hide_the_next() -> None:
    call = f'<tool_call>{{"name": "get", "arguments": {WEATHER}}}</tool_call>'
    assert read(HERMES, "<tool_call> <tool_call>? " + call) == (
        "<tool_call> <tool_call>?",
        [("get", WEATHER)],
    )


def test_cut_off_in_the_arguments_is_a_call() -> None:
    text = '<tool_call>{"name": "get", "arguments": {"city": "Par'
    assert read(HERMES, text) == ("", [("get", '{"city": "Par')])
    assert read(LLAMA3, '{"name": "get", "parameters": {') == ("", [("get", "{")])


def test_text_is_passed_on_at_once() -> None:
    parser = CallParser(HERMES, NAMES)
    assert parser.feed("Let me ") == ["Let me"]
    assert parser.feed("see <") == [" see"]
    assert parser.feed("b") == [" <b"]
    assert parser.feed('\n<tool_call>{"name": "add", "arguments"') == []
    (head, piece) = parser.feed(': {"a": 1')
    assert isinstance(head, CallPiece)
    assert (head.index, head.name, head.arguments) == (0, "add", "")
    assert piece == CallPiece(0, '{"a": 1')
    assert parser.feed(", ") == [CallPiece(0, ", ")]
    assert parser.feed('"b": 2}') == [CallPiece(0, '"b": 2}')]
    assert parser.feed("}\n</tool_call>") == []
    assert parser.finish() == []


def test_an_answer_in_json_streams() -> None:
    parser = CallParser(LLAMA3, NAMES)
    assert parser.feed('{"answer": [') == ['{"answer": [']
    assert parser.feed("1") == ["1"]


def test_ids_are_nine_letters_and_digits() -> None:
    found = new_call_id()
    assert len(found) == 9
    assert found.isascii()
    assert found.isalnum()


def splits(text: str) -> st.SearchStrategy[list[str]]:
    def cut(places: list[int]) -> list[str]:
        ends = [0, *sorted(places), len(text)]
        return [text[a:b] for a, b in pairwise(ends)]

    return st.lists(st.integers(0, len(text)), max_size=12).map(cut)


FRAGMENTS = st.sampled_from(
    [
        *(
            "<tool_call>",
            "</tool_call>",
            "<tool",
            "[TOOL_CALLS]",
            "[",
            "]",
            "{",
            "}",
            ",",
            ":",
            '"',
        ),
        *('"name"', '"arguments"', '"parameters"', '"get"', '"add"', "get", "[ARGS]", "[CALL_ID]"),
        *('{"name": "get", "arguments": {', '{"name": "add"}', '{"a": "}"}', "\\", "null", "1.5"),
        *("<|python_tag|>", "; ", " ", "\n", "é", "\ud83d", "text", '\\"', "\\u00e9", "[]", "{}"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(SYNTAXES), st.lists(FRAGMENTS, max_size=14).map("".join), st.data())
def test_any_split_of_any_text_is_the_same(syntax, text, data) -> None:
    whole = read(syntax, text)
    assert parse(syntax, data.draw(splits(text))) == whole
    assert parse(syntax, list(text)) == whole


@given(
    st.sampled_from(SYNTAXES),
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.dictionaries(st.text(), JSON, max_size=3)), min_size=1
    ),
    st.data(),
)
def test_any_split_of_any_calls(syntax, calls, data) -> None:
    text = syntax.written(calls)
    parsed = parse(syntax, data.draw(splits(text)))
    assert arguments_of(parsed) == calls
    assert parsed[0] == ""
    # Cut off anywhere, what was there of the last call stays.
    cut = read(syntax, text[: data.draw(st.integers(0, len(text)))])
    assert all(
        found[0] == name and full.startswith(found[1])
        for found, (name, full) in zip(cut[1], parsed[1], strict=False)
    )
