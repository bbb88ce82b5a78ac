"""pyllamacpp quantize"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import _core
from .group import ExampleCommand
from .options import threads_option
from .quantizing import cost_of, notes_of, quantizing_options, types_of, write
from .runtime import find_model, status

if TYPE_CHECKING:
    from pyllamacpp_convert.quantize import QuantizePlan


@click.command(
    "quantize",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp quantize model-f16.gguf model-q4_k_m.gguf q4_k_m",
        "pyllamacpp quantize model-f16.gguf small.gguf q2_k --imatrix model.imatrix",
        "pyllamacpp quantize model-f16.gguf mixed.gguf q4_0 --tensor-type ffn_down=q6_k",
        "pyllamacpp quantize model-f16.gguf model-q4_k_m.gguf q4_k_m --dry-run",
    ],
)
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.argument("file_type", metavar="TYPE")
@quantizing_options
@click.option(
    "--allow-requantize",
    is_flag=True,
    help="Also quantize what is quantized already, at a further loss.",
)
@click.option("--verify", is_flag=True, help="Compare every tensor with IN afterwards.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@threads_option
def command(
    source: str,
    target: Path,
    file_type: str,
    pure: bool,
    imatrix: Path | None,
    tensor_types: Sequence[tuple[str, str]],
    output_type: str | None,
    embedding_type: str | None,
    force: bool,
    dry_run: bool,
    allow_requantize: bool,
    verify: bool,
    resume: bool,
    threads: int | None,
) -> None:
    """Write the model IN to OUT with its weights stored in TYPE.

    IN is a GGUF file (of a split one the first part) or the name of a fetched model. TYPE, in any
    case, is one of f32, f16, bf16, q8_0, q6_k, q5_1, q5_k_m, q5_k_s, q5_0, q4_1, q4_k_m, q4_k_s,
    q4_0, iq4_nl, iq4_xs, q3_k_l, q3_k_m, q3_k_s and q2_k; docs/quantization.md says what each does
    with which matrix.

    OUT appears when it is complete and its header was read back; until then there is OUT.part.
    Memory holds a few bands of rows, whatever the size of the model.
    """
    # numpy and gguf are imported with these, after the usage errors.
    from pyllamacpp_convert.quantize import plan_quantization

    plan = plan_quantization(
        find_model(source),
        file_type,
        pure=pure,
        imatrix=imatrix,
        tensor_types=tensor_types,
        output_type=output_type,
        embedding_type=embedding_type,
        allow_requantize=allow_requantize,
    )
    n_threads = threads or _core.default_thread_count()
    if dry_run:
        click.echo(_page(plan, n_threads))
        return
    seconds = write(plan, target, n_threads=n_threads, force=force, verify=verify, resume=resume)
    for line in _notes(plan):
        status(line)
    status(f"{target}: {_sizes(plan)}, {seconds:.1f} s")


def _sizes(plan: QuantizePlan) -> str:
    before, after = plan.n_bytes_before / 1e6, plan.n_bytes / 1e6
    bits = plan.bits_per_weight
    return f"{plan.file_type}, {before:,.1f} MB to {after:,.1f} MB, {bits:.2f} bits per weight"


def _notes(plan: QuantizePlan) -> list[str]:
    lines = notes_of(plan)
    if plan.n_copied:
        lines.append(f"{plan.n_copied} tensors have their type already and are copied")
    return lines


def _page(plan: QuantizePlan, n_threads: int) -> str:
    return "\n".join([_sizes(plan), *types_of(plan), *_notes(plan), cost_of(plan, n_threads)])
