"""Under the thread sanitizer: the native tests, and threads of Python that share a model."""

import os
import sys
from pathlib import Path

import pytest

# Without address randomization: the thread sanitizer of gcc 12 refuses some layouts.
FIXED_LAYOUT = ("setarch", os.uname().machine, "-R")


@pytest.fixture(scope="module")
def site(install, tmp_path_factory) -> Path:
    return install("tsan", tmp_path_factory.mktemp("tsan"))


@pytest.mark.usefixtures("site")
def test_native_tests(run):
    run(*FIXED_LAYOUT, "ctest", "--preset", "tsan")


def test_threads_of_python(site, run):
    libraries = ("libtsan.so", "libstdc++.so")
    run(
        *(*FIXED_LAYOUT, sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"),
        *("tests/python/test_stress.py", "-k", "small"),
        LD_PRELOAD=" ".join(run("g++", f"-print-file-name={name}").strip() for name in libraries),
        TSAN_OPTIONS="halt_on_error=1",
        PYLLAMACPP_STRESS_TOKENS="2000",
        PYTHONPATH=str(site),
    )
