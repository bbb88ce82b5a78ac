"""Grammars and schemas: every text that comes out is allowed, every allowed one can come out."""

import json
import random
import subprocess
import sysconfig
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from pyllamacpp import Llama, _core
from pyllamacpp.errors import InvalidArgumentError, UnsupportedError
from pyllamacpp.grammar import GrammarFilter, LlamaGrammar, json_schema_grammar

TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 5},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["name", "children"],
            "additionalProperties": False,
        }
    },
}
SCHEMAS = {
    "object": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": False,
    },
    "tree": TREE,
    "union": {"anyOf": [{"type": "null"}, {"const": [1, {"x": "y"}]}, {"type": "boolean"}]},
    "number": {"type": "number", "exclusiveMinimum": -1, "maximum": 2.5},
    "pattern": {"type": "string", "pattern": "^[A-F]{2}-[0-9]{3}$"},
    "date": {"type": "string", "format": "date"},
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "boolean"}, {"type": "integer", "minimum": 1, "maximum": 9}],
        "items": False,
        "minItems": 2,
    },
    "both": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
            {"properties": {"b": {"enum": [1, 2]}}, "required": ["b"]},
        ],
        "additionalProperties": False,
        "properties": {"a": True, "b": True},
    },
    "map": {
        "type": "object",
        "additionalProperties": {"type": "boolean"},
        "maxProperties": 2,
    },
}
VALID = {
    "object": [{"name": "Ä\n☃", "age": 7, "tags": ["b", "a"]}],
    "tree": [{"name": "r", "children": [{"name": '"\\', "children": []}]}],
    "union": [None, True, [1, {"x": "y"}]],
    "number": [2.5, -0.5, 0],
    "pattern": ["AF-090"],
    "date": ["2024-02-29"],
    "tuple": [[True, 4]],
    "both": [{"a": False, "b": 2}],
    "map": [{}, {"p": True}],
}
GBNF = r"""
# arithmetic
root   ::= expr "=" ws term "\n"
expr   ::= term ([-+*/] term)*
term   ::= ident | num | "(" ws expr ")" ws
ident  ::= [a-z] [a-z0-9_]{0,3} ws
num    ::= [0-9]{1,4} ws
ws     ::= [ \t]{0,2}
"""


@pytest.fixture(scope="module")
def vocabulary(default_model: Path) -> _core.Model:
    return _core.Model(str(default_model), vocab_only=True)


