"""A real server on a free port with the default model."""

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

sys.path.append(str(Path(__file__).parent))
from asking import KEY, openai_client


@contextmanager
def started(*arguments: str) -> "Iterator[tuple[str, subprocess.Popen[str]]]":
    """The address of a server, and its process."""
    command = Path(sysconfig.get_path("scripts")) / "pyllamacpp"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYLLAMACPP_SERVER_")}
    process = subprocess.Popen(
        [str(command), "serve", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=clean,
    )
    assert process.stderr is not None
    try:
        seen = ""
        for line in process.stderr:
            seen += line
            found = re.search(r"serving (\S+)", line)
            if found:
                yield found[1], process
                return
        raise AssertionError(seen)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="session")
def address(default_model: Path) -> Iterator[str]:
    limits = ("--max-body", "100000", "-c", "512")
    with started("-m", str(default_model), "--api-key", KEY, *limits) as (found, _):
        yield found


@pytest.fixture(scope="session")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai_client(address) as found:
        yield found


@pytest.fixture(scope="session")
def city_schema() -> dict[str, object]:
    """Of the arguments of a tool: a city."""
    return {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    }


@pytest.fixture(scope="session")
def start_server() -> "Callable[..., object]":
    return started
