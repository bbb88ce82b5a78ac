"""The `pyllamacpp` command.

Only the answer goes to stdout; status, progress and errors go to stderr. Exit codes: 0, 1 for an
error (one sentence), 2 for a wrong command line, 130 after Ctrl-C, 141 when the reader of stdout
has gone.
"""

from __future__ import annotations

import os
import sys

import click

from .. import __version__
from ..errors import PyllamacppError
from .group import CommandGroup

INTERRUPTED = 130
BROKEN_PIPE = 141


@click.group(
    cls=CommandGroup,
    examples=[
        "pyllamacpp chat",
        'pyllamacpp chat "Name the capital city of France."',
        'pyllamacpp generate -p "Once upon a time" -n 64',
    ],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="pyllamacpp %(version)s")
def commands() -> None:
    """Chat with and measure LLaMA models on this machine.

    MODEL, wherever -m/--model takes one, is the path of a GGUF file, the name of a fetched model,
    or hf:OWNER/REPO/FILE, a file of the Hugging Face hub; without it the default model is used,
    which is fetched once.
    """


def main() -> None:
    """Runs the command line of this process and exits."""
    sys.exit(_run())


def _run() -> int:
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a replacement, not a traceback.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        code = _invoke()
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at exit; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


def _invoke() -> int:
    try:
        result = commands.main(prog_name="pyllamacpp", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _fail(error.format_message())
    except BrokenPipeError:
        raise
    except (PyllamacppError, OSError, MemoryError, ImportError) as error:
        return _fail(str(error) or type(error).__name__)


def _fail(sentence: str) -> int:
    click.echo(f"pyllamacpp: error: {sentence}", err=True)
    return 1
