"""Options that several commands share."""

from __future__ import annotations

import dataclasses
import functools
import random
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import FileError
from ..loading import GpuLayers, Repack
from ..params import SamplingParams, sampler_names

F = TypeVar("F", bound=Callable[..., Any])

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_size(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """Bytes of a size such as 16G or 512M, in powers of 1024."""
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    n_bytes = int(float(match[1]) * 1024 ** _POWERS[match[2].upper()]) if match else 0
    if not 0 < n_bytes < 1 << 60:
        raise click.BadParameter(f"{text!r} is not a size such as 16G or 512M")
    return n_bytes


model_option = click.option(
    "-m",
    "--model",
    metavar="MODEL",
    help="GGUF file, name of a fetched model, or hf:OWNER/REPO/FILE.  [default: the default "
    "model, fetched once]",
)

threads_option = click.option(
    "-t",
    "--threads",
    type=click.IntRange(min=1),
    help="Threads.  [default: what this machine or container has]",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")

context_option = click.option(
    "-c",
    "--ctx",
    type=click.IntRange(min=1),
    help="Tokens of context.  [default: the least of the model's own, 4096 and what fits]",
)


batch_option = click.option(
    "-b",
    "--batch",
    default=512,
    show_default=True,
    type=click.IntRange(min=1),
    help="Tokens evaluated in one pass at most.",
)


def _gpu_layers(_context: click.Context, _option: click.Parameter, text: str) -> GpuLayers:
    """What -ngl says. Raises click.BadParameter for anything but "auto" and integers >= -1."""
    if text == "auto":
        return "auto"
    if re.fullmatch(r"-1|[0-9]{1,9}", text):
        return int(text)
    raise click.BadParameter(f"{text!r} is not a number of layers, -1 or auto")


gpu_option = click.option(
    "-ngl",
    "--n-gpu-layers",
    default="0",
    show_default=True,
    metavar="N",
    callback=_gpu_layers,
    help="Layers on the GPU, counted from the end; -1: all, auto: what fits.",
)

op_offload_option = click.option(
    "--op-offload",
    is_flag=True,
    help="Let long prompts stream weights of layers on the CPU through the GPU where that is "
    "measured to be faster.",
)

repack_option = click.option(
    "--repack",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="Lay weights out for speed in memory of their own, or run them from the file's map.",
)

_KV_TYPES = click.Choice(["f32", "f16", "bf16", "q8_0", "q4_0"])


def kv_type_options(command: F) -> F:
    """--type-k, --type-v: of the KV cache."""
    for flags, what in ((("-ctv", "--type-v"), "values"), (("-ctk", "--type-k"), "keys")):
        text = f"Type of the cached {what}."
        command = click.option(*flags, type=_KV_TYPES, default="f16", show_default=True, help=text)(
            command
        )
    return command


def file_option(text: str) -> Callable[[F], F]:
    """-f/--file with its own help text; "-" is stdin."""
    return click.option("-f", "--file", "file", metavar="FILE", help=text)


def structure_options(command: F) -> F:
    """--grammar-file, --json-schema; see `grammar_of_options`."""
    for flag, metavar, text in (
        ("--json-schema", "SCHEMA", "Write JSON that this schema allows; @FILE reads it."),
        ("--grammar-file", "FILE", "Write a text that this GBNF grammar allows."),
    ):
        command = click.option(flag, metavar=metavar, help=text)(command)
    return command


def grammar_of_options(grammar_file: str | None, json_schema: str | None) -> str | None:
    """The grammar that both options ask for, None for any text.

    Raises click.UsageError where both are given, and what `LlamaGrammar` raises.
    """
    if grammar_file is not None and json_schema is not None:
        raise click.UsageError("Give either --grammar-file or --json-schema, not both.")
    if grammar_file is None and json_schema is None:
        return None
    from ..grammar import LlamaGrammar

    if grammar_file is not None:
        return LlamaGrammar.from_file(grammar_file).source
    assert json_schema is not None
    if json_schema.startswith("@"):
        json_schema = read_input(json_schema[1:]).decode("utf-8", "surrogateescape")
    return LlamaGrammar.from_json_schema(json_schema).source


def _biases(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[int, float], ...]:
    """(token, bias) of each ID=BIAS. Raises click.BadParameter for anything else."""
    pairs = []
    for value in values:
        token, _, bias = value.partition("=")
        try:
            pairs.append((int(token), float(bias)))
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not of the form ID=BIAS") from error
    return tuple(pairs)


_SAMPLING = (
    click.option(
        "--seed",
        type=click.IntRange(0, (1 << 64) - 1),
        help="Same seed, same text.  [default: random]",
    ),
    click.option("--temp", default=0.8, show_default=True, help="Temperature; 0 is greedy."),
    click.option("--top-k", default=40, show_default=True, help="Best tokens kept; 0 is all."),
    click.option("--top-p", default=0.95, show_default=True, help="Nucleus; 1 is off."),
    click.option("--min-p", default=0.05, show_default=True, help="Least share of the best."),
    click.option("--tfs", "tfs_z", default=1.0, show_default=True, help="Tail free; 1 is off."),
    click.option("--typical", default=1.0, show_default=True, help="Typical sampling; 1 is off."),
    click.option(
        "--repeat-penalty", default=1.0, show_default=True, help="Of recent tokens; 1 is off."
    ),
    click.option("--frequency-penalty", default=0.0, show_default=True, help="Per recent use."),
    click.option("--presence-penalty", default=0.0, show_default=True, help="If used recently."),
    click.option(
        "--repeat-last-n", default=64, show_default=True, help="Tokens that are recent; -1: all."
    ),
    click.option(
        "--logit-bias",
        metavar="ID=BIAS",
        multiple=True,
        callback=_biases,
        help="Added to a token's logit; may be repeated.",
    ),
    click.option(
        "--dynatemp-range", default=0.0, show_default=True, help="Temperature +- this, by entropy."
    ),
    click.option(
        "--dynatemp-exponent", default=1.0, show_default=True, help="Of the normalised entropy."
    ),
    click.option(
        "--mirostat",
        "mirostat_mode",
        type=click.IntRange(0, 2),
        default=0,
        show_default=True,
        help="1 or 2: in place of top-k, tfs, typical, top-p and min-p.",
    ),
    click.option("--mirostat-tau", default=5.0, show_default=True, help="Surprise wanted, bits."),
    click.option("--mirostat-eta", default=0.1, show_default=True, help="Rate of correction."),
    click.option(
        "--adaptive-target",
        default=-1.0,
        show_default=True,
        help="Adaptive-p: the probability tokens are drawn near; < 0: off.",
    ),
    click.option(
        "--adaptive-decay", default=0.9, show_default=True, help="Of that average, per token."
    ),
    click.option(
        "--dry-multiplier", default=0.0, show_default=True, help="Of repeated sequences; 0 is off."
    ),
    click.option("--dry-base", default=1.75, show_default=True, help="Growth per token."),
    click.option(
        "--dry-allowed-length", default=2, show_default=True, help="Repetitions that are free."
    ),
    click.option(
        "--dry-penalty-last-n", default=-1, show_default=True, help="Tokens looked at; -1: all."
    ),
    click.option(
        "--dry-sequence-breaker",
        "dry_sequence_breakers",
        metavar="TEXT",
        multiple=True,
        default=SamplingParams.dry_sequence_breakers,
        help="No repetition goes across it; may be repeated; none: the usual punctuation.",
    ),
    click.option(
        "--xtc-probability", default=0.0, show_default=True, help="How often likely tokens go."
    ),
    click.option("--xtc-threshold", default=0.1, show_default=True, help="What likely means."),
    click.option(
        "--top-n-sigma", default=-1.0, show_default=True, help="Deviations below the best; -1: off."
    ),
    click.option(
        "--samplers",
        metavar="NAMES",
        help="The steps in their order, parted by ;  [default: penalties;dry;top_n_sigma;top_k;"
        "tfs_z;typ_p;top_p;min_p;xtc;temperature]",
    ),
)


def sampling_options(command: Callable[..., None]) -> Callable[..., None]:
    """How tokens are chosen: the command gets them as `sampling`, SamplingParams."""

    @functools.wraps(command)
    def with_params(
        *,
        seed: int | None,
        temp: float,
        typical: float,
        repeat_last_n: int,
        samplers: str | None,
        **rest: Any,
    ) -> None:
        names = {entry.name for entry in dataclasses.fields(SamplingParams)} & rest.keys()
        sampling = SamplingParams(
            temperature=temp,
            typical_p=typical,
            penalty_last_n=repeat_last_n,
            samplers=None if samplers is None else sampler_names(samplers),
            seed=random.SystemRandom().getrandbits(64) if seed is None else seed,
            **{name: rest.pop(name) for name in names},
        )
        command(sampling=sampling, **rest)

    return _with_all(with_params, _SAMPLING)


@dataclass(frozen=True)
class EngineOptions:
    """What a model is loaded with. ctx: None is the least of its own, 4096 and what fits."""

    model: str | None
    ctx: int | None
    threads: int | None
    batch: int
    type_k: str
    type_v: str
    repack: Repack
    n_gpu_layers: GpuLayers
    op_offload: bool


def engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Which model runs, and how: the command gets them as `options`, EngineOptions."""

    @functools.wraps(command)
    def with_options(**rest: Any) -> None:
        names = [entry.name for entry in dataclasses.fields(EngineOptions)]
        command(options=EngineOptions(**{name: rest.pop(name) for name in names}), **rest)

    return _with_all(
        with_options,
        (
            model_option,
            context_option,
            threads_option,
            batch_option,
            kv_type_options,
            repack_option,
            gpu_option,
            op_offload_option,
        ),
    )


def _with_all(
    command: Callable[..., None], options: Sequence[Callable[..., Any]]
) -> Callable[..., None]:
    """Applies click's decorators so that help lists them in this order."""
    for option in reversed(options):
        command = option(command)
    return command


def read_input(file: str) -> bytes:
    """The bytes of a file, or of stdin for "-". Raises FileError."""
    try:
        if file == "-":
            return sys.stdin.buffer.read()
        return Path(file).read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {file}: {error.strerror}") from error


def argument_bytes(text: str) -> bytes:
    """The bytes that were typed, valid UTF-8 or not."""
    return text.encode("utf-8", "surrogateescape")
