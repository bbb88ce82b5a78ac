"""What the tests of the Python package share."""

import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyllamacpp import Llama

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def command_path() -> str:
    """The installed console script."""
    return str(Path(sysconfig.get_path("scripts")) / "pyllamacpp")


@pytest.fixture
def run(command_path: str) -> Run:
    """Runs `pyllamacpp ARGS...` without a terminal; stdin is empty unless given."""

    def call(*args: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [command_path, *args], input=stdin, capture_output=True, text=True, check=False
        )

    return call


@pytest.fixture(scope="module")
def keeping_llm(default_model: Path) -> Iterator[Llama]:
    """A small context that keeps all logits."""
    with Llama(str(default_model), n_ctx=64, logits_all=True, verbose=False) as llama:
        yield llama
