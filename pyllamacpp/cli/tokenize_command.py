"""pyllamacpp tokenize"""

from __future__ import annotations

import json
import sys

import click

from .. import _core
from .group import ExampleCommand
from .options import argument_bytes, file_option, json_option, model_option, read_input
from .runtime import find_model


@click.command(
    "tokenize",
    cls=ExampleCommand,
    examples=[
        'pyllamacpp tokenize "Hello, world!"',
        "pyllamacpp tokenize --json -f letter.txt",
        'pyllamacpp tokenize --special "<|im_start|>user"',
    ],
)
@model_option
@file_option("Take the text from FILE (- is stdin).")
@click.option("--special", is_flag=True, help="Parse special tokens in the text.")
@click.option("--no-bos", is_flag=True, help="Leave out the beginning-of-sequence token.")
@json_option
@click.argument("text", required=False)
def command(
    model: str | None,
    file: str | None,
    special: bool,
    no_bos: bool,
    as_json: bool,
    text: str | None,
) -> None:
    """Show the ids and pieces of TEXT, of a file or of piped stdin.

    With --json: {"ids": [...], "pieces": [...]}. Bytes of a piece that are no whole character
    are written as backslash escapes.
    """
    if text is not None and file is not None:
        raise click.UsageError("Give either TEXT or --file, not both.")
    if text is None and file is None and sys.stdin.isatty():
        raise click.UsageError("Give TEXT, --file or piped input.")
    data = argument_bytes(text) if text is not None else read_input(file or "-")
    tokenizer = _core.Tokenizer.from_gguf(str(find_model(model)))
    ids = tokenizer.encode(data, not no_bos, special)
    pieces = [tokenizer.piece(token, True) for token in ids]
    if as_json:
        texts = [piece.decode("utf-8", "backslashreplace") for piece in pieces]
        click.echo(json.dumps({"ids": ids, "pieces": texts}))
        return
    for token, piece in zip(ids, pieces, strict=True):
        click.echo(f"{token:>8}  {_shown(piece)}")


def _shown(piece: bytes) -> str:
    try:
        return json.dumps(piece.decode(), ensure_ascii=False)
    except UnicodeDecodeError:
        return repr(piece)
