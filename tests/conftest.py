"""Fixtures every test may use. The tests run against the installed package, not the source tree."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pyllamacpp import Llama

ROOT = Path(__file__).resolve().parents[1]

# `python -m pytest` puts the checkout first, where the package has no extension module.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

# Two workers share the cores: oracles' products on threads of their own only wait for each other.
# Before numpy is imported; what the tests start inherits it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A runner started in the background may have Ctrl-C ignored, and the programs under test with it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test asserts a time, and a run in CI must not depend on luck.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_report_header() -> str:
    try:
        from pyllamacpp import _core
    except ImportError as error:
        return f"pyllamacpp: not installed ({error})"
    return f"pyllamacpp: {_core.version} on {_core.isa()}, of {', '.join(_core.isa_tiers())}"


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The default model's GGUF, fetched on first use and kept in the user's cache."""
    from pyllamacpp.models import resolve_model

    return resolve_model(None)


@pytest.fixture(scope="session")
def llm(default_model: Path) -> Iterator["Llama"]:
    from pyllamacpp import Llama

    llama = Llama(str(default_model), n_ctx=1024, verbose=False)
    yield llama
    llama.close()


@pytest.fixture(scope="session")
def isa_tiers() -> list[str]:
    """The kernel tiers this machine can run."""
    from pyllamacpp import _core

    return list(_core.isa_tiers())
