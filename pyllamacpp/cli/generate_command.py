"""pyllamacpp generate"""

from __future__ import annotations

import json
import sys

import click

from ..params import GenerationParams, SamplingParams
from .group import ExampleCommand
from .options import (
    EngineOptions,
    argument_bytes,
    engine_options,
    file_option,
    grammar_of_options,
    json_option,
    read_input,
    sampling_options,
    structure_options,
)
from .runtime import open_engine, with_grammar


@click.command(
    "generate",
    cls=ExampleCommand,
    examples=[
        'pyllamacpp generate -p "The capital of France is" -n 8 --temp 0',
        "pyllamacpp generate -f prompt.txt -n -1 --seed 7",
        "pyllamacpp generate -p 'A cat as JSON: ' --json-schema @cat.schema.json",
        'echo "Once upon a time" | pyllamacpp generate --json',
    ],
)
@engine_options
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
@sampling_options
@structure_options
@json_option
def command(
    options: EngineOptions,
    prompt: str | None,
    file: str | None,
    max_tokens: int,
    sampling: SamplingParams,
    grammar_file: str | None,
    json_schema: str | None,
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
    params = GenerationParams(max_tokens=max_tokens, sampling=sampling)
    grammar = grammar_of_options(grammar_file, json_schema)
    engine = open_engine(options)
    tokenizer = engine.model.tokenizer

    texts: list[str] = []
    tokens: list[int] = []
    reason = None
    ids = tokenizer.encode(data, True, True)
    for step in engine.start(ids, with_grammar(params, grammar, engine)):
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
