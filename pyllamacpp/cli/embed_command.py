"""pyllamacpp embed"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from itertools import chain
from typing import Any

import click

from .. import _core
from ..embedding import (
    LLAMA_POOLING_TYPE_CLS,
    LLAMA_POOLING_TYPE_LAST,
    LLAMA_POOLING_TYPE_MEAN,
    LLAMA_POOLING_TYPE_NONE,
    LLAMA_POOLING_TYPE_UNSPECIFIED,
    MOST_TEXTS,
    Embedder,
    pooling_of,
)
from ..loading import GpuLayers, Repack
from .group import ExampleCommand
from .options import (
    argument_bytes,
    batch_option,
    file_option,
    gpu_option,
    json_option,
    model_option,
    read_input,
    repack_option,
    threads_option,
)
from .runtime import DEFAULT_CTX, find_model, open_model, warnings_to_stderr

_POOLINGS = {
    "mean": LLAMA_POOLING_TYPE_MEAN,
    "cls": LLAMA_POOLING_TYPE_CLS,
    "last": LLAMA_POOLING_TYPE_LAST,
    "none": LLAMA_POOLING_TYPE_NONE,
}


@click.command(
    "embed",
    cls=ExampleCommand,
    examples=[
        'pyllamacpp embed "A cat sleeps." "The dog barks."',
        "pyllamacpp embed --json -f sentences.txt",
        'pyllamacpp embed -m model.gguf --pooling last --no-normalize "Hello"',
    ],
)
@model_option
@file_option("Take the texts from FILE, one a line (- is stdin); empty lines are left out.")
@click.option(
    "--pooling",
    type=click.Choice(list(_POOLINGS)),
    help="What a text's vector is made of: its tokens' mean, the first's, the last's; none: a "
    "vector for every token.  [default: the file's own, else mean]",
)
@click.option("--no-normalize", is_flag=True, help="Leave the vectors as long as they are.")
@click.option(
    "-c",
    "--ctx",
    type=click.IntRange(min=1),
    help="Tokens of one text; longer ones are cut off.  [default: the lesser of the model's own "
    f"and {DEFAULT_CTX}]",
)
@batch_option
@threads_option
@repack_option
@gpu_option
@json_option
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
def command(
    model: str | None,
    file: str | None,
    pooling: str | None,
    no_normalize: bool,
    ctx: int | None,
    batch: int,
    threads: int | None,
    repack: Repack,
    n_gpu_layers: GpuLayers,
    as_json: bool,
    texts: tuple[str, ...],
) -> None:
    """Turn each TEXT, or each line of a file or of piped stdin, into a vector.

    Vectors are as long as the model is wide, and have length 1 unless --no-normalize. They are
    written one a line, values parted by spaces; with --json as OpenAI's embeddings endpoint
    answers: {"object": "list", "data": [{"embedding": [...], "index": 0, ...}, ...], ...}.
    """
    if texts and file is not None:
        raise click.UsageError("Give either TEXT or --file, not both.")
    if not texts and file is None and sys.stdin.isatty():
        raise click.UsageError("Give TEXT, --file or piped input.")
    inputs = [argument_bytes(text) for text in texts]
    if not texts:
        inputs = [line for line in read_input(file or "-").splitlines() if line.strip()]
    if not inputs:
        raise click.UsageError("There is no text to embed.")
    path = find_model(model)
    n_ctx = ctx or min(_core.plan_memory(str(path)).n_ctx, DEFAULT_CTX)
    loaded = open_model(
        path,
        threads=threads,
        repack=repack,
        n_gpu_layers=n_gpu_layers,
        n_ctx=n_ctx,
        n_batch=batch,
        n_parallel=0,
        max_sequences=MOST_TEXTS,
    )
    embedder = Embedder(
        loaded,
        n_ctx=n_ctx,
        n_batch=batch,
        n_threads=threads or 0,
        pooling_type=_pooling(loaded, pooling),
    )
    decoded = [text.decode("utf-8", "surrogateescape") for text in inputs]
    with warnings_to_stderr():
        if as_json:
            response = embedder.create_embedding(decoded, normalize=not no_normalize)
            click.echo(json.dumps(response))
            return
        vectors: Iterable[Any] = embedder.embed(decoded, normalize=not no_normalize)
    if embedder.pooling_type == LLAMA_POOLING_TYPE_NONE:
        vectors = chain.from_iterable(vectors)
    for vector in vectors:
        click.echo(" ".join(f"{value:.9g}" for value in vector))


def _pooling(model: _core.Model, name: str | None) -> int:
    if name is not None:
        return _POOLINGS[name]
    own = pooling_of(model, LLAMA_POOLING_TYPE_UNSPECIFIED)
    return own or LLAMA_POOLING_TYPE_MEAN
