"""`pyllamacpp bench`: what it counts, and that it measures something."""

import json
import math
import sys
from pathlib import Path

import gguf
import pytest

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
from tiny_model import TinyModel

from pyllamacpp import _core
from pyllamacpp.errors import InvalidArgumentError
from pyllamacpp.eval.bench import Bench, run, work_of

PROBE = 1 << 24


def test_what_a_token_of_the_default_model_costs(default_model: Path) -> None:
    """Tied embedding: the table is the output matrix, and one row of it is looked up."""
    work = work_of(_core.Model(str(default_model)), "f16", "q8_0")
    ops = n_bytes = 0
    for tensor in gguf.GGUFReader(default_model).tensors:
        n_bytes += int(tensor.n_bytes)
        if len(tensor.shape) > 1:
            ops += 2 * math.prod(int(n) for n in tensor.shape)
    row = 576 // 32 * 34
    assert (work.int8_ops, work.float_ops) == (ops, 0)
    assert (work.head_int8_ops, work.head_float_ops) == (2 * 49152 * 576, 0)
    assert work.weight_bytes == n_bytes + row
    assert work.kv_bytes == 30 * 3 * 64 * (2 + 34 / 32)


def test_what_a_token_of_floats_costs(tmp_path: Path) -> None:
    tiny = TinyModel()
    work = work_of(_core.Model(str(tiny.write(tmp_path / "m.gguf"))), "f32", "f32")
    weights = tiny.weights()
    table = weights.pop("token_embd.weight")
    matrices = sum(w.size for w in weights.values() if w.ndim > 1)
    assert (work.int8_ops, work.float_ops) == (0, 2 * matrices)
    assert work.head_float_ops == 2 * weights["output.weight"].size
    assert work.weight_bytes == 4 * (sum(w.size for w in weights.values()) + table.shape[1])
    assert work.kv_bytes == 2 * 4 * 2 * 2 * 16


def test_results(tmp_path: Path) -> None:
    model = _core.Model(str(TinyModel().write(tmp_path / "m.gguf")))
    bench = Bench(model, n_ctx=64, n_threads=2, probe_bytes=PROBE)
    results = list(run(bench, [16, 3], [4], [0, 20], 2))
    names = ["pp16", "pp3", "tg4", "pp16@d20", "pp3@d20", "tg4@d20"]
    assert [result.test for result in results] == names
    for result in results:
        assert 0 < result.least <= result.tokens_per_s <= result.most < math.inf
        assert 0 < result.share_of_limit < math.inf
        assert result.share_of_limit == pytest.approx(result.rate / result.limit)
        assert (result.n_reps, result.n_threads) == (2, 2)
    at_0, at_20 = results[2], results[5]
    assert at_20.amount - at_0.amount == bench.work.kv_bytes * 20
    with pytest.raises(InvalidArgumentError, match="needs 65 tokens of context, there are 64"):
        bench.prompt(65)


def test_a_sliding_window_bounds_what_is_read(tmp_path: Path) -> None:
    tiny = TinyModel(metadata={"attention.sliding_window": 8})
    model = _core.Model(str(tiny.write(tmp_path / "m.gguf")))
    bench = Bench(model, n_ctx=64, n_threads=1, probe_bytes=PROBE)
    work = bench.work
    # Tokens before the four generated ones: 6, 7, 8 and no more; 40 and on, of which 8 are seen.
    assert bench.generate(4, 6, 1).amount == work.weight_bytes + work.kv_bytes * (6 + 7 + 8 + 8) / 4
    assert bench.generate(4, 40, 1).amount == work.weight_bytes + work.kv_bytes * 8


@pytest.mark.parametrize("window", [None, 8])
def test_a_prompt_counts_its_attention(tmp_path: Path, window: int | None) -> None:
    tiny = TinyModel(metadata={} if window is None else {"attention.sliding_window": window})
    model = _core.Model(str(tiny.write(tmp_path / "m.gguf")))
    bench = Bench(model, n_ctx=64, n_threads=1, probe_bytes=PROBE)
    config = model.config
    # By hand: the products of the queries of each head with the keys they see, and with values.
    pairs = sum(min(position + 1, window or 64) for position in range(20, 30))
    attention = pairs * config.n_layers * config.n_heads * 2 * (2 * config.head_dim)
    products = bench.work.float_ops * 10 - bench.work.head_float_ops * 9
    assert bench.prompt(10, 20, 1).amount == pytest.approx((products + attention) / 10, rel=1e-12)


def test_the_tokens_before_are_evaluated_once(tmp_path: Path, monkeypatch) -> None:
    model = _core.Model(str(TinyModel().write(tmp_path / "m.gguf")))
    bench = Bench(model, n_ctx=64, n_threads=1, probe_bytes=PROBE)
    filled = []
    fill = bench._fill
    monkeypatch.setattr(bench, "_fill", lambda n: filled.append(n) or fill(n))
    bench.prompt(4, 20, 3)
    assert bench.context.length(0) == 24
    bench.generate(4, 20, 3)
    assert bench.context.length(0) == 23  # the last generated token is not in the cache
    assert filled == [20, 20]


def test_the_probe() -> None:
    limits = _core.CpuLimitProbe(2, PROBE).measure()
    rates = limits.bytes_per_second, limits.int_ops_per_second, limits.float_ops_per_second
    assert all(0 < rate < math.inf for rate in rates)
    with pytest.raises(InvalidArgumentError, match="too small"):
        _core.CpuLimitProbe(2, 100)


def test_command(run, tmp_path: Path) -> None:
    model = str(TinyModel().write(tmp_path / "m.gguf"))
    small = ("bench", "-m", model, "-p", "8,4", "-n", "2", "-r", "1", "-t", "2")
    answer = run(*small, "--json", "--type-k", "f32")
    assert answer.returncode == 0, answer.stderr
    results = json.loads(answer.stdout)
    assert [result["test"] for result in results] == ["pp8", "pp4", "tg2"]
    for result in results:
        assert result["tokens_per_s"] > 0
        assert result["share_of_limit"] > 0
    text = run(*small, "-d", "3").stdout
    assert "pp8@d3" in text
    assert "limits: reads" in text
    assert run("bench", "-m", model, "-p", "0", "-n", "0").returncode == 2
    assert run("bench", "-m", model, "-p", "1,x").returncode == 2
    assert "not possible with heads of 16" in run(*small, "--type-v", "q8_0").stderr
