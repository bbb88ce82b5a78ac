"""pyllamacpp merge-lora"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import _core
from .group import ExampleCommand
from .options import threads_option
from .quantizing import cost_of, notes_of, types_of, write
from .runtime import find_model, status

if TYPE_CHECKING:
    from pyllamacpp_convert.merge import MergePlan


def _adapters(
    _context: click.Context, _argument: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, float]]:
    return [_adapter(value) for value in values]


def _adapter(value: str) -> tuple[str, float]:
    """PATH or PATH=SCALE; what exists as it is typed is a path."""
    path, equals, scale = value.rpartition("=")
    if not equals or Path(value).exists():
        return value, 1.0
    try:
        return path, float(scale)
    except ValueError:
        raise click.BadParameter(f"{value!r}: {scale!r} is not a number") from None


@click.command(
    "merge-lora",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp merge-lora llama-7b-f16.gguf alpaca-lora -o alpaca-7b-f16.gguf",
        "pyllamacpp merge-lora base.gguf style.gguf=0.5 facts.gguf -o both.gguf",
        "pyllamacpp merge-lora llama-7b-f16.gguf alpaca-lora -o alpaca.gguf --type q4_k_m",
    ],
)
@click.argument("model", metavar="MODEL")
@click.argument(
    "adapters", metavar="ADAPTER[=SCALE]...", nargs=-1, required=True, callback=_adapters
)
@click.option(
    "-o",
    "--output",
    "target",
    metavar="OUT",
    required=True,
    type=click.Path(path_type=Path),
    help="The file to write.",
)
@click.option(
    "--type",
    "file_type",
    metavar="TYPE",
    help="Store all weights in this type, as `quantize` does.  [default: each as it was]",
)
@click.option(
    "--allow-requantize",
    is_flag=True,
    help="With --type: also quantize what is quantized already, at a further loss.",
)
@click.option("--force", is_flag=True, help="Replace OUT if it is there.")
@click.option(
    "--dry-run", is_flag=True, help="Only say what would be written, its size, memory and time."
)
@click.option("--verify", is_flag=True, help="Compare every tensor with its source afterwards.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@threads_option
def command(
    model: str,
    adapters: list[tuple[str, float]],
    target: Path,
    file_type: str | None,
    allow_requantize: bool,
    force: bool,
    dry_run: bool,
    verify: bool,
    resume: bool,
    threads: int | None,
) -> None:
    """Write MODEL with LoRA adapters added to its weights.

    MODEL is a GGUF file (of a split one the first part) or the name of a fetched model. An ADAPTER
    is a GGUF adapter or a folder as PEFT saves it; =SCALE says how much of it is added (1). Weights
    that no adapter changes are copied bit for bit.

    OUT appears when it is complete and its header was read back; until then there is OUT.part.
    Memory holds the adapters and a few bands of rows of the model.
    """
    # numpy and gguf are imported with these, after the usage errors.
    from pyllamacpp_convert.merge import plan_merge

    plan = plan_merge(
        find_model(model), adapters, file_type=file_type, allow_requantize=allow_requantize
    )
    n_threads = threads or _core.default_thread_count()
    lines = [_summary(plan), *notes_of(plan)]
    if dry_run:
        click.echo("\n".join([*lines, *types_of(plan), cost_of(plan, n_threads)]))
        return
    seconds = write(plan, target, n_threads=n_threads, force=force, verify=verify, resume=resume)
    for line in lines:
        status(line)
    size = f"{plan.n_bytes / 1e6:,.1f} MB, {plan.bits_per_weight:.2f} bits per weight"
    status(f"{target}: {plan.file_type}, {size}, {seconds:.1f} s")


def _summary(plan: MergePlan) -> str:
    n = len(plan.adapters)
    return f"{n} adapter{'' if n == 1 else 's'}: {plan.n_merged} of {len(plan.jobs)} tensors change"
