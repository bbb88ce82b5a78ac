"""The chat in a terminal: reads lines, knows a few commands, hands the rest to the conversation."""

from __future__ import annotations

import sys

import click

from .conversation import Conversation
from .runtime import status

_PROMPT = "> "
_HELP = (
    "/clear  start a new conversation\n"
    "/exit   leave (as Ctrl-D, or Ctrl-C twice)\n"
    "/help   this list\n"
    "Ctrl-C stops an answer."
)


def run(conversation: Conversation) -> None:
    """Runs until the user leaves."""
    _enable_line_editing()
    click.echo("Type a question. /help lists the commands, Ctrl-D leaves.", err=True)
    was_interrupted = False
    while True:
        try:
            line = _read_line().strip()
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo(err=True)
            if was_interrupted:
                return
            was_interrupted = True
            continue
        was_interrupted = False
        if line == "/exit":
            return
        if line == "/clear":
            conversation.clear()
            status("a new conversation")
        elif line == "/help":
            click.echo(_HELP, err=True)
        elif line.startswith("/"):
            status(f"there is no command {line.split()[0]}; /help lists them")
        elif line:
            conversation.answer(line)


def _enable_line_editing() -> None:
    """Arrow keys and history, where this Python was built with readline."""
    try:
        import readline  # noqa: F401 - importing it is what enables it
    except ImportError:
        status("no line editing: this Python has no readline")


def _read_line() -> str:
    if sys.stdout.isatty():
        return input(_PROMPT)
    # stdout is kept for the answers.
    sys.stderr.write(_PROMPT)
    sys.stderr.flush()
    return input()
