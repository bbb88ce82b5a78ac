"""Helpers of the tests that need more than the package index; each carries the mark `system`."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and not item.get_closest_marker("sid"):
            item.add_marker(pytest.mark.system)
    # The longest file first: with a file a worker, one would wait for the other's at the end.
    items.sort(key=lambda item: item.path.name != "test_asan.py")


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs a command from the checkout, returns what it printed, shows everything if it failed."""

    def run(*command: str | Path, **environment: str) -> str:
        result = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if result.returncode != 0:
            line = " ".join(map(str, command))
            tail = (result.stdout + result.stderr)[-20_000:]
            pytest.fail(f"{line}\nexited with {result.returncode}:\n{tail}", pytrace=False)
        return result.stdout

    return run


@pytest.fixture(scope="session")
def build(run: Run) -> Callable[..., Path]:
    """Configures a CMake preset, builds it or one target, and returns its folder (it is kept)."""

    def build(preset: str, target: str = "all") -> Path:
        run("cmake", "--preset", preset)
        run("cmake", "--build", "--preset", preset, "--target", target)
        return ROOT / "build" / preset

    return build


@pytest.fixture(scope="session")
def install(run: Run) -> Callable[[str, Path], Path]:
    """Installs the package as a CMake preset builds it in a folder; its native tests are built."""

    def install(preset: str, folder: Path) -> Path:
        options = [
            f"build-dir={ROOT / 'build' / preset}",
            f"cmake.args=--preset={preset}",
            "cmake.build-type=RelWithDebInfo",
            "cmake.define.PYLLAMACPP_PYTHON=ON",
            "install.strip=false",
        ]
        arguments = [f"--config-settings={option}" for option in options]
        run(
            sys.executable, "-m", "pip", "install", ".", "--no-deps", "--target", folder, *arguments
        )
        return folder

    return install


@pytest.fixture(scope="session")
def native_program() -> Path:
    program = shutil.which("pyllamacpp-chat", path=Path(sys.executable).parent)
    assert program, "pyllamacpp-chat is not installed beside this Python"
    return Path(program)
