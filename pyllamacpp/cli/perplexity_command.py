"""pyllamacpp perplexity"""

from __future__ import annotations

import json
import sys
import time

import click

from .. import _core
from .group import ExampleCommand
from .options import file_option, json_option, model_option, read_input, threads_option
from .runtime import find_model, status


@click.command(
    "perplexity",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp perplexity -f book.txt",
        "pyllamacpp perplexity -m model.gguf -f book.txt -c 2048 --json",
    ],
)
@model_option
@file_option("The text to measure on (- is stdin).")
@click.option(
    "-c",
    "--ctx",
    default=512,
    show_default=True,
    type=click.IntRange(min=4),
    help="Tokens of one window.",
)
@threads_option
@json_option
def command(
    model: str | None, file: str | None, ctx: int, threads: int | None, as_json: bool
) -> None:
    """Measure how well a model predicts a text; lower is better.

    llama.cpp's rule, so that figures compare: windows of -c tokens without overlap, the second
    half of each scored. With --json: {"ppl": ..., "n_tokens": ...}, n_tokens being those scored.
    """
    if file is None and sys.stdin.isatty():
        raise click.UsageError("Give --file or piped input.")
    text = read_input(file or "-")
    path = find_model(model)
    loaded = _core.Model(str(path), n_threads=threads or 0)

    # numpy is imported with it, after the usage errors.
    from ..eval.perplexity import Perplexity, perplexity

    started = time.monotonic()

    def show(result: Perplexity, n_windows: int) -> None:
        left = (time.monotonic() - started) / result.n_windows * (n_windows - result.n_windows)
        click.echo(
            f"\rwindow {result.n_windows}/{n_windows}  perplexity {result.ppl:.4f}  "
            f"{left:.0f} s left   ",
            err=True,
            nl=result.n_windows == n_windows,
        )

    status(f"{path.stem}, windows of {ctx} tokens")
    result = perplexity(
        loaded,
        text,
        n_ctx=ctx,
        n_threads=threads or 0,
        on_window=show if sys.stderr.isatty() else None,
    )
    if as_json:
        click.echo(json.dumps({"ppl": result.ppl, "n_tokens": result.n_tokens}))
    else:
        click.echo(
            f"perplexity {result.ppl:.4f} +/- {result.error:.4f} over {result.n_tokens} tokens"
        )
