"""pyllamacpp models"""

from __future__ import annotations

import click

from ..models import hub
from ..models.cache import cached_models, cached_path
from ..models.catalogue import CATALOGUE
from .group import ExampleCommand


@click.command(
    "models",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp models",
    ],
)
def command() -> None:
    """List the models in the caches (ours and the hub's), and those that can be fetched."""
    here = cached_models()
    for name in here:
        path = cached_path(name)
        click.echo(f"{name:<20} {path.stat().st_size / 1e6:10.1f} MB  {path}")
    for file, path in hub.cached():
        click.echo(f"{file!s:<20} {path.stat().st_size / 1e6:10.1f} MB  {path}")
    for name, entry in CATALOGUE.items():
        if name not in here:
            click.echo(
                f"{name:<20} {entry.n_bytes / 1e6:10.1f} MB  not fetched: pyllamacpp pull {name}"
            )
