"""pyllamacpp devices"""

from __future__ import annotations

import json

import click

from .. import _core
from .group import ExampleCommand
from .options import json_option


@click.command(
    "devices",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp devices",
        "PYLLAMACPP_DEVICE=1 pyllamacpp devices --json",
    ],
)
@json_option
def command(as_json: bool) -> None:
    """List the GPUs of this machine, as its Vulkan drivers describe them.

    A star marks the one in use: the first, or what PYLLAMACPP_DEVICE names by its number or part of
    its name ("cpu": none). Software renderers are shown with PYLLAMACPP_VK_ALLOW_CPU=1 only.
    """
    gpus = _core.list_gpus()
    chosen = _core.chosen_gpu(gpus)
    if as_json:
        names = ["name", "driver", "kind", "memory", "memory_free", "features", "tier"]
        rows = [{name: getattr(gpu, name) for name in names} for gpu in gpus]
        click.echo(
            json.dumps([row | {"chosen": i == chosen} for i, row in enumerate(rows)], indent=2)
        )
    elif not gpus:
        click.echo("no GPU: no Vulkan driver found one")
    else:
        for i, gpu in enumerate(gpus):
            click.echo(
                f"{'*' if i == chosen else ' '} {i}  {gpu.name}\n"
                f"     {gpu.kind}, {gpu.memory / 2**30:.1f} GiB"
                f" ({gpu.memory_free / 2**30:.1f} free), {gpu.driver}\n"
                f"     tier {gpu.tier}; {', '.join(gpu.features) or 'no further features'}"
            )
