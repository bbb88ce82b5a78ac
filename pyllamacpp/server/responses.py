"""OpenAI's responses, on the chats of this package. None is stored."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..jobs import aresult
from .blocks import Block, Blocks, text_of
from .exchange import Exchange
from .failure import ApiError
from .requests import Body, Effort, ServiceTier
from .service import AnyJob, event, usage_of

if TYPE_CHECKING:
    from ..llama import Llama


class ReasoningBody(BaseModel):
    """How much the model thinks. There is no summary but the thought itself."""

    model_config = ConfigDict(extra="forbid")

    effort: Effort | None = None
    summary: Literal["auto"] | None = None


class TextBody(BaseModel):
    """The form of the answer: OpenAI's format; verbosity is as it is."""

    model_config = ConfigDict(extra="forbid")

    format: dict[str, Any] | None = None
    verbosity: Literal["medium"] | None = None


class ResponsesBody(Body):
    """POST /v1/responses."""

    input: str | list[dict[str, Any]]
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    text: TextBody | None = None
    max_output_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    truncation: Literal["disabled"] | None = None
    reasoning: ReasoningBody | None = None
    thinking_budget_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    service_tier: ServiceTier | None = None
    include: list[str] | None = Field(None, max_length=0)
    background: Literal[False] | None = None
    stream: bool = False


async def responses(exchange: Exchange, body: ResponsesBody) -> None:
    """POST /v1/responses"""
    service = exchange.service
    most = service.settings.max_tokens
    limit = min(filter(None, (body.max_output_tokens, most)), default=None)
    arguments: dict[str, Any] = {
        "messages": _messages(body),
        "tools": None if not body.tools else [_tool(tool) for tool in body.tools],
        "tool_choice": _choice(body.tool_choice),
        "parallel_tool_calls": body.parallel_tool_calls,
        "response_format": _format(body.text),
        "reasoning_effort": None if body.reasoning is None else body.reasoning.effort,
        "reasoning_format": "deepseek",
        "thinking_budget_tokens": body.thinking_budget_tokens,
        "max_tokens": limit,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "stream": body.stream,
    }
    async with service.gate.place(), service.pool.use(body.model) as (llama, name):
        job = await service.start(lambda: llama.start_chat_completion(**arguments, model=name))
        answer = _Response(body, job, name, lambda text: _count(llama, text))
        if body.stream:
            await exchange.events(answer.events(exchange))
            return
        answer.blocks = Blocks.of_result(await aresult(job))
        service.metrics.count(usage_of(job))
        await exchange.json(answer.ended())


