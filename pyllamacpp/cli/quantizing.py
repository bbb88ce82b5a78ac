"""Options and lines that `convert` and `quantize` share."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import F
from .progress import ByteProgress
from .runtime import status

if TYPE_CHECKING:
    from pyllamacpp_convert.plan import Plan

# The keys of mixture.FILE_TYPES, stated here so that help imports nothing.
TYPE_NAMES = (
    "f32 f16 bf16 q8_0 q6_k q5_1 q5_k_m q5_k_s q5_0 q4_1 q4_k_m q4_k_s q4_0 iq4_nl iq4_xs q3_k_l "
    "q3_k_m q3_k_s q2_k"
)


def _tensor_types(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, str]]:
    pairs = []
    for value in values:
        regex, _, dtype = value.rpartition("=")
        if not regex or not dtype:
            raise click.BadParameter(f"{value!r} is not REGEX=TYPE, such as ffn_down=q6_k")
        pairs.append((regex, dtype))
    return pairs


_OPTIONS = [
    click.option("--pure", is_flag=True, help="Every matrix in TYPE itself, no mixture."),
    click.option(
        "--imatrix",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="What `pyllamacpp imatrix` wrote: columns that matter more get less error.",
    ),
    click.option(
        "--tensor-type",
        "tensor_types",
        metavar="REGEX=TYPE",
        multiple=True,
        callback=_tensor_types,
        help="Type of the matrices whose name matches; may be repeated.",
    ),
    click.option("--output-type", metavar="TYPE", help="Type of the output matrix."),
    click.option("--embedding-type", metavar="TYPE", help="Type of the token embedding."),
    click.option("--force", is_flag=True, help="Replace OUT if it is there."),
    click.option(
        "--dry-run",
        is_flag=True,
        help="Only say what would be written, its size, memory and time.",
    ),
]


def quantizing_options(function: F) -> F:
    """--pure, --imatrix, --tensor-type, --output-type, --embedding-type, --force, --dry-run."""
    wrapped: Any = function
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    result: F = wrapped
    return result


def write(
    plan: Plan, target: Path, *, n_threads: int, force: bool, verify: bool, resume: bool
) -> float:
    """Writes a plan to one file with a progress bar; seconds. Raises what writing it raises."""
    # numpy and gguf are imported with it.
    from pyllamacpp_convert.plan import refuse_target, write_plan

    refuse_target(plan.sources, target, force=force)
    began = time.monotonic()
    try:
        with ByteProgress() as progress:
            write_plan(
                plan,
                target,
                n_threads=n_threads,
                verify=verify,
                resume=resume,
                progress=progress.update,
            )
    except KeyboardInterrupt:
        status(INTERRUPTED)
        raise
    return time.monotonic() - began


INTERRUPTED = "interrupted; the same command with --resume goes on"


def notes_of(plan: Plan) -> list[str]:
    """What the user should know of a plan, a line each."""
    lines = list(plan.notes)
    kinds = Counter((f.n_columns, f.wanted, f.dtype) for f in plan.fallbacks)
    lines += [
        f"{count} {'matrix' if count == 1 else 'matrices'} of {columns} columns: {dtype} instead "
        f"of {wanted}, which holds rows of multiples of {32 if dtype in ('f16', 'f32') else 256}"
        for (columns, wanted, dtype), count in kinds.items()
    ]
    if plan.without_importance:
        first, n = plan.without_importance[0], len(plan.without_importance)
        others = f" and {n - 1} others" if n > 1 else ""
        lines.append(f"the importance matrix does not name {first}{others}")
    return lines


def types_of(plan: Plan) -> list[str]:
    """How many tensors have which type, a line each."""
    types, n_bytes = Counter[str](), Counter[str]()
    for job in plan.jobs:
        types[job.spec.dtype] += 1
        n_bytes[job.spec.dtype] += job.spec.n_bytes
    return [
        f"  {dtype:<6} {n:>5} tensors {n_bytes[dtype] / 1e6:>12,.1f} MB"
        for dtype, n in types.most_common()
    ]


def cost_of(plan: Plan, n_threads: int) -> str:
    """Memory and time, in a line."""
    memory, seconds = plan.memory(n_threads), plan.seconds(n_threads)
    return f"about {memory / 1e6:,.0f} MB of memory and {seconds:,.0f} s with {n_threads} threads"
