"""Calls and their results among the messages of a conversation, in the form a template takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidArgumentError
from .syntax import ToolSyntax

Message = Mapping[str, Any]


def uniform(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Copies of the messages with calls in one form.

    The older `function_call` becomes `tool_calls` and the role "function" becomes "tool". Arguments
    are dicts, or strings where a model's text is no JSON object. No calls are no key.
    Raises InvalidArgumentError for calls of another form.
    """
    out: list[dict[str, Any]] = []
    n_legacy = 0
    for given in messages:
        if not isinstance(given, Mapping):
            raise InvalidArgumentError(f"a message must be a dict, found {given!r:.80}")
        message = dict(given)
        calls = message.pop("tool_calls", None) or []
        if (legacy := message.pop("function_call", None)) is not None:
            n_legacy += 1
            calls = [{"id": f"{n_legacy:09}", "type": "function", "function": legacy}]
        if message.get("role") == "function":
            message |= {"role": "tool", "tool_call_id": f"{n_legacy:09}"}
        if not isinstance(calls, Sequence) or isinstance(calls, str):
            raise InvalidArgumentError(f"tool_calls must be a list, found {calls!r:.80}")
        if calls:
            message.setdefault("content", None)
            message["tool_calls"] = [_call(call) for call in calls]
        out.append(message)
    return out


def _call(call: object) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if (
        not isinstance(call, Mapping)
        or not isinstance(function, Mapping)
        or not isinstance(name, str)
    ):
        raise InvalidArgumentError(
            f'a call must have "id", "type" and "function" with "name" and "arguments", '
            f"found {call!r:.80}"
        )
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments, strict=False)
        except (ValueError, RecursionError):
            parsed = None
        arguments = parsed if isinstance(parsed, dict) else arguments
    return {
        **call,
        "type": "function",
        "function": {"name": name, "arguments": {} if arguments is None else arguments},
    }


def has_calls(messages: Sequence[Message]) -> bool:
    """Whether some message has calls or is the result of one."""
    return any("tool_calls" in m or m.get("role") == "tool" for m in messages)


def with_arguments_as_text(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """For templates that write arguments as they are."""

    def call(call: Mapping[str, Any]) -> dict[str, Any]:
        function = call["function"]
        arguments = function["arguments"]
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        return {**call, "function": {**function, "arguments": arguments}}

    return [
        {**m, "tool_calls": [call(c) for c in m["tool_calls"]]} if "tool_calls" in m else dict(m)
        for m in messages
    ]


def with_content_as_text(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """For templates that cannot write None."""
    return [
        {**m, "content": ""} if "tool_calls" in m and m.get("content") is None else dict(m)
        for m in messages
    ]


def with_one_call_a_turn(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """For templates that write one call in a message: each is followed by its result.

    Results are told apart by their ids; those that fit no call stay where they are.
    """
    out: list[dict[str, Any]] = []
    rest = [dict(message) for message in messages]
    while rest:
        message = rest.pop(0)
        calls = message.get("tool_calls", ())
        if len(calls) < 2:
            out.append(message)
            continue
        n_results = next((i for i, m in enumerate(rest) if m.get("role") != "tool"), len(rest))
        results, rest = rest[:n_results], rest[n_results:]
        for i, call in enumerate(calls):
            content = message.get("content") if i == 0 else None
            out.append({**message, "content": content, "tool_calls": [call]})
            found = [r for r in results if r.get("tool_call_id") == call.get("id")]
            out += found[:1]
            results = [r for r in results if r not in found[:1]]
        out += results
    return out


def in_words(messages: Sequence[Message], syntax: ToolSyntax) -> list[dict[str, Any]]:
    """For templates that know no tools: calls are text of the assistant, results of the user.

    Results that follow each other, and what the user says after them, are one message, since many
    templates insist on turns.
    """
    out: list[dict[str, Any]] = []
    after_result = False
    for given in messages:
        message = dict(given)
        is_result = message.get("role") == "tool"
        if calls := message.pop("tool_calls", None):
            written = syntax.written(
                [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
            )
            content = _text(message.get("content"))
            message["content"] = f"{content}\n{written}" if content else written
        if is_result:
            content = _text(message.get("content"))
            message = {
                "role": "user",
                "content": f"<tool_response>\n{content}\n</tool_response>",
            }
        if after_result and message.get("role") == "user":
            out[-1]["content"] += "\n" + _text(message.get("content"))
        else:
            out.append(message)
        after_result = is_result
    return out


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(_text(part.get("text")) for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else ""
