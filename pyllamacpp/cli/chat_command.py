"""pyllamacpp chat"""

from __future__ import annotations

import sys

import click

from ..chat.format import ChatFormat
from ..params import GenerationParams, SamplingParams, WhenFull
from .chat.conversation import Conversation
from .chat.loop import Chat
from .chat.screen import open_screen
from .group import ExampleCommand
from .options import (
    EngineOptions,
    engine_options,
    file_option,
    grammar_of_options,
    json_option,
    read_input,
    sampling_options,
    structure_options,
)
from .runtime import open_engine


@click.command(
    "chat",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp chat",
        'pyllamacpp chat "Name the capital city of France." --temp 0',
        'pyllamacpp chat "Put this into one sentence:" -f letter.txt',
        "pyllamacpp chat --resume last --when-full shift",
        'git log -5 | pyllamacpp chat --system "Write release notes."',
    ],
)
@engine_options
@click.option("--system", metavar="TEXT", help="The system message.")
@file_option("Take the prompt (or what follows PROMPT) from FILE (- is stdin).")
@click.option(
    "-n",
    "--max-tokens",
    default=-1,
    type=click.IntRange(min=-1),
    help="Tokens of one answer at most.  [default: until the context is full]",
)
@click.option(
    "--when-full",
    type=click.Choice(["stop", "shift", "error"]),
    default="stop",
    show_default=True,
    help="A full context ends the answer, drops what is oldest, or is an error.",
)
@click.option("--resume", metavar="NAME", help="Go on with a saved conversation; last: the last.")
@click.option("--stats", is_flag=True, help="Show the speed of each answer (as /stats does).")
@json_option
@sampling_options
@structure_options
@click.argument("prompt", required=False)
def command(
    options: EngineOptions,
    system: str | None,
    file: str | None,
    max_tokens: int,
    when_full: WhenFull,
    resume: str | None,
    stats: bool,
    as_json: bool,
    sampling: SamplingParams,
    grammar_file: str | None,
    json_schema: str | None,
    prompt: str | None,
) -> None:
    """Chat in the terminal. With PROMPT, --file or piped stdin: one answer, then exit.

    The conversation is written in the model's own chat template. In a terminal answers are shown
    as Markdown; Ctrl-C stops one, Ctrl-D leaves, /help lists the commands of the chat. Elsewhere
    stdout gets the plain text. With --json one object for each answer: "text", "finish_reason"
    ("stop", "length" or "interrupted"), counts of tokens and tokens per second.
    """
    question = _question(prompt, file)
    params = GenerationParams(max_tokens=max_tokens, sampling=sampling, when_full=when_full)
    grammar = grammar_of_options(grammar_file, json_schema)
    engine = open_engine(options)
    chat_format = ChatFormat.of_model(engine.model)
    conversation = Conversation(engine, chat_format, params, system, grammar)
    chat = Chat(conversation, open_screen(as_json), options, stats)
    if resume is not None:
        chat.resume(resume)
    if question is not None:
        chat.answer_once(question)
    else:
        chat.run()


def _question(prompt: str | None, file: str | None) -> str | None:
    """The one question, None for a chat."""
    if prompt is None and file is None:
        if sys.stdin.isatty():
            return None
        file = "-"
    parts = [] if prompt is None else [prompt]
    if file is not None:
        # Bytes that are no UTF-8 travel as surrogates and come out as they were.
        parts.append(read_input(file).decode("utf-8", "surrogateescape").rstrip("\n"))
    question = "\n\n".join(parts)
    if not question.strip():
        raise click.UsageError("The prompt is empty.")
    return question
