"""pyllamacpp rm"""

from __future__ import annotations

import click

from ..models import hub
from ..models.cache import remove
from .group import ExampleCommand
from .runtime import status


@click.command(
    "rm",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp rm smollm2-135m",
        "pyllamacpp rm hf:OWNER/REPO/model-q4_k_m.gguf",
    ],
)
@click.argument("name")
def command(name: str) -> None:
    """Remove the fetched model NAME (or hf:OWNER/REPO/FILE) from its cache."""
    if name.startswith(hub.PREFIX):
        for path in hub.remove(hub.parse(name)):
            status(f"removed {path}")
    else:
        status(f"removed {remove(name)}")
