"""pyllamacpp imatrix"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from ..loading import GpuLayers, Repack
from .group import ExampleCommand
from .options import (
    file_option,
    gpu_option,
    model_option,
    read_input,
    repack_option,
    threads_option,
)
from .runtime import find_model, open_model, status

_LINE_SECONDS = 60.0


@click.command(
    "imatrix",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp imatrix -m model-f16.gguf -f calibration.txt -o model.imatrix",
        "pyllamacpp quantize model-f16.gguf model-q3_k_m.gguf q3_k_m --imatrix model.imatrix",
    ],
)
@model_option
@file_option("The text to evaluate: some 100 kB of what the model is for (- is stdin).")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="Where the importance matrix goes.",
)
@click.option(
    "-c",
    "--ctx",
    default=512,
    show_default=True,
    type=click.IntRange(min=4),
    help="Tokens of one window.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@threads_option
@repack_option
@gpu_option
def command(
    model: str | None,
    file: str | None,
    output: Path,
    ctx: int,
    force: bool,
    threads: int | None,
    repack: Repack,
    n_gpu_layers: GpuLayers,
) -> None:
    """Measure which columns of a model's matrices matter, for `pyllamacpp quantize --imatrix`.

    Evaluates a text and writes how large the inputs of each matrix were: an error in a column with
    large inputs costs more. The file is llama.cpp's GGUF importance matrix, as llama-imatrix writes
    it. Best measured on the model before it is quantized.
    """
    if file is None and sys.stdin.isatty():
        raise click.UsageError("Give --file or piped input.")
    text = read_input(file or "-")
    # numpy and gguf are imported with these, after the usage errors.
    from pyllamacpp_convert.importance import write_importance
    from pyllamacpp_convert.plan import refuse_target

    from ..eval.importance import input_squares

    path = find_model(model)
    refuse_target([path], output, force=force)
    loaded = open_model(path, threads=threads, repack=repack, n_gpu_layers=n_gpu_layers, n_ctx=ctx)
    status(f"{path.stem}, windows of {ctx} tokens")
    on_terminal = sys.stderr.isatty()
    began = said = time.monotonic()

    def show(done: int, n_windows: int) -> None:
        nonlocal said
        now = time.monotonic()
        left = f"{(now - began) / done * (n_windows - done):.0f} s left"
        if on_terminal:
            click.echo(f"\rwindow {done}/{n_windows}  {left}   ", err=True, nl=done == n_windows)
        elif now - said >= _LINE_SECONDS:
            said = now
            status(f"window {done} of {n_windows}, {left}")

    found = input_squares(loaded, text, n_ctx=ctx, n_threads=threads or 0, on_window=show)
    write_importance(
        output,
        found.sums,
        architecture=loaded.config.architecture,
        dataset=file or "-",
        n_chunks=found.n_windows,
        chunk_size=ctx,
    )
    status(
        f"{output}: {len(found.sums)} matrices over {found.n_windows} windows of {ctx} tokens, "
        f"{time.monotonic() - began:.1f} s"
    )
