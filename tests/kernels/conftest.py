"""Fixtures of the kernel tests: each runs on every tier this machine has."""

import sys
from pathlib import Path

import pytest

from pyllamacpp.kernels import Kernels, tiers

# The tests share kernel_oracle.py, which importlib mode does not put on the path.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session", params=tiers())
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return Kernels(request.param)


@pytest.fixture(scope="session")
def scalar() -> Kernels:
    return Kernels("scalar")
