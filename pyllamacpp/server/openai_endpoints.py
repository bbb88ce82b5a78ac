"""OpenAI's chat completions, completions, embeddings and models; tokens as others offer them."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import prometheus_client as prometheus

from .. import __version__
from ..chat.format import ChatFormat
from ..chat.reasoning import Reasoning
from ..jobs import aresult
from .exchange import Exchange
from .pool import Entry
from .requests import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    EmbeddingBody,
    InputBody,
    Sampling,
    TemplateBody,
    TokenizeBody,
)
from .service import AnyJob, event, usage_of


async def chat(exchange: Exchange, body: ChatBody) -> None:
    """POST /v1/chat/completions"""
    service = exchange.service
    arguments = service.arguments(body)
    said = [{**m, "role": "system"} if m.get("role") == "developer" else m for m in body.messages]
    async with service.gate.place(), service.pool.use(body.model) as (llama, name):
        job = await service.start(
            lambda: llama.start_chat_completion(said, **arguments, model=name)
        )
        await _answer(exchange, body, job)


async def completions(exchange: Exchange, body: CompletionBody) -> None:
    """POST /v1/completions"""
    service = exchange.service
    arguments = service.arguments(body)
    async with service.gate.place(), service.pool.use(body.model) as (llama, name):
        job = await service.start(
            lambda: llama.start_completion(body.prompt, **arguments, model=name)
        )
        await _answer(exchange, body, job)


async def _answer(exchange: Exchange, body: Sampling, job: AnyJob) -> None:
    if body.stream:
        options = body.stream_options
        wants_usage = options is not None and options.include_usage
        await exchange.events(_events(exchange, job, wants_usage=wants_usage))
        return
    result = await aresult(job)
    exchange.service.metrics.count(result["usage"])
    await exchange.json(result)


async def _events(exchange: Exchange, job: AnyJob, *, wants_usage: bool) -> AsyncIterator[str]:
    last: dict[str, Any] = {}
    usage: dict[str, Any] = {"usage": None} if wants_usage else {}
    async for chunk in exchange.service.watched(exchange, job):
        last = chunk
        yield event({**chunk, **usage})
    if wants_usage:
        yield event({**last, "choices": [], "usage": usage_of(job)})
    yield "data: [DONE]\n\n"


async def embeddings(exchange: Exchange, body: EmbeddingBody) -> None:
    """POST /v1/embeddings"""
    service = exchange.service
    async with service.gate.place(), service.pool.use(body.model) as (llama, name):
        gone = threading.Event()
        found = await service.pool.in_thread(
            lambda: llama.embedder.create_embedding(
                body.input,
                name,
                encoding_format=body.encoding_format,
                dimensions=body.dimensions,
                normalize=True,
                is_cancelled=gone.is_set,
            ),
            gone.set,
        )
        await exchange.json(found)


async def models(exchange: Exchange, _body: None) -> None:
    """GET /v1/models"""
    data = [_model(entry) for entry in exchange.service.pool.entries.values()]
    await exchange.json({"object": "list", "data": data})


async def model(exchange: Exchange, _body: None) -> None:
    """GET /v1/models/NAME"""
    await exchange.json(_model(exchange.service.pool.find(exchange.scope["path_params"]["name"])))


def _model(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.name,
        "object": "model",
        "created": int(entry.path.stat().st_mtime),
        "owned_by": "pyllamacpp",
    }


async def health(exchange: Exchange, _body: None) -> None:
    """GET /health"""
    await exchange.json({"status": "ok"})


async def metrics(exchange: Exchange, _body: None) -> None:
    """GET /metrics"""
    text = prometheus.generate_latest(exchange.service.metrics.registry).decode()
    await exchange.text(text, prometheus.CONTENT_TYPE_LATEST)


async def slots(exchange: Exchange, _body: None) -> None:
    """GET /slots: what is in the cache of each loaded model, and which of it is being written."""
    found = []
    for entry in exchange.service.pool.entries.values():
        for i, (cached, prompt, own) in enumerate(
            entry.llama.engine.slots() if entry.llama else []
        ):
            slot = {"model": entry.name, "id": i, "n_cached": cached, "is_processing": own >= 0}
            if own >= 0:
                slot |= {"n_prompt_tokens": prompt, "n_generated": own}
            if cached or own >= 0:
                found.append(slot)
    await exchange.json(found)


async def props(exchange: Exchange, _body: None) -> None:
    """GET /props: of the first model."""
    async with exchange.service.pool.use(None) as (llama, name):
        template = llama.model.metadata.get("tokenizer.chat_template")
        await exchange.json(
            {
                "model": name,
                "n_ctx": llama.n_ctx(),
                "n_vocab": llama.n_vocab(),
                "total_slots": llama.engine.context.max_sequences,
                "chat_template": template if isinstance(template, str) else None,
                "build_info": f"pyllamacpp {__version__}",
            }
        )


async def tokenize(exchange: Exchange, body: TokenizeBody) -> None:
    """POST /tokenize"""
    async with exchange.service.pool.use(body.model) as (llama, _):
        text = body.content.encode()
        tokens = await exchange.service.pool.in_thread(
            lambda: llama.tokenize(text, body.add_special, body.parse_special)
        )
        if not body.with_pieces:
            await exchange.json({"tokens": tokens})
            return
        pieces = [llama.model.tokenizer.piece(token, True) for token in tokens]
        await exchange.json(
            {
                "tokens": [
                    {"id": token, "piece": _piece(piece)}
                    for token, piece in zip(tokens, pieces, strict=True)
                ]
            }
        )


def _piece(data: bytes) -> str | list[int]:
    """A token's text, or its bytes where they are a part of a character."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


async def detokenize(exchange: Exchange, body: DetokenizeBody) -> None:
    """POST /detokenize"""
    await exchange.json({"content": await _text(exchange, body, special=True)})


async def _text(exchange: Exchange, body: DetokenizeBody, *, special: bool) -> str:
    async with exchange.service.pool.use(body.model) as (llama, _):
        data = await exchange.service.pool.in_thread(
            lambda: llama.detokenize(body.tokens, special=special)
        )
    return data.decode("utf-8", "replace")


async def apply_template(exchange: Exchange, body: TemplateBody) -> None:
    """POST /apply-template"""
    reasoning = Reasoning.of(
        reasoning_effort=body.reasoning_effort, chat_template_kwargs=body.chat_template_kwargs
    )

    def text(chat: ChatFormat) -> str:
        return chat.text(body.messages, body.tools, chat.variables(reasoning))

    async with exchange.service.pool.use(body.model) as (llama, _):
        prompt = await exchange.service.pool.in_thread(lambda: text(llama.chat().format))
        await exchange.json({"prompt": prompt})


async def extras_tokenize(exchange: Exchange, body: InputBody) -> None:
    """POST /extras/tokenize"""
    await exchange.json({"tokens": await _tokens(exchange, body)})


async def extras_count(exchange: Exchange, body: InputBody) -> None:
    """POST /extras/tokenize/count"""
    await exchange.json({"count": len(await _tokens(exchange, body))})


async def _tokens(exchange: Exchange, body: InputBody) -> list[int]:
    text = body.input.encode()
    async with exchange.service.pool.use(body.model) as (llama, _):
        return await exchange.service.pool.in_thread(lambda: llama.tokenize(text, special=True))


async def extras_detokenize(exchange: Exchange, body: DetokenizeBody) -> None:
    """POST /extras/detokenize"""
    await exchange.json({"text": await _text(exchange, body, special=False)})
