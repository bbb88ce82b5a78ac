"""A short run of every fuzz target; .ci/full runs them for hours."""

import sys
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[1] / "native"
SECONDS = 20


@pytest.mark.parametrize("target", sorted(path.stem for path in NATIVE.glob("fuzz_*.cpp")))
def test_fuzz_target_finds_nothing(target, build, run, tmp_path):
    program = build("fuzz", target) / "tests" / "native" / target
    options = [f"-max_total_time={SECONDS}", "-timeout=10", "-rss_limit_mb=2048"]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    if target == "fuzz_gguf":
        run(sys.executable, NATIVE / "fuzz_seeds.py", corpus, tmp_path / "gguf.dict")
        options.append(f"-dict={tmp_path / 'gguf.dict'}")
    run(program, *options, f"-artifact_prefix={tmp_path}/", corpus)
