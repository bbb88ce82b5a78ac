"""pyllamacpp convert"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import _core
from .group import ExampleCommand
from .options import parse_size, threads_option
from .progress import ByteProgress
from .quantizing import INTERRUPTED, TYPE_NAMES, cost_of, notes_of, quantizing_options, types_of
from .runtime import status

if TYPE_CHECKING:
    from pyllamacpp_convert.plan import Plan


@click.command(
    "convert",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp convert LLaMA/65B -o llama-65b-q4_k_m.gguf",
        "pyllamacpp convert Meta-Llama-3-8B --type q8_0 --verify",
        "pyllamacpp convert LLaMA/13B --vocab LLaMA/tokenizer.model --dry-run",
    ],
)
@click.argument("source", metavar="SRC", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="The GGUF to write.  [default: SRC's name and the type, here]",
)
@click.option(
    "--type",
    "file_type",
    metavar="TYPE",
    default="q4_k_m",
    show_default=True,
    help=f"Of the weights: {TYPE_NAMES}.",
)
@click.option(
    "--vocab",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="The tokenizer's file or folder.  [default: beside the weights or one level above]",
)
@click.option(
    "--ctx",
    metavar="N",
    type=click.IntRange(min=1),
    help="Tokens of context the model was made for; Meta's files do not say.",
)
@click.option(
    "--rope-scale-factor",
    metavar="X",
    type=click.FloatRange(min=1),
    help="Of LLaMA 3.1's scaled positions; Meta's files do not say.  [default: 8, or 32 for 3.2]",
)
@quantizing_options
@threads_option
@click.option(
    "--split-max-size",
    metavar="SIZE",
    callback=parse_size,
    help="Write several files with at most so many bytes of weights each, e.g. 4G.",
)
@click.option("--verify", is_flag=True, help="Compare every tensor with its source afterwards.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option("--no-checksum", is_flag=True, help="Do not verify checklist.chk.")
def command(
    source: Path,
    output: Path | None,
    file_type: str,
    vocab: Path | None,
    ctx: int | None,
    rope_scale_factor: float | None,
    imatrix: Path | None,
    pure: bool,
    tensor_types: list[tuple[str, str]],
    output_type: str | None,
    embedding_type: str | None,
    threads: int | None,
    split_max_size: int | None,
    verify: bool,
    resume: bool,
    no_checksum: bool,
    force: bool,
    dry_run: bool,
) -> None:
    """Convert the checkpoint in the folder SRC to one quantized GGUF, in one pass.

    SRC is a download of Meta's (consolidated.*.pth, one shard or several, and params.json) or of
    Hugging Face's (config.json and *.safetensors or *.bin). Memory does not grow with the model,
    and there is no file in between. OUT appears when all of it is written and read back; what an
    interrupted run leaves (OUT.part) is for --resume.
    """
    # numpy and gguf are imported with these, after the usage errors.
    from pyllamacpp_convert.convert import plan_conversion
    from pyllamacpp_convert.plan import refuse_target, write_plan

    name = source.absolute().name
    target = output if output is not None else Path(f"{name}-{file_type.lower()}.gguf")
    if not dry_run:
        refuse_target([], target, force=force)
    began = time.monotonic()
    try:
        with ByteProgress() as progress:
            plan = plan_conversion(
                source,
                file_type,
                vocab=vocab,
                ctx=ctx,
                rope_scale_factor=rope_scale_factor,
                imatrix=imatrix,
                pure=pure,
                tensor_types=tensor_types,
                output_type=output_type,
                embedding_type=embedding_type,
                checksum=not no_checksum,
                progress=progress.update,
            )
            n_threads = threads or _core.default_thread_count()
            if dry_run:
                click.echo(_page(plan, n_threads))
                return
            progress.end()
            for note in notes_of(plan):
                status(note)
            files = write_plan(
                plan,
                target,
                n_threads=n_threads,
                split_max_bytes=split_max_size,
                verify=verify,
                resume=resume,
                progress=progress.update,
            )
    except KeyboardInterrupt:
        status(INTERRUPTED)
        raise
    status(f"{_size(plan)}, {time.monotonic() - began:.1f} s")
    for file in files:
        click.echo(str(file))


def _size(plan: Plan) -> str:
    return (
        f"{plan.file_type}, {plan.n_weights / 1e9:.2f} billion weights, "
        f"{plan.n_bytes / 1e6:,.1f} MB, {plan.bits_per_weight:.2f} bits per weight"
    )


def _page(plan: Plan, n_threads: int) -> str:
    lines = [
        f"{job.spec.name:<28} {' x '.join(map(str, job.spec.shape)):>15}  "
        f"{job.source.dtype:>4} to {job.spec.dtype:<6} {job.spec.n_bytes / 1e6:>10,.1f} MB"
        for job in plan.jobs
    ]
    return "\n".join(
        [*lines, *notes_of(plan), _size(plan), *types_of(plan), cost_of(plan, n_threads)]
    )
