"""The ASGI application: every path, and the OpenAPI page that is made of the same table."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .. import __version__
from . import messages, requests, responses
from . import openai_endpoints as openai
from .exchange import Endpoint, Exchange, Handler
from .failure import ApiError
from .page import page_files
from .service import Service
from .settings import Settings


@dataclass(frozen=True)
class Path:
    """A path; is_open: no API key is asked for."""

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    body: type[BaseModel] | None = None
    is_open: bool = False
    is_anthropic: bool = False


PATHS = (
    Path("GET", "/health", openai.health, is_open=True),
    Path("GET", "/v1/models", openai.models),
    Path("GET", "/v1/models/{name}", openai.model),
    Path("POST", "/v1/chat/completions", openai.chat, requests.ChatBody),
    Path("POST", "/v1/completions", openai.completions, requests.CompletionBody),
    Path("POST", "/v1/embeddings", openai.embeddings, requests.EmbeddingBody),
    Path("POST", "/v1/responses", responses.responses, responses.ResponsesBody),
    Path("POST", "/v1/messages", messages.messages, messages.MessagesBody, is_anthropic=True),
    Path(
        "POST",
        "/v1/messages/count_tokens",
        messages.count_tokens,
        messages.CountBody,
        is_anthropic=True,
    ),
    Path("GET", "/metrics", openai.metrics),
    Path("GET", "/slots", openai.slots),
    Path("GET", "/props", openai.props),
    Path("POST", "/tokenize", openai.tokenize, requests.TokenizeBody),
    Path("POST", "/detokenize", openai.detokenize, requests.DetokenizeBody),
    Path("POST", "/apply-template", openai.apply_template, requests.TemplateBody),
    Path("POST", "/extras/tokenize", openai.extras_tokenize, requests.InputBody),
    Path("POST", "/extras/tokenize/count", openai.extras_count, requests.InputBody),
    Path("POST", "/extras/detokenize", openai.extras_detokenize, requests.DetokenizeBody),
)


def create_app(settings: Settings) -> Starlette:
    """The application of one server. Raises what finding its models raises."""
    service = Service(settings)
    routes = [
        Route(
            entry.path.replace("{name}", "{name:path}"),  # which may have slashes
            Endpoint(
                service,
                entry.path,
                entry.handler,
                entry.body,
                is_open=entry.is_open,
                is_anthropic=entry.is_anthropic,
            ),
            methods=[entry.method],
        )
        for entry in PATHS
    ]
    page = _openapi()

    async def openapi(exchange: Exchange, _body: None) -> None:
        await exchange.json(page)

    routes += [
        Route(path, Endpoint(service, path, file, None, is_open=True), methods=["GET"])
        for path, file in ({"/openapi.json": openapi} | page_files()).items()
    ]

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with service.pool.use(None):  # the first model is there once the server is
            pass
        try:
            yield
        finally:
            service.pool.close()

    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
    )
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[cors] if settings.cors_origins else [],
        exception_handlers={HTTPException: _http_error},
    )
    app.state.service = service
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence = f"{request.method} {request.url.path:.80}: {HTTPStatus(error.status_code).phrase}"
    failure = ApiError(error.status_code, sentence, code="unknown_url")
    return JSONResponse(failure.body(), error.status_code, headers=dict(error.headers or {}))


def _openapi() -> dict[str, Any]:
    bodies = [entry.body for entry in PATHS if entry.body is not None]
    template = "#/components/schemas/{model}"
    _, defined = models_json_schema(
        [(body, "validation") for body in dict.fromkeys(bodies)], ref_template=template
    )
    paths: dict[str, Any] = {}
    for entry in PATHS:
        operation: dict[str, Any] = {
            "operationId": entry.method.lower() + re.sub(r"\W+", "_", entry.path).rstrip("_"),
            "responses": {"200": {"description": "OK"}, "default": {"description": "An error"}},
        }
        if entry.body is not None:
            schema = {"$ref": template.format(model=entry.body.__name__)}
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": schema}},
            }
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{(\w+)\}", entry.path)
        ]
        paths.setdefault(entry.path, {})[entry.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "pyllamacpp", "version": __version__},
        "paths": paths,
        "components": {"schemas": defined.get("$defs", {})},
    }
