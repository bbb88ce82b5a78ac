"""From a command's options to a loaded model."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import click

from .. import _core
from ..engine import Engine
from ..models.cache import is_cached
from ..models.catalogue import CATALOGUE, DEFAULT_MODEL
from ..models.resolve import resolve_model
from ..params import GenerationParams, SamplingParams

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


def open_engine(model: str | None, threads: int | None, ctx: int | None) -> Engine:
    """Loads MODEL with a context of `ctx` tokens and prints what was chosen."""
    path = find_model(model)
    loaded = _core.Model(str(path), n_threads=threads or 0)
    own = loaded.config.n_ctx_train
    context = _core.Context(
        loaded,
        n_ctx=ctx or min(own, DEFAULT_CTX),
        n_threads=threads or 0,
        n_threads_batch=threads or 0,
    )
    note = f" (more than the {own} it was made for)" if context.n_ctx > own else ""
    status(
        f"{path.stem}, context {context.n_ctx} tokens{note}, "
        f"{context.n_threads} threads, {_core.isa()}"
    )
    return Engine(loaded, context)


def generation_params(
    max_tokens: int, seed: int | None, temp: float, top_k: int, top_p: float, min_p: float
) -> GenerationParams:
    """The options of one answer; without a seed, a random one."""
    chosen = random.SystemRandom().getrandbits(64) if seed is None else seed
    return GenerationParams(
        max_tokens=max_tokens, sampling=SamplingParams(temp, top_k, top_p, min_p, chosen)
    )
