"""Anthropic's messages, on the chats of this package."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..chat.reasoning import Reasoning
from ..jobs import aresult
from .blocks import Block, Blocks, text_of
from .exchange import Exchange
from .failure import ApiError
from .service import AnyJob, event, usage_of

_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Thinking(BaseModel):
    """Whether the model thinks before it answers. "adaptive": as its template has it.

    budget_tokens: of type "enabled", so many tokens at most.
    """

    model_config = ConfigDict(extra="forbid")

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    display: Literal["summarized"] | None = None


class CountBody(BaseModel):
    """POST /v1/messages/count_tokens."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: Thinking | None = None


class MessagesBody(CountBody):
    """POST /v1/messages."""

    max_tokens: int = Field(ge=1, lt=1 << 31)
    temperature: _Share = 1.0
    top_p: _Share = 1.0
    top_k: int = Field(0, ge=0, lt=1 << 31)
    stop_sequences: list[str] | None = None
    stream: bool = False
    metadata: dict[str, Any] | None = None
    service_tier: Literal["auto", "standard_only"] | None = None


async def messages(exchange: Exchange, body: MessagesBody) -> None:
    """POST /v1/messages"""
    service = exchange.service
    limit = min(body.max_tokens, service.settings.max_tokens or body.max_tokens)
    arguments = {
        **_conversation(body),
        "chat_template_kwargs": _variables(body.thinking),
        "thinking_budget_tokens": _budget(body.thinking),
        "reasoning_format": "deepseek",
        "max_tokens": limit,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "min_p": 0.0,
        "stop": body.stop_sequences,
        "stream": body.stream,
    }
    async with service.gate.place(), service.pool.use(body.model) as (llama, name):
        job = await service.start(lambda: llama.start_chat_completion(**arguments, model=name))
        if body.stream:
            await exchange.events(_events(exchange, job, body, name))
            return
        blocks = Blocks.of_result(await aresult(job))
        service.metrics.count(usage_of(job))
        await exchange.json(
            {
                **_message(name),
                "content": [_content(block) for block in blocks.all],
                **_stop(job, blocks, body),
                "usage": _usage(job),
            }
        )


async def count_tokens(exchange: Exchange, body: CountBody) -> None:
    """POST /v1/messages/count_tokens"""
    asked = _conversation(body)
    async with exchange.service.pool.use(body.model) as (llama, _):
        prepared = await exchange.service.pool.in_thread(
            lambda: llama.chat().prepare(
                **asked, reasoning=Reasoning.of(chat_template_kwargs=_variables(body.thinking))
            )
        )
        await exchange.json({"input_tokens": len(prepared.tokens)})


async def _events(
    exchange: Exchange, job: AnyJob, body: MessagesBody, name: str
) -> AsyncIterator[str]:
    def named(kind: str, **values: Any) -> str:
        return event({"type": kind, **values}, kind)

    blocks = Blocks()
    is_first = True
    n_open = 0
    async for chunk in exchange.service.watched(exchange, job):
        if is_first:
            is_first = False
            start = {**_message(name), "content": [], "stop_reason": None, "stop_sequence": None}
            usage = {"input_tokens": job.run.n_prompt_tokens, "output_tokens": 0}
            yield named("message_start", message={**start, "usage": usage})
        for block, is_new, text in blocks.add(chunk):
            if is_new:
                if n_open:
                    yield named("content_block_stop", index=n_open - 1)
                empty = _content(Block("", block.id, block.name, block.is_thought))
                yield named("content_block_start", index=n_open, content_block=empty)
                n_open += 1
            delta = {"type": "text_delta", "text": text}
            if block.is_call:
                delta = {"type": "input_json_delta", "partial_json": text}
            elif block.is_thought:
                delta = {"type": "thinking_delta", "thinking": text}
            yield named("content_block_delta", index=n_open - 1, delta=delta)
    if n_open:
        yield named("content_block_stop", index=n_open - 1)
    yield named("message_delta", delta=_stop(job, blocks, body), usage=_usage(job))
    yield named("message_stop")


def _message(name: str) -> dict[str, Any]:
    return {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "model": name}


def _usage(job: AnyJob) -> dict[str, int]:
    usage = usage_of(job)
    return {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}


