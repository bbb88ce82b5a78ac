"""Options and lines that `convert` and `quantize` share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import F

if TYPE_CHECKING:
    from pyllamacpp_convert.mixture import Fallback

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


def summarize_fallbacks(fallbacks: Sequence[Fallback]) -> list[str]:
    """A line for each kind of matrix that is not of the type that was wanted."""
    kinds = Counter((f.n_columns, f.wanted, f.dtype) for f in fallbacks)
    return [
        f"{count} matrices of {columns} columns are {dtype}: {wanted} holds rows of multiples of "
        f"{32 if dtype in ('f16', 'f32') else 256}"
        for (columns, wanted, dtype), count in kinds.items()
    ]
