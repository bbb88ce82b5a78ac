"""What all endpoints share, and how they start an evaluation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from time import perf_counter
from typing import Any

import prometheus_client as prometheus

from ..completion import CompletionUsage
from ..jobs import Job, achunks
from .exchange import Exchange, Gate, Keys
from .failure import ApiError
from .pool import ModelPool
from .requests import Body, ChatBody, CompletionBody, Sampling
from .settings import Settings

AnyJob = Job[Any, Any]
_NOT_FOR_THE_MODEL = {*Body.model_fields, "stream_options", "messages", "prompt"}
_NOT_FOR_THE_MODEL |= {"max_completion_tokens", "max_tokens"}
_NOT_FOR_THE_MODEL |= {"service_tier", "modalities", "verbosity"}  # at the only value there is


class Service:
    """The state of one server; made inside its event loop. is_draining: it takes no new request."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.is_draining = False
        self.pool = ModelPool(settings.all_models, settings.max_models)
        self.keys = Keys(settings.api_keys)
        self.gate = Gate(settings.max_running, settings.max_queue)
        self.metrics = Metrics(self)

    async def start(self, make: Callable[[], AnyJob]) -> AnyJob:
        """Starts a job off the event loop: templates and grammars take their time."""
        future = self.pool.submit(make)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(_cancel_result)
            raise

    def arguments(self, body: Sampling) -> dict[str, Any]:
        """The arguments of `Llama` that a request asks for. Raises ApiError for too much."""
        assert isinstance(body, ChatBody | CompletionBody)
        limit = body.max_tokens
        n_prompts = 1
        if isinstance(body, ChatBody):
            limit = body.max_completion_tokens or limit
        elif isinstance(body.prompt, list) and body.prompt and not isinstance(body.prompt[0], int):
            n_prompts = len(body.prompt)
        n_texts = n_prompts * max(body.n, getattr(body, "best_of", None) or 1)
        if n_texts > self.settings.max_texts:
            raise ApiError(
                400, f"{n_texts} texts in one request, the most is {self.settings.max_texts}"
            )
        if self.settings.max_tokens is not None:
            limit = min(limit or self.settings.max_tokens, self.settings.max_tokens)
        return {**body.model_dump(exclude=_NOT_FOR_THE_MODEL), "max_tokens": limit}

    async def watched(self, exchange: Exchange, job: AnyJob) -> AsyncIterator[Any]:
        """The chunks of a job, timed."""
        last = exchange.started
        chunks = achunks(job)
        is_first = True
        try:
            async for chunk in chunks:
                now = perf_counter()
                timer = self.metrics.first_token if is_first else self.metrics.next_token
                timer.observe(now - last)
                last, is_first = now, False
                yield chunk
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]
            self.metrics.count(usage_of(job))


def _cancel_result(future: Any) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().cancel()


def usage_of(job: AnyJob) -> CompletionUsage:
    """The tokens of a job so far."""
    prompt, own = job.run.n_prompt_tokens, job.run.n_generated
    return {"prompt_tokens": prompt, "completion_tokens": own, "total_tokens": prompt + own}


def event(data: object, name: str | None = None) -> str:
    """A server-sent event."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


class Metrics:
    """What /metrics tells: counts and times, no texts."""

    def __init__(self, service: Service) -> None:
        self.registry = prometheus.CollectorRegistry()
        r = self.registry
        name = "pyllamacpp_"
        self._requests = prometheus.Counter(
            name + "requests", "Requests answered.", ["path", "status"], registry=r
        )
        self._prompt = prometheus.Counter(name + "prompt_tokens", "Tokens of prompts.", registry=r)
        self._own = prometheus.Counter(name + "generated_tokens", "Tokens generated.", registry=r)
        buckets = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
        self.first_token = prometheus.Histogram(
            name + "first_token_seconds", "Until the first chunk.", registry=r, buckets=buckets
        )
        self.next_token = prometheus.Histogram(
            name + "next_token_seconds", "Between chunks.", registry=r, buckets=buckets
        )
        for key, what, function in (
            ("requests_running", "Requests in evaluation.", lambda: service.gate.n_running),
            ("requests_waiting", "Requests that wait.", lambda: service.gate.n_waiting),
            ("sequences_busy", "Sequences with a text.", lambda: _busy(service)),
            ("cache_pages_free", "Pages of the cache without a text.", lambda: _free(service)),
        ):
            prometheus.Gauge(name + key, what, registry=r).set_function(function)

    def count(self, usage: CompletionUsage) -> None:
        """Adds the tokens of a request."""
        self._prompt.inc(usage["prompt_tokens"])
        self._own.inc(usage["completion_tokens"])

    def answered(self, path: str, exchange: Exchange) -> None:
        """Counts a request."""
        self._requests.labels(path, str(exchange.status)).inc()


def _busy(service: Service) -> int:
    slots = [slot for llama in service.pool.loaded for slot in llama.engine.slots()]
    return sum(own >= 0 for _, own, _ in slots)


def _free(service: Service) -> int:
    return sum(llama.engine.context.n_free_pages for llama in service.pool.loaded)
