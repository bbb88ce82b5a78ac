"""From a command's options to a loaded model."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from .. import _core
from ..engine import Engine
from ..loading import GpuLayers, Repack, load, placement
from ..log import logger
from ..models.cache import is_cached
from ..models.catalogue import CATALOGUE, DEFAULT_MODEL
from ..models.resolve import resolve_model
from ..params import GenerationParams
from .options import EngineOptions

DEFAULT_CTX = 4096


def status(text: str) -> None:
    """One line on stderr."""
    click.echo(f"pyllamacpp: {text}", err=True)


def find_model(model: str | None) -> Path:
    """The file of -m MODEL; without it the default model, fetched if it is not there."""
    if model is None and not is_cached(DEFAULT_MODEL):
        fetch(DEFAULT_MODEL)
    return resolve_model(model)


def fetch(name: str) -> Path:
    """Pulls a model and says so; with a progress bar on a terminal."""
    if name.startswith("hf:"):
        return resolve_model(name)
    from ..models.pull import pull

    entry = CATALOGUE.get(name)
    if entry is not None and not is_cached(name):
        status(f"fetching {name} ({entry.title}, {entry.n_bytes / 1e6:.0f} MB)")
    return pull(name, show_progress=sys.stderr.isatty())


def open_engine(options: EngineOptions) -> Engine:
    """Loads a model and prints what was chosen."""
    ctx, threads = options.ctx, options.threads
    path = find_model(options.model)
    wanted = ctx or min(_core.plan_memory(str(path)).n_ctx, DEFAULT_CTX)
    with warnings_to_stderr():
        loaded, context = load(
            str(path),
            n_ctx=wanted,
            n_batch=options.batch,
            n_threads=threads or 0,
            n_threads_batch=threads or 0,
            type_k=options.type_k,
            type_v=options.type_v,
            repack=options.repack,
            shrink=ctx is None,
            n_gpu_layers=options.n_gpu_layers,
            op_offload=options.op_offload,
            progress=lambda _share: None,  # Python hears of Ctrl-C when it is called
        )
    own = loaded.config.n_ctx_train
    note = f" (more than the {own} it was made for)" if context.n_ctx > own else ""
    if context.n_ctx < wanted:
        note = " (more does not fit into memory)"
    status(
        f"{path.stem}, context {context.n_ctx} tokens{note}, "
        f"{context.n_threads} threads, {_core.isa()}{gpu_text(loaded)}"
    )
    return Engine(loaded, context)


def gpu_text(model: _core.Model) -> str:
    """What to add to the status line of a model that runs on a GPU, in part or wholly."""
    return f", {placement(model)}" if model.n_gpu_layers else ""


def open_model(
    path: Path,
    *,
    threads: int | None,
    repack: Repack,
    n_gpu_layers: GpuLayers,
    **shape: Any,
) -> _core.Model:
    """A model whose contexts the caller makes. shape: of the largest, for which the GPU has room.

    Says what runs on the GPU, and what the library warns of.
    """
    if n_gpu_layers == 0:
        return _core.Model(str(path), n_threads=threads or 0, repack=repack)
    with warnings_to_stderr():
        model, _ = load(
            str(path), n_threads=threads or 0, repack=repack, n_gpu_layers=n_gpu_layers, **shape
        )
    if model.n_gpu_layers:
        status(placement(model))
    return model


def with_grammar(params: GenerationParams, grammar: str | None, engine: Engine) -> GenerationParams:
    """The parameters of one text that must follow a grammar, if there is one."""
    if grammar is None:
        return params
    from ..grammar import GrammarFilter

    return replace(params, token_filter=GrammarFilter(grammar, engine.model))


@contextmanager
def warnings_to_stderr() -> Iterator[None]:
    """What the library warns of, as status lines."""

    class ToStatus(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            status(record.getMessage())

    handler = ToStatus(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
