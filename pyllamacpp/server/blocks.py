"""An answer as blocks of thoughts, text and calls: Anthropic's form and OpenAI's newer one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Block:
    """A text, or with a name a call, whose text is its arguments. id: the call's.

    is_thought: the text is what the model thought before its answer.
    """

    text: str = ""
    id: str | None = None
    name: str | None = None
    is_thought: bool = False

    @property
    def is_call(self) -> bool:
        """Whether it is a call."""
        return self.name is not None


class Blocks:
    """The blocks of an answer that comes in deltas."""

    def __init__(self) -> None:
        self.all: list[Block] = []
        self.finish_reason: str | None = None

    def add(self, chunk: Mapping[str, Any]) -> Iterator[tuple[Block, bool, str]]:
        """Takes a chat's chunk in: of each piece its block, whether that is new, and the text."""
        choice = chunk["choices"][0]
        self.finish_reason = choice["finish_reason"] or self.finish_reason
        delta = choice["delta"]
        if delta.get("reasoning_content"):
            is_new = not self.all
            if is_new:
                self.all.append(Block(is_thought=True))
            yield self._grown(delta["reasoning_content"], is_new)
        if delta.get("content"):
            is_new = not self.all or self.all[-1].is_call or self.all[-1].is_thought
            if is_new:
                self.all.append(Block())
            yield self._grown(delta["content"], is_new)
        for call in delta.get("tool_calls", ()):
            is_new = "id" in call
            if is_new:
                self.all.append(Block("", call["id"], call["function"]["name"]))
            yield self._grown(call["function"]["arguments"], is_new)

    def _grown(self, text: str, is_new: bool) -> tuple[Block, bool, str]:
        block = self.all[-1]
        block.text += text
        return block, is_new, text

    @staticmethod
    def of_result(result: Mapping[str, Any]) -> Blocks:
        """Those of a whole answer."""
        choice = result["choices"][0]
        blocks = Blocks()
        calls = choice["message"].get("tool_calls", ())
        chunk = {"delta": {**choice["message"], "tool_calls": calls}, "finish_reason": None}
        list(blocks.add({"choices": [{**chunk, "finish_reason": choice["finish_reason"]}]}))
        return blocks


def text_of(content: object, *kinds: str) -> str | None:
    """A content that is a string or a list of parts of these types; None for anything else."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") not in kinds:
            return None
        if not isinstance(part.get("text"), str):
            return None
        texts.append(part["text"])
    return "".join(texts)
