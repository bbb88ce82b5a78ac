"""pyllamacpp perplexity"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING

import click

from ..loading import GpuLayers, Repack
from .group import ExampleCommand
from .options import (
    file_option,
    gpu_option,
    json_option,
    kv_type_options,
    model_option,
    read_input,
    repack_option,
    threads_option,
)
from .runtime import find_model, open_model, status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..eval.log_probs import Divergence, LogProbs
    from ..eval.perplexity import Perplexity


@click.command(
    "perplexity",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp perplexity -f book.txt",
        "pyllamacpp perplexity -m model.gguf -f book.txt -c 2048 --json",
        "pyllamacpp perplexity -m f16.gguf -f book.txt --save-logits base.probs",
        "pyllamacpp perplexity -m q4_k_m.gguf -f book.txt --kl-base base.probs",
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
@click.option(
    "--save-logits",
    metavar="FILE",
    help="Keep all predictions, for --kl-base: 2 bytes per scored token and token of the "
    "vocabulary.",
)
@click.option(
    "--kl-base", metavar="FILE", help="Compare with the predictions that --save-logits kept."
)
@threads_option
@kv_type_options
@repack_option
@gpu_option
@json_option
def command(
    model: str | None,
    file: str | None,
    ctx: int,
    save_logits: str | None,
    kl_base: str | None,
    threads: int | None,
    type_k: str,
    type_v: str,
    repack: Repack,
    n_gpu_layers: GpuLayers,
    as_json: bool,
) -> None:
    """Measure how well a model predicts a text; lower is better.

    llama.cpp's rule, so that figures compare: windows of -c tokens without overlap, the second
    half of each scored. With --json: {"ppl": ..., "n_tokens": ...}, n_tokens being those scored;
    with --kl-base also "kl_divergence" (mean, in nats) with its "kl_error" (standard error),
    "kl_median", "kl_p99", "kl_max", "top1_agreement" and "base_ppl".
    """
    if file is None and sys.stdin.isatty():
        raise click.UsageError("Give --file or piped input.")
    if save_logits is not None and kl_base is not None:
        raise click.UsageError("Give either --save-logits or --kl-base, not both.")
    text = read_input(file or "-")
    path = find_model(model)
    loaded = open_model(
        path,
        threads=threads,
        repack=repack,
        n_gpu_layers=n_gpu_layers,
        n_ctx=ctx,
        type_k=type_k,
        type_v=type_v,
    )

    # numpy is imported with it, after the usage errors.
    from ..eval.log_probs import DivergenceMeter, LogProbReader, LogProbWriter, Scored
    from ..eval.perplexity import perplexity, window_tokens

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
    tokens = window_tokens(loaded.tokenizer, text, ctx)
    scored = Scored.of(tokens, ctx, loaded.config.n_vocab)
    with contextlib.ExitStack() as files:
        on_rows: Callable[[LogProbs, Sequence[int]], None] | None = None
        meter = None
        if save_logits is not None:
            writer = files.enter_context(LogProbWriter(save_logits, scored))
            on_rows = writer.add
        if kl_base is not None:
            base = files.enter_context(LogProbReader(kl_base))
            base.check(scored)
            meter = DivergenceMeter(base)
            on_rows = meter.add
        result = perplexity(
            loaded,
            text,
            n_ctx=ctx,
            n_threads=threads or 0,
            type_k=type_k,
            type_v=type_v,
            on_window=show if sys.stderr.isatty() else None,
            on_rows=on_rows,
        )
    _report(result, meter.result() if meter else None, as_json)


def _report(result: Perplexity, divergence: Divergence | None, as_json: bool) -> None:
    if as_json:
        fields = {"ppl": result.ppl, "n_tokens": result.n_tokens}
        if divergence is not None:
            fields |= {
                "kl_divergence": divergence.mean,
                "kl_error": divergence.error,
                "kl_median": divergence.median,
                "kl_p99": divergence.percentile_99,
                "kl_max": divergence.most,
                "top1_agreement": divergence.top1_agreement,
                "base_ppl": divergence.base_ppl,
            }
        click.echo(json.dumps(fields))
        return
    click.echo(f"perplexity {result.ppl:.4f} +/- {result.error:.4f} over {result.n_tokens} tokens")
    if divergence is not None:
        click.echo(
            f"KL divergence {divergence.mean:.6f} +/- {divergence.error:.6f}"
            f" (median {divergence.median:.6f}, 99% below {divergence.percentile_99:.6f},"
            f" most {divergence.most:.6f})\n"
            f"same best token {divergence.top1_agreement:.2%}\n"
            f"perplexity of the base {divergence.base_ppl:.4f}"
        )
