"""pyllamacpp bench"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from .. import _core
from ..loading import GpuLayers, Repack
from .group import ExampleCommand
from .options import (
    batch_option,
    gpu_option,
    json_option,
    kv_type_options,
    model_option,
    repack_option,
    threads_option,
)
from .runtime import find_model, open_model, status

if TYPE_CHECKING:
    from ..eval.bench import Result


def _counts(_context: click.Context, _option: click.Parameter, text: str) -> list[int]:
    """Numbers separated by commas. Raises click.BadParameter for anything else."""
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 8 for part in parts):
        raise click.BadParameter(f"{text!r} is not a number or several separated by commas")
    return [int(part) for part in parts]


@click.command(
    "bench",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp bench",
        "pyllamacpp bench -m model.gguf -p 512,2048 -n 128 -t 4",
        "pyllamacpp bench -m model.gguf -p 0 -n 64 -d 0,4096 --type-k q8_0 --type-v q8_0 --json",
    ],
)
@model_option
@click.option(
    "-p",
    "--prompt",
    "prompts",
    metavar="N[,N...]",
    callback=_counts,
    default="512",
    show_default=True,
    help="Tokens of a prompt; 0: none.",
)
@click.option(
    "-n",
    "--generate",
    "generations",
    metavar="N[,N...]",
    callback=_counts,
    default="128",
    show_default=True,
    help="Tokens to generate; 0: none.",
)
@click.option(
    "-d",
    "--depth",
    "depths",
    metavar="N[,N...]",
    callback=_counts,
    default="0",
    show_default=True,
    help="Tokens before them.",
)
@click.option(
    "-r", "--reps", default=5, show_default=True, type=click.IntRange(min=1), help="Repetitions."
)
@batch_option
@threads_option
@kv_type_options
@repack_option
@gpu_option
@json_option
def command(
    model: str | None,
    prompts: list[int],
    generations: list[int],
    depths: list[int],
    reps: int,
    batch: int,
    threads: int | None,
    type_k: str,
    type_v: str,
    repack: Repack,
    n_gpu_layers: GpuLayers,
    as_json: bool,
) -> None:
    """Measure tokens per second, and what share of this machine's limits they are.

    The limits are measured in the same run. Prompts (pp) are held against the int8 arithmetic of
    the tier in use (float32 for float weights and for attention): two operations per weight and
    token, four per value of a head and key that a token sees. Generation (tg; greedy, sampling
    included) is held against reading memory: all weights and the keys and values of the tokens
    before. A model that fits into the caches can exceed that. With layers on a GPU (-ngl) all of
    the work is still held against the CPU's limits.

    --json writes a list of {"test", "tokens_per_s", "share_of_limit", ...}.
    """
    prompts, generations = ([n for n in counts if n] for counts in (prompts, generations))
    if not prompts and not generations:
        raise click.UsageError("Give a prompt or a number of tokens to generate.")
    path = find_model(model)
    n_ctx = max(depths) + max(prompts + generations) + 1
    loaded = open_model(
        path,
        threads=threads,
        repack=repack,
        n_gpu_layers=n_gpu_layers,
        n_ctx=n_ctx,
        n_batch=batch,
        type_k=type_k,
        type_v=type_v,
    )

    # numpy is imported with it, after the usage errors.
    from ..eval.bench import Bench, run

    bench = Bench(
        loaded,
        n_ctx=n_ctx,
        n_threads=threads or 0,
        n_batch=batch,
        type_k=type_k,
        type_v=type_v,
    )
    status(f"{path.stem}, {bench.context.n_threads} threads, {_core.isa()}")
    results = []
    for result in run(bench, prompts, generations, depths, reps):
        results.append(result)
        if not as_json:
            if len(results) == 1:
                click.echo(_HEAD)
            click.echo(_line(result))
    if as_json:
        click.echo(json.dumps([_object(result) for result in results], indent=2))
    elif results:
        click.echo(_limits(results))
    sys.stdout.flush()


_HEAD = f"{'test':<14} {'tokens/s':>10}  {'least - most':>19}  {'rate':>12}  share of limit"


def _unit(result: Result) -> str:
    return "Gop/s" if result.test.startswith("pp") else "GB/s"


def _line(result: Result) -> str:
    spread = f"{result.least:.1f} - {result.most:.1f}"
    rate = f"{result.rate / 1e9:.1f} {_unit(result)}"
    limit = f"{result.limit / 1e9:.1f} {_unit(result)}"
    return (
        f"{result.test:<14} {result.tokens_per_s:>10.1f}  {spread:>19}  {rate:>12}"
        f"  {result.share_of_limit:.0%} of {limit}"
    )


def _limits(results: list[Result]) -> str:
    limits = results[0].limits
    for result in results[1:]:
        limits = limits.best(result.limits)
    return (
        f"limits: reads {limits.read_bytes / 1e9:.1f} GB/s, int8 {limits.int8_ops / 1e9:.0f} Gop/s,"
        f" float32 {limits.float_ops / 1e9:.0f} Gop/s"
    )


def _object(result: Result) -> dict[str, object]:
    prompt = result.test.startswith("pp")
    return {
        "test": result.test,
        "tokens_per_s": result.tokens_per_s,
        "share_of_limit": result.share_of_limit,
        "tokens_per_s_least": result.least,
        "tokens_per_s_most": result.most,
        "reps": result.n_reps,
        "n_threads": result.n_threads,
        "isa": _core.isa(),
        "ops_per_token" if prompt else "bytes_per_token": result.amount,
        "ops_per_s" if prompt else "bytes_per_s": result.rate,
        "limit_per_s": result.limit,
        "read_bytes_per_s_limit": result.limits.read_bytes,
        "int8_ops_per_s_limit": result.limits.int8_ops,
        "float_ops_per_s_limit": result.limits.float_ops,
    }
