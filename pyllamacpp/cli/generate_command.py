"""pyllamacpp generate"""

from __future__ import annotations

import json
import sys

import click

from .group import ExampleCommand
from .options import (
    argument_bytes,
    context_option,
    file_option,
    json_option,
    model_option,
    read_input,
    sampling_options,
    threads_option,
)
from .runtime import generation_params, open_engine


@click.command(
    "generate",
    cls=ExampleCommand,
    examples=[
        'pyllamacpp generate -p "The capital of France is" -n 8 --temp 0',
        "pyllamacpp generate -f prompt.txt -n -1 --seed 7",
        'echo "Once upon a time" | pyllamacpp generate --json',
    ],
)
@model_option
@click.option("-p", "--prompt", metavar="TEXT", help="The text to continue.")
@file_option("Take the prompt from FILE (- is stdin).")
@click.option(
    "-n",
    "--max-tokens",
    default=128,
    show_default=True,
    type=click.IntRange(min=-1),
    help="Tokens to generate at most; -1: until the context is full.",
)
@context_option
@threads_option
@sampling_options
@json_option
def command(
    model: str | None,
    prompt: str | None,
    file: str | None,
    max_tokens: int,
    ctx: int | None,
    threads: int | None,
    seed: int | None,
    temp: float,
    top_k: int,
    top_p: float,
    min_p: float,
    as_json: bool,
) -> None:
    """Continue a text (raw completion, no chat template), streaming the continuation to stdout.

    Special tokens in the prompt are parsed. With --json one object: "text" is the continuation,
    "tokens" the generated ids without an end-of-text token, "finish_reason" "stop" or "length".
    """
    if prompt is not None and file is not None:
        raise click.UsageError("Give either --prompt or --file, not both.")
    if prompt is None and file is None and sys.stdin.isatty():
        raise click.UsageError("Give --prompt, --file or piped input.")
    data = argument_bytes(prompt) if prompt is not None else read_input(file or "-")
    params = generation_params(max_tokens, seed, temp, top_k, top_p, min_p)
    engine = open_engine(model, threads, ctx)
    tokenizer = engine.model.tokenizer

    texts: list[str] = []
    tokens: list[int] = []
    reason = None
    for step in engine.start(tokenizer.encode(data, True, True), params):
        texts.append(step.text)
        if step.token is not None and not tokenizer.ends_generation(step.token):
            tokens.append(step.token)
        reason = step.finish_reason
        if not as_json:
            click.echo(step.text, nl=False)
    if as_json:
        result = {"text": "".join(texts), "tokens": tokens, "finish_reason": reason}
        click.echo(json.dumps(result))
    else:
        click.echo()