def allowed_by(token_filter: GrammarFilter, n_vocab: int) -> np.ndarray:
    mask = np.zeros((n_vocab + 31) // 32, dtype=np.uint32)
    assert token_filter.fill(mask)
    return np.unpackbits(mask.view(np.uint8), bitorder="little")[:n_vocab].astype(bool)


def random_text(grammar: str, model: _core.Model, seed: int) -> str:
    """Allowed tokens drawn at random; the end as soon as it may come, from some length on."""
    rng = random.Random(seed)
    tokenizer, token_filter = model.tokenizer, GrammarFilter(grammar, model)
    text = b""
    for i in range(400):
        allowed = np.flatnonzero(allowed_by(token_filter, tokenizer.size)).tolist()
        assert allowed
        ends = [token for token in allowed if tokenizer.ends_generation(token)]
        if ends and (i > 4 or len(ends) == len(allowed)):
            break
        others = [token for token in allowed if token not in ends]
        # Short tokens and those that close something come to an end sooner.
        drawn = rng.sample(others, min(6, len(others)))
        if i > 20:
            drawn += [t for t in others if tokenizer.piece(t, True) in (b'"', b"]", b"}")]
        token = min(drawn, key=lambda t: len(tokenizer.piece(t, True).strip(b'"]}')))
        token_filter.accept(token)
        text += tokenizer.piece(token, False)
    else:
        pytest.fail(f"no end in {text[-80:]!r}")
    return text.decode("utf-8", "replace")


@pytest.mark.parametrize("name", SCHEMAS)
def test_random_texts_validate(vocabulary: _core.Model, name: str) -> None:
    grammar = json_schema_grammar(SCHEMAS[name])
    for seed in range(3):
        value = json.loads(random_text(grammar, vocabulary, seed))
        jsonschema.validate(value, SCHEMAS[name], format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize("name", VALID)
def test_valid_texts_can_come_out(vocabulary: _core.Model, name: str) -> None:
    tokenizer = vocabulary.tokenizer
    for value in VALID[name]:
        jsonschema.validate(value, SCHEMAS[name])
        for indent in (None, 2):
            text = json.dumps(value, ensure_ascii=False, indent=indent)
            token_filter = GrammarFilter(json_schema_grammar(SCHEMAS[name]), vocabulary)
            for token in tokenizer.encode(text.encode(), False, False):
                assert not token_filter.done()
                assert allowed_by(token_filter, tokenizer.size)[token], (text, token)
                token_filter.accept(token)
            last = allowed_by(token_filter, tokenizer.size)
            assert any(last[i] for i in range(100) if tokenizer.ends_generation(i))


def test_what_a_schema_forbids_cannot_come_out(vocabulary: _core.Model) -> None:
    for text in ('{"age"', '{"name": ""', '{"name": "123456789', '{"name": "a", "age": 151'):
        token_filter = GrammarFilter(json_schema_grammar(SCHEMAS["object"]), vocabulary)
        for token in vocabulary.tokenizer.encode(text.encode(), False, False):
            if not allowed_by(token_filter, vocabulary.tokenizer.size)[token]:
                break
            token_filter.accept(token)
        else:
            pytest.fail(f"{text} could come out")
        with pytest.raises(InvalidArgumentError, match="cannot be followed"):
            token_filter.accept(token)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "array", "uniqueItems": True}, "'uniqueItems' at #"),
        (
            {"properties": {"a": {"not": {"type": "string"}}}},
            "'not' at #/properties/a",
        ),
        ({"if": {}, "then": {}}, "'if' at #"),
        ({"type": "object", "propertyNames": {"pattern": "a"}}, "'propertyNames'"),
        ({"type": "array", "contains": {}}, "'contains'"),
        ({"dependentRequired": {"a": ["b"]}}, "'dependentRequired'"),
        ({"type": "string", "format": "frobnicated"}, "format"),
        ({"type": "string", "pattern": "a(?=b)"}, "look-around"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf"),
        ({"$ref": "https://example.com/schema"}, "example.com"),
    ],
)
def test_an_unsupported_keyword_is_named(schema: dict, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        json_schema_grammar(schema)


@pytest.mark.parametrize(
    "schema",
    [
        "{",
        "3",
        {"type": "frob"},
        {"$ref": "#/nope"},
        {"type": "array", "minItems": 3, "maxItems": 2},
        False,
        float,
        {"a": {1}},
    ],
)
def test_what_is_no_schema_is_refused(schema: object) -> None:
    with pytest.raises(InvalidArgumentError):
        json_schema_grammar(schema)  # type: ignore[arg-type]


def test_gbnf(vocabulary: _core.Model) -> None:
    grammar = LlamaGrammar.from_string(GBNF, verbose=False).source
    for seed in range(3):
        text = random_text(grammar, vocabulary, seed)
        assert text.endswith("\n")
        assert "=" in text
    for text in ("(a1+22) *x= 3\n", "7=7\n"):
        token_filter = GrammarFilter(grammar, vocabulary)
        for token in vocabulary.tokenizer.encode(text.encode(), False, False):
            token_filter.accept(token)
        assert token_filter.done()


def test_escapes_of_gbnf(vocabulary: _core.Model) -> None:
    source = r'root ::= "\u00e9\x41" [\u0042-\u0043] "\\u0041" [^\U0001F600a] "\""'
    token_filter = GrammarFilter(LlamaGrammar.from_string(source).source, vocabulary)
    for token in vocabulary.tokenizer.encode('éAC\\u0041b"'.encode(), False, False):
        token_filter.accept(token)
    assert token_filter.done()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('start ::= "a"', "root"),
        ('root ::= "a', "line 1"),
        ("root ::= foo", "foo"),
        ("root ::= [a", "GBNF"),
        (r'root ::= "\ud800"', "no character"),
        ("(" * 5000, "root"),
        ("root ::= " + "(" * 5000, "GBNF|nested"),
    ],
)
def test_wrong_gbnf_says_where(source: str, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        LlamaGrammar.from_string(source)


def test_files_and_other_notations(tmp_path: Path, vocabulary: _core.Model) -> None:
    path = tmp_path / "a.gbnf"
    path.write_text('root ::= "yes" | "no"')
    assert random_text(LlamaGrammar.from_file(path).source, vocabulary, 0) in ("yes", "no")
    with pytest.raises(OSError, match="missing"):
        LlamaGrammar.from_file(tmp_path / "missing.gbnf")
    assert (
        random_text(LlamaGrammar.from_lark('start: "x" /[0-9]{3}/').source, vocabulary, 0)[0] == "x"
    )
    assert random_text(LlamaGrammar.from_regex("(ab){2}c").source, vocabulary, 0) == "ababc"
    with pytest.raises(InvalidArgumentError):
        LlamaGrammar.from_lark("start: (")
    with pytest.raises((InvalidArgumentError, UnsupportedError)):
        LlamaGrammar.from_regex("a(?=b)")


def test_completions_follow(llm: Llama) -> None:
    schema = SCHEMAS["object"]
    text = llm("A person as JSON: ", json_schema=schema, max_tokens=120, seed=1)["choices"][0][
        "text"
    ]
    jsonschema.validate(json.loads(text), schema)
    several = llm(
        ["Yes or no? ", "No or yes? "], grammar='root ::= "yes" | "no"', n=2, max_tokens=8
    )["choices"]
    assert {choice["text"] for choice in several} <= {"yes", "no"}
    assert [choice["finish_reason"] for choice in several] == ["stop"] * 4
    pieces = llm("Digits: ", regex="[0-9]{5}", max_tokens=10, stream=True)
    digits = "".join(chunk["choices"][0]["text"] for chunk in pieces)
    assert len(digits) == 5
    assert digits.isdigit()
    grammar = LlamaGrammar.from_string('root ::= "ab"+ "."')
    ids = []
    for token in llm.generate(llm.tokenize(b"x"), grammar=grammar, temp=2.0):
        ids.append(token)
        if len(ids) > 60:
            break
    assert llm.detokenize(ids).startswith(b"ab")
    with pytest.raises(InvalidArgumentError, match="only one"):
        llm("a", regex="a", grammar='root ::= "a"')
    with pytest.raises(InvalidArgumentError, match="grammar must be"):
        llm("a", grammar=3)  # type: ignore[arg-type]


def test_chats_follow_a_response_format(llm: Llama) -> None:
    messages = [{"role": "user", "content": "Describe a cat."}]
    schema = SCHEMAS["object"]
    for response_format in (
        {"type": "json_object", "schema": schema},
        {"type": "json_schema", "json_schema": {"name": "cat", "schema": schema, "strict": True}},
    ):
        answer = llm.create_chat_completion(
            messages, response_format=response_format, max_tokens=150, seed=2
        )["choices"][0]
        jsonschema.validate(json.loads(answer["message"]["content"]), schema)
    plain = llm.create_chat_completion(
        messages, response_format={"type": "text"}, max_tokens=8, temperature=0.0
    )
    assert (
        plain["choices"]
        == llm.create_chat_completion(messages, max_tokens=8, temperature=0.0)["choices"]
    )
    with pytest.raises(UnsupportedError, match="uniqueItems"):
        llm.create_chat_completion(
            messages, response_format={"type": "json_object", "schema": {"uniqueItems": True}}
        )


def test_a_call_that_is_required_comes(llm: Llama) -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Paris", "Rome"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = llm.create_chat_completion(
            messages, tools=[tool], tool_choice=choice, max_tokens=100, temperature=0.0
        )["choices"][0]
        assert answer["finish_reason"] == "tool_calls"
        for call in answer["message"]["tool_calls"]:
            assert call["function"]["name"] == "weather"
            assert json.loads(call["function"]["arguments"])["city"] in ("Paris", "Rome")


@pytest.mark.usefixtures("default_model")
def test_commands_follow(tmp_path: Path) -> None:
    command = str(Path(sysconfig.get_path("scripts")) / "pyllamacpp")

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, *args], input="", capture_output=True, text=True, check=False
        )

    (tmp_path / "schema.json").write_text(json.dumps(SCHEMAS["object"]))
    (tmp_path / "g.gbnf").write_text('root ::= "yes" | "no"')
    (tmp_path / "bad.gbnf").write_text("root ::= foo")
    schema, grammar = f"@{tmp_path / 'schema.json'}", str(tmp_path / "g.gbnf")
    text = run("generate", "-p", "JSON: ", "--seed", "1", "--json-schema", schema).stdout
    jsonschema.validate(json.loads(text), SCHEMAS["object"])
    assert run("chat", "Is it?", "--grammar-file", grammar).stdout.strip() in ("yes", "no")
    both = run("chat", "a", "--grammar-file", grammar, "--json-schema", schema)
    assert both.returncode == 2
    bad = run("generate", "-p", "a", "--grammar-file", str(tmp_path / "bad.gbnf"))
    assert bad.returncode == 1
    assert "foo" in bad.stderr
    assert "Traceback" not in bad.stderr
