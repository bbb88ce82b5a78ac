"""What constrains an answer: a JSON schema, or a grammar of calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidArgumentError, UnsupportedError
from .syntax import ToolSyntax
from .tools import ToolUse

JsonSchema = Mapping[str, Any] | bool

# How JSON is written: arguments as templates write them, answers with some space where they like.
_ARGUMENTS_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_ANSWER_STYLE = {"whitespace_flexible": True, "whitespace_pattern": r"[ \t\n]{0,20}"}


@dataclass(frozen=True)
class Structure:
    """What an answer must be; one of both is not None.

    lark: a grammar in llguidance's dialect of Lark, where `%json {...}` is a JSON schema and
    `<[7]>` the token 7.
    """

    json_schema: JsonSchema | None = None
    lark: str | None = None


def answer_schema(response_format: object) -> JsonSchema | None:
    """The JSON schema that OpenAI's response_format asks for; None: any text.

    Raises InvalidArgumentError for a form that is none of "text", "json_object" (llama-cpp-python:
    with a "schema") and "json_schema".
    """
    if response_format is None:
        return None
    given = response_format if isinstance(response_format, Mapping) else {}
    kind = given.get("type")
    if kind == "text":
        return None
    schema: object = None
    if kind == "json_object":
        schema = given.get("schema")
        if schema is None:
            return {"type": "object"}
    elif kind == "json_schema" and isinstance(given.get("json_schema"), Mapping):
        schema = given["json_schema"].get("schema")
    if not isinstance(schema, Mapping | bool):
        raise InvalidArgumentError(
            'response_format must be {"type": "text"}, {"type": "json_object"}, the same with a '
            '"schema", or {"type": "json_schema", "json_schema": {"schema": {...}}}, '
            f"found {response_format!r:.200}"
        )
    return schema


def structure_of(
    use: ToolUse | None,
    schema: JsonSchema | None,
    syntax: ToolSyntax,
    token_of: Callable[[str], int | None],
) -> Structure | None:
    """What the answer to a request must be; None: anything.

    token_of: the number of a marker that is one special token, None for one that is text.
    Raises UnsupportedError for a schema beside tools that may but need not be called, if nothing
    tells a call from an answer.
    """
    if use is None or (schema is None and not use.must_call):
        return None if schema is None else Structure(json_schema=schema)
    if not use.must_call and not syntax.writes_opening:
        raise UnsupportedError(
            "response_format beside tools is not supported for this model, whose calls are JSON "
            "objects like any other; require a call with tool_choice, or leave one of both out"
        )
    names = use.must_call or use.names
    rules = [f"start: {'calls' if use.must_call else 'answer | calls'}"]
    if not use.must_call:
        rules.append(f"answer: {_schema(schema, _ANSWER_STYLE)}")
    rules += _calls(
        syntax, names, is_one=use.is_single or len(use.must_call) == 1, token_of=token_of
    )
    for i, name in enumerate(names):
        rules.append(f"args_{i}: {_schema(use.parameters(name), _ARGUMENTS_STYLE)}")
    return Structure(lark="\n".join(rules) + "\n")


def _calls(
    syntax: ToolSyntax,
    names: tuple[str, ...],
    *,
    is_one: bool,
    token_of: Callable[[str], int | None],
) -> list[str]:
    """Rules of `calls`, written as models of the family write them, over `args_N`."""

    def marker(text: str) -> str:
        token = token_of(text)
        return json.dumps(text) if token is None else f"<[{token}]>"

    opening = marker(syntax.opening)
    indices = range(len(names))
    if syntax.names_first:
        arguments = marker("[ARGS]")
        rules = [f"calls: {'call' if is_one else 'call+'}"]
        rules += [f"call: {' | '.join(f'call_{i}' for i in indices)}"]
        rules += [
            f"call_{i}: {opening} {json.dumps(names[i])} {arguments} args_{i}" for i in indices
        ]
        return rules
    if syntax.is_list:
        more = "" if is_one else '(", " object)*'
        calls = f'{opening} "[" object {more} "]"'
    elif not syntax.writes_opening:
        # Templates of this family write one call to a turn.
        calls = "object"
    else:
        calls = "call" if is_one else r'call ("\n" call)*'
    rules = [f"calls: {calls}"]
    if calls.startswith("call"):
        rules.append(rf'call: {opening} "\n" object "\n" {marker(syntax.closing)}')
    rules.append(f"object: {' | '.join(f'object_{i}' for i in indices)}")
    for i in indices:
        head = f'{{"name": "{names[i]}", "{syntax.arguments_key}": '
        rules.append(f'object_{i}: {json.dumps(head)} args_{i} "}}"')
    return rules


def _schema(schema: JsonSchema | None, style: Mapping[str, Any]) -> str:
    value: object = {"x-guidance": style, **schema} if isinstance(schema, Mapping) else schema
    try:
        return f"%json {json.dumps(value, allow_nan=False)}"
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"a JSON schema is not JSON: {error!s:.200}") from None
