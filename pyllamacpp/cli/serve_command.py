"""pyllamacpp serve"""

from __future__ import annotations

from typing import Any

import click

from ..server import require_packages
from .group import ExampleCommand
from .options import model_option, parse_size
from .runtime import find_model, status, warnings_to_stderr


@click.command(
    "serve",
    cls=ExampleCommand,
    examples=[
        "pyllamacpp serve",
        "pyllamacpp serve -m model.gguf --port 8080 --api-key SECRET",
        "pyllamacpp serve --config server.toml --print-config",
    ],
)
@model_option
@click.option("--config", metavar="FILE", help="TOML file of settings.")
@click.option("--print-config", is_flag=True, help="Write the settings as TOML, and end.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1, this machine alone]")
@click.option("--port", type=int, help="0: any that is free.  [default: 8080]")
@click.option("--name", help="What requests call the model.  [default: its file's name]")
@click.option("-c", "--ctx", type=int, help="Tokens of one text.  [default: as chat]")
@click.option("-t", "--threads", type=int, help="[default: what this machine has]")
@click.option("-b", "--batch", type=int, help="Tokens in one pass at most.  [default: 512]")
@click.option("--parallel", type=int, help="Full texts the cache has room for.  [default: 4]")
@click.option("-ctk", "--type-k", help="Type of the cached keys.  [default: f16]")
@click.option("-ctv", "--type-v", help="Type of the cached values.  [default: f16]")
@click.option(
    "-ngl", "--n-gpu-layers", help="Layers on the GPU; -1: all, auto: what fits.  [default: 0]"
)
@click.option("--chat-format", help="Name of a chat format.  [default: the file's]")
@click.option("--cache", help="Keep texts for later prompts: off, ram or disk.  [default: off]")
@click.option(
    "--cache-size", metavar="SIZE", callback=parse_size, help="Of all of them.  [default: 2G]"
)
@click.option("--cache-dir", metavar="FOLDER", help="Where a cache on disk has its files.")
@click.option("--api-key", "api_keys", multiple=True, help="Asked of requests; may be repeated.")
@click.option("--cors-origin", "cors_origins", multiple=True, help="Page that may ask; repeatable.")
@click.option("--tls-cert", help="Certificate file, for HTTPS.")
@click.option("--tls-key", help="Its key file.")
@click.option("--max-body", type=int, help="Bytes of a request.  [default: 8 MiB]")
@click.option("--max-tokens", type=int, help="Tokens of an answer at most.  [default: the context]")
@click.option("--max-running", type=int, help="Requests evaluated at a time.  [default: 64]")
@click.option("--max-queue", type=int, help="Requests that may wait.  [default: 256]")
@click.option("--max-texts", type=int, help="Texts of one request at most.  [default: 64]")
@click.option("--max-models", type=int, help="Models loaded at a time, at most.  [default: 4]")
@click.option("--deadline", type=float, help="Seconds of a request.  [default: 600]")
@click.option("--body-timeout", type=float, help="Seconds for it to arrive.  [default: 30]")
@click.option("--drain", type=float, help="Seconds to end after SIGTERM.  [default: 30]")
@click.option("--log-requests", is_flag=True, default=None, help="Write requests to the log.")
def command(config: str | None, print_config: bool, **flags: Any) -> None:
    """Serve models over HTTP, as OpenAI's clients expect it.

    Every setting may also come from the environment (PYLLAMACPP_SERVER_PORT=8080, ...) or from the
    TOML file, under the flag's name; flags come first, then the environment. Several models:
    [[models]] tables of the file.
    """
    require_packages()
    from ..server.run import serve
    from ..server.settings import as_toml, read_settings

    for name in ("api_keys", "cors_origins"):
        flags[name] = list(flags[name]) or None
    settings = read_settings(flags, config)
    if print_config:
        click.echo(as_toml(settings))
        return
    if not settings.models:
        find_model(settings.model)
    with warnings_to_stderr():
        serve(settings, lambda address: status(f"serving {address}"))