def _content(block: Block) -> dict[str, Any]:
    if block.is_thought:  # nobody has to prove that it is ours: the signature is empty
        return {"type": "thinking", "thinking": block.text, "signature": ""}
    if not block.is_call:
        return {"type": "text", "text": block.text}
    try:
        given = json.loads(block.text or "{}", strict=False)
    except ValueError:  # the answer was cut off
        given = {}
    return {"type": "tool_use", "id": block.id, "name": block.name, "input": given}


def _stop(job: AnyJob, blocks: Blocks, body: MessagesBody) -> dict[str, Any]:
    reason = {"length": "max_tokens", "tool_calls": "tool_use"}.get(
        blocks.finish_reason or "", "end_turn"
    )
    # The format of the conversation may have ended it with one of its own.
    found = job.run.texts[0].stream.stop_string
    if found in (body.stop_sequences or ()):
        return {"stop_reason": "stop_sequence", "stop_sequence": found}
    return {"stop_reason": reason, "stop_sequence": None}


# -- requests ------------------------------------------------------------------------------------


def _conversation(body: CountBody) -> dict[str, Any]:
    """The arguments of a chat that say what it is about. Raises ApiError for another form."""
    said: list[dict[str, Any]] = []
    if body.system is not None:
        said.append({"role": "system", "content": _text(body.system, "system")})
    for i, message in enumerate(body.messages):
        said += _said(message, f"messages.{i}")
    tools = None if body.tools is None else [_tool(tool) for tool in body.tools]
    return {
        "messages": said,
        "tools": tools,
        "tool_choice": _choice(body.tool_choice),
        "parallel_tool_calls": not (body.tool_choice or {}).get("disable_parallel_tool_use"),
    }


def _variables(thinking: Thinking | None) -> dict[str, bool] | None:
    """Of the template. Without `thinking` there are no thoughts, as Anthropic has it."""
    if thinking is not None and thinking.type == "adaptive":
        return None
    return {"enable_thinking": thinking is not None and thinking.type == "enabled"}


def _budget(thinking: Thinking | None) -> int | None:
    if thinking is None or (thinking.type == "enabled") == (thinking.budget_tokens is not None):
        return None if thinking is None else thinking.budget_tokens
    raise ApiError(
        400,
        "thinking.budget_tokens is given with type 'enabled' and with no other",
        param="thinking.budget_tokens",
    )


def _text(content: object, place: str) -> str:
    text = text_of(content, "text")
    if text is None:
        raise ApiError(400, f"{place}: only text is supported", param=place)
    return text


def _said(message: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant"):
        raise ApiError(400, f"{place}.role must be 'user' or 'assistant'", param=place)
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        raise ApiError(400, f"{place}.content must be a string or a list of blocks", param=place)
    texts, thoughts, calls, results = [], [], [], []
    for part in content:
        kind = part.get("type")
        if kind == "tool_use" and role == "assistant":
            function = {"name": part.get("name"), "arguments": part.get("input") or {}}
            calls.append({"id": part.get("id"), "type": "function", "function": function})
        elif kind == "thinking" and role == "assistant":
            thought = {"type": "text", "text": part.get("thinking")}
            thoughts.append(_text([thought], f"{place}.content"))
        elif kind == "tool_result" and role == "user":
            text = _text(part.get("content", ""), f"{place}.content")
            results.append(
                {"role": "tool", "content": text, "tool_call_id": part.get("tool_use_id")}
            )
        else:
            texts.append(_text([part], f"{place}.content"))
    said: dict[str, Any] = {"role": role, "content": "".join(texts)}
    if thoughts:
        said["reasoning_content"] = "".join(thoughts)
    if calls:
        said |= {"content": said["content"] or None, "tool_calls": calls}
    return [*results, said] if texts or calls or not results else results


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    if tool.get("type", "custom") != "custom":
        raise ApiError(400, "tools: only tools with an input_schema are supported", param="tools")
    function = {"name": tool.get("name"), "parameters": tool.get("input_schema")}
    if tool.get("description") is not None:
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _choice(choice: Mapping[str, Any] | None) -> object:
    if choice is None:
        return None
    kind = choice.get("type")
    known = {"auto": "auto", "any": "required", "none": "none"}
    if kind == "tool":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if kind not in known:
        raise ApiError(400, "tool_choice.type must be auto, any, tool or none", param="tool_choice")
    return known[kind]
