"""What a request says about tools, checked and in one form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InvalidArgumentError, UnsupportedError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_COMPOSED = ("type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const")


@dataclass(frozen=True)
class ToolUse:
    """The tools that an answer may or must call.

    tools: as OpenAI lays them out, each once. must_call: of which the answer has to call one or
    more; (): it may answer in words. is_legacy: asked for as `functions`, to be answered as
    `function_call`. is_single: it calls one at most.
    """

    tools: tuple[Mapping[str, Any], ...]
    must_call: tuple[str, ...] = ()
    is_legacy: bool = False
    is_single: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tools."""
        return tuple(tool["function"]["name"] for tool in self.tools)

    def parameters(self, name: str) -> Mapping[str, Any]:
        """The JSON schema of a tool's arguments, which are an object."""
        function = next(t["function"] for t in self.tools if t["function"]["name"] == name)
        schema: Mapping[str, Any] = function.get("parameters") or {"properties": {}}
        if any(key in schema for key in _COMPOSED):
            return schema
        return {"type": "object", **schema}


def tool_use(
    tools: Sequence[object] | None = None,
    tool_choice: object = None,
    functions: Sequence[object] | None = None,
    function_call: object = None,
    parallel_tool_calls: object = True,
) -> ToolUse | None:
    """What the arguments of `create_chat_completion` ask for; None: an answer in words.

    Raises InvalidArgumentError for what is no tool or no choice, for a choice of a tool that is not
    there, and for both forms at once; UnsupportedError for tools that are not functions.
    """
    is_legacy = functions is not None or function_call is not None
    if is_legacy and (tools is not None or tool_choice is not None):
        raise InvalidArgumentError(
            "functions and function_call are the older form of tools and tool_choice: give one form"
        )
    name = "functions" if is_legacy else "tools"
    given = functions if is_legacy else tools
    if given is not None and (isinstance(given, str | Mapping) or not isinstance(given, Sequence)):
        raise InvalidArgumentError(f"{name} must be a list, found {given!r:.80}")
    checked = tuple(
        _tool({"type": "function", "function": tool} if is_legacy else tool) for tool in given or ()
    )
    if not isinstance(parallel_tool_calls, bool):
        raise InvalidArgumentError(
            f"parallel_tool_calls must be True or False, found {parallel_tool_calls!r:.80}"
        )
    use = ToolUse(checked, is_legacy=is_legacy, is_single=not parallel_tool_calls)
    for i, other in enumerate(use.names):
        if other in use.names[:i]:
            raise InvalidArgumentError(f"{name} has {other!r} twice")
    choice = _choice(function_call if is_legacy else tool_choice, is_legacy)
    if choice in (None, "auto"):
        return use if use.tools else None
    if choice == "none":
        return None
    if not use.tools:
        raise InvalidArgumentError(f"a call is required, but {name} has none to call")
    if choice == "required":
        return replace(use, must_call=use.names)
    assert isinstance(choice, tuple)
    if choice[0] not in use.names:
        raise InvalidArgumentError(
            f"Tool choice {choice[0]!r} not found in {name}, which has {', '.join(use.names)}"
        )
    return replace(use, must_call=choice)


def _choice(choice: object, is_legacy: bool) -> str | tuple[str] | None:
    if choice is None or choice in ("none", "auto") or (choice == "required" and not is_legacy):
        return choice if isinstance(choice, str) else None
    named: object = choice if is_legacy else None
    if not is_legacy and isinstance(choice, Mapping) and choice.get("type") == "function":
        named = choice.get("function")
    name = named.get("name") if isinstance(named, Mapping) else None
    if isinstance(name, str):
        return (name,)
    forms = (
        'function_call must be "none", "auto" or {"name": NAME}'
        if is_legacy
        else 'tool_choice must be "none", "auto", "required" or '
        '{"type": "function", "function": {"name": NAME}}'
    )
    raise InvalidArgumentError(f"{forms}, found {choice!r:.80}")


def _tool(tool: object) -> Mapping[str, Any]:
    if isinstance(tool, Mapping) and tool.get("type", "function") != "function":
        raise UnsupportedError(f"only tools of type function are supported, found {tool!r:.80}")
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(tool, Mapping) or not isinstance(function, Mapping):
        raise InvalidArgumentError(
            f'a tool must be a dict with "type" and "function", found {tool!r:.80}'
        )
    name = function.get("name")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise InvalidArgumentError(
            f'a tool\'s name must be 1 to 64 letters, digits, "_", "-" or ".", found {name!r:.80}'
        )
    for key, kind in (("description", str), ("parameters", Mapping)):
        if not isinstance(function.get(key), kind | None):
            raise InvalidArgumentError(
                f"the {key} of the tool {name!r} must be "
                f"{'a string' if kind is str else 'a JSON schema'}, found {function[key]!r:.80}"
            )
    try:
        json.dumps(tool, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"the tool {name!r} is not JSON: {error!s:.200}") from None
    return {**tool, "type": "function"}
