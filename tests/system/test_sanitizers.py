"""The native tests and the tests closest to the C++ code, under the sanitizers."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What feeds the kernels and the file reader every size and every kind of bad input.
SUITES = [name for name in ("kernels", "gguf") if (ROOT / "tests" / name).is_dir()]


@pytest.fixture(scope="module")
def asan_site(run, tmp_path_factory) -> Path:
    """The package with the extension of the preset `asan`; its native tests are built with it."""
    site = tmp_path_factory.mktemp("site")
    options = [
        f"build-dir={ROOT / 'build' / 'asan'}",
        "cmake.args=--preset=asan",
        "cmake.build-type=RelWithDebInfo",
        "cmake.define.PYLLAMACPP_PYTHON=ON",
        "install.strip=false",
    ]
    arguments = [f"--config-settings={option}" for option in options]
    run(sys.executable, "-m", "pip", "install", ".", "--no-deps", "--target", site, *arguments)
    return site


@pytest.mark.usefixtures("asan_site")
def test_native_tests_under_asan(run):
    run("ctest", "--preset", "asan")


def test_native_tests_under_tsan(build, run):
    build("tsan")
    # Without address randomization: the thread sanitizer of gcc 12 refuses some layouts.
    run("setarch", os.uname().machine, "-R", "ctest", "--preset", "tsan")


@pytest.mark.parametrize("suite", SUITES)
def test_python_tests_under_asan(suite, asan_site, run):
    # The C++ library comes along, or the sanitizer finds no exception support at start-up.
    names = ["libasan.so", "libstdc++.so"]
    libraries = [run("gcc", f"-print-file-name={name}").strip() for name in names]
    run(
        *(sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"tests/{suite}"),
        LD_PRELOAD=" ".join(libraries),
        ASAN_OPTIONS="detect_leaks=0",
        UBSAN_OPTIONS="print_stacktrace=1",
        PYTHONPATH=str(asan_site),
        PYTHONMALLOC="malloc",
    )
