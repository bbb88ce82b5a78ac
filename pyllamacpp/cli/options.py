"""Options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import FileError

F = TypeVar("F", bound=Callable[..., Any])

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
    for flags, what in ((("-ctk", "--type-k"), "keys"), (("-ctv", "--type-v"), "values")):
        text = f"Type of the cached {what}."
        command = click.option(*flags, type=_KV_TYPES, default="f16", show_default=True, help=text)(
            command
        )
    return command


def file_option(text: str) -> Callable[[F], F]:
    """-f/--file with its own help text; "-" is stdin."""
    return click.option("-f", "--file", "file", metavar="FILE", help=text)


def sampling_options(command: F) -> F:
    """--seed, --temp, --top-k, --top-p, --min-p."""
    for option in (
        click.option("--min-p", default=0.05, show_default=True, help="Least share of the best."),
        click.option("--top-p", default=0.95, show_default=True, help="Nucleus; 1 is off."),
        click.option("--top-k", default=40, show_default=True, help="Best tokens kept; 0 is all."),
        click.option("--temp", default=0.8, show_default=True, help="Temperature; 0 is greedy."),
        click.option(
            "--seed",
            type=click.IntRange(0, (1 << 64) - 1),
            help="Same seed, same text.  [default: random]",
        ),
    ):
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
