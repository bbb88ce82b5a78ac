"""Native tests, the tests closest to C++ and fuzzing under address and undefined sanitizers.

One build serves all three.
"""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "tests" / "native"
BUILT = ROOT / "build" / "asan" / "tests" / "native"
# Of each fuzz target here; .ci/full runs them for hours.
SECONDS = 20


@pytest.fixture(scope="module")
def site(install, tmp_path_factory) -> Path:
    return install("asan", tmp_path_factory.mktemp("asan"))


@pytest.mark.usefixtures("site")
def test_native_tests(run):
    run("ctest", "--preset", "asan")


# What feeds the kernels and the file reader every size and every kind of bad input.
@pytest.mark.parametrize("suite", ["kernels", "gguf"])
def test_python_tests(suite, site, run):
    # The C++ library comes along, or the sanitizer finds no exception support at start-up.
    names = (f"libclang_rt.asan-{os.uname().machine}.so", "libstdc++.so")
    libraries = [run("clang++-14", f"-print-file-name={name}").strip() for name in names]
    run(
        *(sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", f"tests/{suite}"),
        LD_PRELOAD=" ".join(libraries),
        ASAN_OPTIONS="detect_leaks=0",
        UBSAN_OPTIONS="print_stacktrace=1",
        PYTHONPATH=str(site),
        PYTHONMALLOC="malloc",
    )


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("target", sorted(path.stem for path in NATIVE.glob("fuzz_*.cpp")))
def test_fuzz_target_finds_nothing(target, run, tmp_path):
    options = [f"-max_total_time={SECONDS}", "-timeout=10", "-rss_limit_mb=2048"]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    if target == "fuzz_gguf":
        run(sys.executable, NATIVE / "fuzz_seeds.py", corpus, tmp_path / "gguf.dict")
        options.append(f"-dict={tmp_path / 'gguf.dict'}")
    run(BUILT / target, *options, f"-artifact_prefix={tmp_path}/", corpus)
