"""A short run of every fuzz target; .ci/full runs them for hours."""

from pathlib import Path

import gguf
import numpy as np
import pytest

NATIVE = Path(__file__).resolve().parents[1] / "native"
SECONDS = 20


@pytest.fixture
def corpus(tmp_path) -> Path:
    """A small valid file to start from, so that a short run gets past the header."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / "small.gguf", "llama")
    writer.add_context_length(64)
    writer.add_token_list(["<s>", "a", "b"])
    writer.add_token_scores([0.0, -1.0, -2.0])
    writer.add_tensor("token_embd.weight", np.zeros((3, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


@pytest.mark.parametrize("target", sorted(path.stem for path in NATIVE.glob("fuzz_*.cpp")))
def test_fuzz_target_finds_nothing(target, build, run, corpus, tmp_path):
    program = build("fuzz", target) / "tests" / "native" / target
    limits = [f"-max_total_time={SECONDS}", "-timeout=10", "-rss_limit_mb=2048"]
    run(program, *limits, f"-artifact_prefix={tmp_path}/", corpus)