class _Response:
    """The response object of one request, and its events. count: the tokens of a text."""

    def __init__(
        self, body: ResponsesBody, job: AnyJob, name: str, count: Callable[[str], int]
    ) -> None:
        self.blocks = Blocks()
        self._count = count
        self._job = job
        self._id = uuid.uuid4().hex
        self._n_events = 0
        self._shared = {
            "id": f"resp_{self._id}",
            "object": "response",
            "created_at": int(time.time()),
            "model": name,
            "error": None,
            "instructions": body.instructions,
            "metadata": body.metadata or {},
            "parallel_tool_calls": body.parallel_tool_calls,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "tool_choice": body.tool_choice or "auto",
            "tools": body.tools or [],
            "text": {"format": (body.text and body.text.format) or {"type": "text"}},
            "max_output_tokens": body.max_output_tokens,
            "previous_response_id": None,
            "reasoning": {"effort": body.reasoning and body.reasoning.effort, "summary": None},
            "store": False,
        }

    def ended(self) -> dict[str, Any]:
        """The object of a whole answer."""
        is_cut = self.blocks.finish_reason == "length"
        usage = usage_of(self._job)
        n_thought = sum(self._count(block.text) for block in self.blocks.all if block.is_thought)
        return {
            **self._shared,
            "status": "incomplete" if is_cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": [self._item(i, block) for i, block in enumerate(self.blocks.all)],
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": {"cached_tokens": self._job.run.texts[0].stream.n_reused},
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": n_thought},
                "total_tokens": usage["total_tokens"],
            },
        }

    def _item(self, i: int, block: Block, status: str = "completed") -> dict[str, Any]:
        if block.is_call:
            return {
                "id": f"fc_{i}_{self._id}",
                "type": "function_call",
                "status": status,
                "call_id": block.id,
                "name": block.name,
                "arguments": block.text,
            }
        content = [] if status == "in_progress" else [_part(block)]
        if block.is_thought:
            return {
                "id": f"rs_{i}_{self._id}",
                "type": "reasoning",
                "status": status,
                "summary": [],
                "content": content,
            }
        return {
            "id": f"msg_{i}_{self._id}",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _event(self, kind: str, **values: Any) -> str:
        self._n_events += 1
        data = {"type": f"response.{kind}", "sequence_number": self._n_events - 1, **values}
        return event(data, f"response.{kind}")

    async def events(self, exchange: Exchange) -> AsyncIterator[str]:
        """The answer as it comes."""
        blocks, is_first = self.blocks, True
        async for chunk in exchange.service.watched(exchange, self._job):
            if is_first:
                is_first = False
                begun = {**self._shared, "status": "in_progress", "output": [], "usage": None}
                begun["incomplete_details"] = None
                yield self._event("created", response=begun)
                yield self._event("in_progress", response=begun)
            for block, is_new, text in blocks.add(chunk):
                i = len(blocks.all) - 1
                if is_new:
                    for line in [*self._end(i - 1), *self._begin(i, block)]:
                        yield line
                place = self._place(i, block)
                if block.is_call:
                    yield self._event("function_call_arguments.delta", **place, delta=text)
                elif block.is_thought:
                    yield self._event("reasoning_text.delta", **place, delta=text)
                else:
                    yield self._event("output_text.delta", **place, delta=text, logprobs=[])
        for line in self._end(len(blocks.all) - 1):
            yield line
        ended = self.ended()
        yield self._event(str(ended["status"]), response=ended)

    def _place(self, i: int, block: Block) -> dict[str, Any]:
        place = {"item_id": self._item(i, block)["id"], "output_index": i}
        return place if block.is_call else {**place, "content_index": 0}

    def _begin(self, i: int, block: Block) -> list[str]:
        nothing = Block("", block.id, block.name, block.is_thought)
        empty = self._item(i, nothing, "in_progress")
        lines = [self._event("output_item.added", output_index=i, item=empty)]
        if not block.is_call:
            place = self._place(i, block)
            lines.append(self._event("content_part.added", **place, part=_part(nothing)))
        return lines

    def _end(self, i: int) -> list[str]:
        if i < 0:
            return []
        block = self.blocks.all[i]
        place = self._place(i, block)
        if block.is_call:
            done = {"name": block.name, "arguments": block.text}
            lines = [self._event("function_call_arguments.done", **place, **done)]
        else:
            if block.is_thought:
                lines = [self._event("reasoning_text.done", **place, text=block.text)]
            else:
                lines = [self._event("output_text.done", **place, text=block.text, logprobs=[])]
            lines.append(self._event("content_part.done", **place, part=_part(block)))
        item = self._item(i, block)
        return [*lines, self._event("output_item.done", output_index=i, item=item)]


def _count(llama: Llama, text: str) -> int:
    """The tokens of a text within another; vocabularies may put a space before the first word."""
    before = b"\n"
    return len(llama.tokenize(before + text.encode(), False)) - len(llama.tokenize(before, False))


def _part(block: Block) -> dict[str, Any]:
    if block.is_thought:
        return {"type": "reasoning_text", "text": block.text}
    return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": []}


# -- requests ------------------------------------------------------------------------------------


def _messages(body: ResponsesBody) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    if body.instructions is not None:
        said.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        return [*said, {"role": "user", "content": body.input}]
    thought: dict[str, str] = {}  # of the answer that follows it
    for i, item in enumerate(body.input):
        if item.get("type") == "reasoning":
            thought = {"reasoning_content": _thought(item, f"input.{i}")}
            continue
        message = _message(item, f"input.{i}")
        if message["role"] == "assistant":
            message, thought = {**message, **thought}, {}
        if "tool_calls" in message and said and "tool_calls" in said[-1]:
            said[-1]["tool_calls"] += message["tool_calls"]
        else:
            said.append(message)
    return said


def _thought(item: Mapping[str, Any], place: str) -> str:
    text = text_of(item.get("content"), "reasoning_text")
    if text is None:
        raise ApiError(400, f"{place}: only reasoning of type reasoning_text is known", param=place)
    return text


def _message(item: Mapping[str, Any], place: str) -> dict[str, Any]:
    kind = item.get("type", "message")
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    content = item.get("output" if kind == "function_call_output" else "content")
    text = text_of(content, "input_text", "output_text", "text")
    if kind not in ("message", "function_call_output") or text is None:
        raise ApiError(400, f"{place}: only text and calls of functions are known", param=place)
    if kind == "function_call_output":
        return {"role": "tool", "content": text, "tool_call_id": item.get("call_id")}
    role = item.get("role")
    return {"role": "system" if role == "developer" else role, "content": text}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise ApiError(400, "tools: only tools of type function are supported", param="tools")
    known = ("name", "description", "parameters")
    function = {name: tool[name] for name in known if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _choice(choice: str | Mapping[str, Any] | None) -> object:
    if isinstance(choice, Mapping):
        return {"type": choice.get("type"), "function": {"name": choice.get("name")}}
    return choice


def _format(text: TextBody | None) -> object:
    wanted = None if text is None else text.format
    if wanted is not None and wanted.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": {"schema": wanted.get("schema")}}
    return wanted
