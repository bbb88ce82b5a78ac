"""How families of models write calls of tools in their answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ToolSyntax:
    """One way to write calls.

    opening: what stands before a call, or before a list of them.
    closing: what stands after it; "": nothing.
    arguments_key: of the object with the call's name and arguments; both keys are read everywhere.
    is_bare: an answer may also begin with a call without its opening. Where the opening is a
        control token, it has no text.
    is_list: the calls stand in one JSON array.
    names_first: NAME[ARGS]{...} instead of an object.
    separator: between several calls without an opening of their own; "": each has one.
    """

    name: str
    opening: str
    closing: str = ""
    arguments_key: str = "arguments"
    is_bare: bool = False
    is_list: bool = False
    names_first: bool = False
    separator: str = ""

    @property
    def writes_opening(self) -> bool:
        """Whether models of this family put the opening before a call."""
        return not self.is_bare or self.is_list or self.names_first

    def written(self, calls: list[tuple[str, Any]]) -> str:
        """Calls (name, arguments) as a model of this family writes them."""
        if self.names_first:
            return "".join(f"{self.opening}{name}[ARGS]{_json(args)}" for name, args in calls)
        objects = [_json({"name": name, self.arguments_key: args}) for name, args in calls]
        if self.is_list:
            return f"{self.opening}[{', '.join(objects)}]"
        if not self.writes_opening:
            return self.separator.join(objects)
        return "\n".join(f"{self.opening}\n{call}\n{self.closing}" for call in objects)


HERMES = ToolSyntax("hermes", "<tool_call>", closing="</tool_call>")
"""Hermes 2 and 3, Qwen 2.5 and 3 and many others; ours for templates that know no tools."""

LLAMA3 = ToolSyntax(
    "llama-3", "<|python_tag|>", arguments_key="parameters", is_bare=True, separator="; "
)
"""Llama 3.1 to 3.3: the object is the answer."""

MISTRAL = ToolSyntax("mistral", "[TOOL_CALLS]", is_bare=True, is_list=True)
"""Mistral's tokenizers up to version 7."""

MISTRAL_ARGS = ToolSyntax("mistral-args", "[TOOL_CALLS]", is_bare=True, names_first=True)
"""Mistral's tokenizers from version 11 on."""

SYNTAXES = (HERMES, MISTRAL_ARGS, MISTRAL, LLAMA3)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
