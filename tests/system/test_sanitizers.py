"""The native tests and the tests closest to the C++ code, under the sanitizers."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What feeds the kernels and the file reader every size and every kind of bad input.
SUITES = [name for name in ("kernels", "gguf") if (ROOT / "tests" / name).is_dir()]


# Without address randomization: the thread sanitizer of gcc 12 refuses some layouts.
FIXED_LAYOUT = ("setarch", os.uname().machine, "-R")


def install(run, preset: str, site: Path) -> Path:
    """The package with the extension of a preset; its native tests are built with it."""
    options = [
        f"build-dir={ROOT / 'build' / preset}",
        f"cmake.args=--preset={preset}",
        "cmake.build-type=RelWithDebInfo",
        "cmake.define.PYLLAMACPP_PYTHON=ON",
        "install.strip=false",
    ]
    arguments = [f"--config-settings={option}" for option in options]
    run(sys.executable, "-m", "pip", "install", ".", "--no-deps", "--target", site, *arguments)
    return site


def runtime(run, *names: str) -> str:
    """Libraries to load before a Python that was not built with them."""
    return " ".join(run("gcc", f"-print-file-name={name}").strip() for name in names)


@pytest.fixture(scope="module")
def asan_site(run, tmp_path_factory) -> Path:
    return install(run, "asan", tmp_path_factory.mktemp("asan"))


@pytest.fixture(scope="module")
def tsan_site(run, tmp_path_factory) -> Path:
    return install(run, "tsan", tmp_path_factory.mktemp("tsan"))


@pytest.mark.usefixtures("asan_site")
def test_native_tests_under_asan(run):
    run("ctest", "--preset", "asan")


@pytest.mark.usefixtures("tsan_site")
def test_native_tests_under_tsan(run):
    run(*FIXED_LAYOUT, "ctest", "--preset", "tsan")


def test_threads_of_python_under_tsan(tsan_site, run):
    run(
        *(*FIXED_LAYOUT, sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"),
        *("tests/python/test_stress.py", "-k", "small"),
        LD_PRELOAD=runtime(run, "libtsan.so", "libstdc++.so"),
        TSAN_OPTIONS="halt_on_error=1",
        PYLLAMACPP_STRESS_TOKENS="2000",
        PYTHONPATH=str(tsan_site),
    )


@pytest.mark.parametrize("suite", SUITES)
def test_python_tests_under_asan(suite, asan_site, run):
    run(
        *(sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"tests/{suite}"),
        # The C++ library comes along, or the sanitizer finds no exception support at start-up.
        LD_PRELOAD=runtime(run, "libasan.so", "libstdc++.so"),
        ASAN_OPTIONS="detect_leaks=0",
        UBSAN_OPTIONS="print_stacktrace=1",
        PYTHONPATH=str(asan_site),
        PYTHONMALLOC="malloc",
    )
