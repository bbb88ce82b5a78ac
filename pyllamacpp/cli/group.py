"""The list of commands, and help that ends with examples.

A command is imported when it runs, so that none pays for the others.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import click

_COMMANDS = {
    "bench": "Measure speed, and its share of this machine's limits.",
    "chat": "Chat in the terminal, or answer one prompt.",
    "convert": "Convert Meta's or Hugging Face's checkpoint to one GGUF.",
    "devices": "List the GPUs of this machine.",
    "embed": "Turn texts into vectors.",
    "generate": "Continue a text.",
    "imatrix": "Measure which weights matter most, for quantize.",
    "inspect": "Show what a GGUF file holds.",
    "merge-lora": "Write a model with LoRA adapters added to its weights.",
    "models": "List the models that are here or can be fetched.",
    "perplexity": "Measure how well a model predicts a text.",
    "plan": "Show what a model would take of this machine's memory.",
    "pull": "Fetch a model into the cache.",
    "quantize": "Store a GGUF's weights in fewer bits.",
    "rm": "Remove a fetched model.",
    "serve": "Serve models over HTTP, as OpenAI's clients expect it.",
    "tokenize": "Show the tokens of a text.",
}


def _write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    with formatter.section("Examples"):
        for example in examples:
            formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


class ExampleCommand(click.Command):
    """A command whose help ends with examples, one command line each."""

    def __init__(self, *args: Any, examples: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the examples as they are typed."""
        _write_examples(formatter, self.examples)


class CommandGroup(click.Group):
    """Finds the command A-NAME in the module `pyllamacpp.cli.a_name_command`."""

    def __init__(self, *args: Any, examples: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the examples as they are typed."""
        _write_examples(formatter, self.examples)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Names of all commands, sorted."""
        return sorted(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now; None if there is none."""
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        module = importlib.import_module(f".{name}_command", __package__)
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list from the table above, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))
