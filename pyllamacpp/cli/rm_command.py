"""pyllamacpp rm"""

from __future__ import annotations

import click

from ..models.cache import remove
from .group import ExampleCommand
from .runtime import status


@click.command(
    "rm",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp rm smollm2-135m",
    ],
)
@click.argument("name")
def command(name: str) -> None:
    """Remove the fetched model NAME from the cache."""
    status(f"removed {remove(name)}")
