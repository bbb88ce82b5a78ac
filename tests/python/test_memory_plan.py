"""The plan of memory: its figures, its refusals, and what the system says is available."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
from tiny_model import TinyModel

from pyllamacpp import Llama, _core
from pyllamacpp.errors import FormatError, InvalidArgumentError, OutOfMemoryError, UnsupportedError

GIB = 1 << 30


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    return str(TinyModel().write(tmp_path / "tiny.gguf"))


def test_figures_of_the_default_model(default_model: Path) -> None:
    """Packed as large as in the file; the tied table is mapped for lookups and packed as output."""
    plan = _core.plan_memory(
        str(default_model), n_ctx=1000, type_v="q8_0", available=GIB, n_threads=2
    )
    packed = mapped = 0
    for tensor in gguf.GGUFReader(default_model).tensors:
        n_bytes = int(tensor.n_bytes)
        packed += n_bytes if len(tensor.shape) > 1 else 4 * math.prod(map(int, tensor.shape))
        mapped += n_bytes if tensor.name == "token_embd.weight" else 0
    assert (plan.packed, plan.mapped) == (packed, mapped)
    assert plan.kv == 30 * 3 * 1024 * 64 * (2 + 34 / 32)  # whole pages of 32 tokens
    assert plan.own == plan.packed + plan.kv + plan.scratch
    assert (plan.n_ctx, plan.n_batch, plan.n_threads) == (1000, 512, 2)
    assert plan.fits
    assert plan.repack == "auto"


def test_what_is_really_taken(default_model: Path, tmp_path: Path) -> None:
    """Memory of our own after a full context, against the plan, in a process of its own."""
    script = """
import re, sys
from pyllamacpp import _core
def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
path, repack = sys.argv[1:]
plan = _core.plan_memory(path, n_ctx=512, repack=repack, n_threads=2)
before = own()
model = _core.Model(path, repack=repack, n_threads=2)
context = _core.Context(model, n_ctx=512, n_threads=2)
context.decode([(0, list(range(100, 612)), "last")])
print(plan.own, own() - before)
"""
    for repack in ("auto", "never"):
        command = [sys.executable, "-c", script, str(default_model), repack]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        planned, taken = map(int, done.stdout.split())
        # The tokenizer's tables come on top; scratch is planned for every kind of activation.
        assert planned - 20e6 < taken < planned + 25e6


@pytest.mark.parametrize("repack", ["auto", "never"])
def test_the_border(tiny: str, repack: str) -> None:
    def plan(n_ctx: int, available: int) -> _core.MemoryPlan:
        return _core.plan_memory(tiny, n_ctx=n_ctx, repack=repack, available=available)

    own = plan(4096, GIB).own
    assert plan(4096, own).fits
    assert not plan(4096, own - 1).fits
    most = plan(4096, own - 1).most_ctx
    assert most == 4096 - 32
    assert plan(most, own - 1).fits
    assert plan(4096, own).most_ctx == 4096
    assert plan(4096, 1).most_ctx == 0


def test_packing_needs_a_tenth_to_spare(default_model: Path) -> None:
    path = str(default_model)
    full = _core.plan_memory(path, n_ctx=512, available=GIB)
    enough = full.own + full.own // 10 + full.mapped
    assert _core.plan_memory(path, n_ctx=512, available=enough).repack == "auto"
    less = _core.plan_memory(path, n_ctx=512, available=enough - 1)
    assert less.repack == "never"
    assert less.packed < full.packed
    assert less.mapped > full.mapped


def test_refusals(tiny: str, tmp_path: Path) -> None:
    plan = _core.plan_memory(tiny, n_ctx=4096, repack="never", available=2_000_000)
    message = r"tiny.gguf needs 0\.00 GiB of memory .* of 4096 tokens .* are available; a "
    with pytest.raises(OutOfMemoryError, match=message):
        _core.require_fit(tiny, plan)
    with pytest.raises(MemoryError, match=r"are available; a context of \d+ tokens would fit"):
        Llama(tiny, n_ctx=1 << 30, verbose=False)
    with pytest.raises(InvalidArgumentError, match="n_ctx"):
        _core.plan_memory(tiny, n_ctx=(1 << 30) + 1)
    with pytest.raises(UnsupportedError, match="type_k=q8_0 is not possible with heads of 16"):
        _core.plan_memory(tiny, type_k="q8_0")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(FormatError, match=r"bad\.gguf"):
        _core.plan_memory(str(tmp_path / "bad.gguf"))


def test_a_context_is_shrunk_to_what_fits(tiny: str, tmp_path: Path) -> None:
    script = """
import re, resource, sys
from pyllamacpp import _core
from pyllamacpp.loading import load
size = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (size + (256 << 20), resource.RLIM_INFINITY))
model, context = load(sys.argv[1], n_ctx=4 << 20, n_threads=1, shrink=True)
print(context.n_ctx)
try:
    load(sys.argv[1], n_ctx=4 << 20, n_threads=1)
except MemoryError as error:
    print(error)
"""
    command = [sys.executable, "-c", script, tiny]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    chosen, sentence = done.stdout.splitlines()
    assert 100_000 < int(chosen) < (256 << 20) // 256  # 256 bytes a token
    assert "would fit" in sentence


def tree(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def test_available_memory(tmp_path: Path) -> None:
    machine = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n"}
    v2 = {
        "proc/self/cgroup": "0::/outer/inner\n",
        "sys/fs/cgroup/outer/memory.max": "5000000\n",
        "sys/fs/cgroup/outer/memory.current": "3000000\n",
        "sys/fs/cgroup/outer/memory.stat": "anon 1\ninactive_file 1000000\n",
        "sys/fs/cgroup/outer/inner/memory.max": "max\n",
        "sys/fs/cgroup/outer/inner/memory.current": "2000000\n",
    }
    v1 = {
        "proc/self/cgroup": "5:cpu,memory:/docker/x\n4:cpuset:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "4000000\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1500000\n",
        "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 500000\n",
    }
    assert _core.available_memory(tree(tmp_path / "plain", machine)) == 8000 << 10
    assert _core.available_memory(tree(tmp_path / "v2", machine | v2)) == 3_000_000
    assert _core.available_memory(tree(tmp_path / "v1", machine | v1)) == 3_000_000
    low = v2 | {"sys/fs/cgroup/outer/memory.max": "1000000\n"}
    assert _core.available_memory(tree(tmp_path / "low", machine | low)) == 0
    assert 0 < _core.available_memory() < 1 << 50


def test_command(run, tiny: str) -> None:
    answer = run("plan", tiny, "--ctx", "2048", "--ram", "16G", "--json")
    assert answer.returncode == 0, answer.stderr
    plan = json.loads(answer.stdout)
    assert (plan["n_ctx"], plan["available"], plan["fits"]) == (2048, 16 << 30, True)
    page = run("plan", "-m", tiny, "--ram", "1.5MiB", "--type-k", "f32")
    assert page.returncode == 1
    assert "does not fit" in page.stdout
    assert re.search("available +1.5 MiB", page.stdout)
    assert page.stderr.count("\n") == 1
    for wrong in ("x", "0", "-1G", "1X", "1e9"):
        assert run("plan", tiny, "--ram", wrong).returncode == 2
    assert run("plan", tiny, "-m", tiny).returncode == 2


def test_layers_that_fit_a_gpu(default_model: Path) -> None:
    """The last layers go; nothing counts twice; each layer more takes memory from the CPU's."""

    def plan(gpu_available: int, n_gpu_layers: int = -1, **rest) -> _core.MemoryPlan:
        return _core.plan_memory(
            str(default_model),
            n_ctx=1024,
            repack="never",
            n_gpu_layers=n_gpu_layers,
            gpu_available=gpu_available,
            **rest,
        )

    all_there, alone = plan(4 * GIB), plan(4 * GIB, 0)
    assert (all_there.gpu.n_layers, alone.gpu.n_layers, alone.gpu.total) == (31, 0, 0)
    assert all_there.kv == 0
    assert all_there.gpu.kv == alone.kv
    expected = 0  # matrices as large as in the file, in whole tiles of 32 rows x 256 columns
    for tensor in gguf.GGUFReader(default_model).tensors:
        if len(tensor.shape) == 1:
            expected += 4 * int(tensor.shape[0])
        else:
            cols, rows = map(int, tensor.shape)
            padded = -(-cols // 256) * 256 * -(-rows // 32) * 32
            expected += int(tensor.n_bytes) * padded // (cols * rows)
    assert all_there.gpu.weights == expected
    assert all_there.gpu.usable == 4 * GIB - 4 * GIB // 10
    assert plan(4 * GIB, 5).gpu.n_layers == 5
    reserve = 256 << 20
    found = []
    for mib in range(0, 200, 10):
        gpu = plan(reserve + (mib << 20)).gpu
        assert gpu.total <= gpu.usable == mib << 20
        if gpu.n_layers < 31:  # one more would not
            assert plan(4 * GIB, gpu.n_layers + 1).gpu.total > gpu.usable
        assert gpu.n_cpu_ffn == 0  # parts so small are not worth going to and fro
        found.append(gpu.n_layers)
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 31)
    assert len(set(found)) > 5

    assert plan(4 * GIB, 31, type_k="bf16").gpu.obstacle.startswith("the GPU holds keys and values")
    small = plan(4 * GIB, 31, type_k="q8_0", type_v="q4_0")
    assert small.gpu.kv * 2 * 32 == all_there.gpu.kv * (34 / 2 + 18 / 2)


def large_header(path: Path) -> str:
    """A model of 6 layers as wide as LLaMA 7B, all f16; its weights are a hole in the file."""
    dim, n_ff, n_vocab = 4096, 11008, 1000
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(6)
    writer.add_context_length(4096)
    writer.add_embedding_length(dim)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(32)
    writer.add_layer_norm_rms_eps(1e-5)
    tensors = {"token_embd": (n_vocab, dim), "output": (n_vocab, dim), "output_norm": (dim,)}
    for i in range(6):
        tensors |= {f"blk.{i}.attn_{part}": (dim, dim) for part in ("q", "k", "v", "output")}
        tensors |= {f"blk.{i}.ffn_{part}": (n_ff, dim) for part in ("gate", "up")}
        tensors |= {f"blk.{i}.ffn_down": (dim, n_ff)}
        tensors |= {f"blk.{i}.{part}_norm": (dim,) for part in ("attn", "ffn")}
    size = 0
    for name, shape in tensors.items():
        n_bytes = 2 * math.prod(shape)
        writer.add_tensor_info(f"{name}.weight", shape, np.dtype(np.float16), n_bytes)
        size += n_bytes
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, path.stat().st_size + 32 + size)
    return str(path)


def test_the_parts_of_a_plan(tmp_path: Path) -> None:
    """They add up to the whole; what a layer more has no room for may be its feed-forward part."""
    path, n_ctx = large_header(tmp_path / "large.gguf"), 2048
    table = 2 * 1000 * 4096  # rows of which are looked up

    def sums(plan: _core.MemoryPlan, on_gpu: bool) -> tuple[int, int]:
        parts = [part for part in plan.parts if part.on_gpu == on_gpu]
        return sum(p.weights for p in parts), sum(p.kv for p in parts)

    found = []
    for mib in (0, *range(600, 4000, 50)):
        plan = _core.plan_memory(
            path,
            n_ctx=n_ctx,
            n_gpu_layers=-1 if mib else 0,
            gpu_available=mib << 20,
            repack="never",
        )
        assert len(plan.parts) == 13
        assert sums(plan, True) == (plan.gpu.weights, plan.gpu.kv)
        assert sums(plan, False) == (plan.packed + plan.mapped - table, plan.kv)
        on_gpu = [part.on_gpu for part in plan.parts]
        n_layers, n_ffn = plan.gpu.n_layers, plan.gpu.n_cpu_ffn
        assert on_gpu == [i // 2 >= 7 - n_layers + (n_ffn if i % 2 else 0) for i in range(13)]
        assert [part.kv > 0 for part in plan.parts] == [True, False] * 6 + [False]
        assert plan.gpu.total <= plan.gpu.usable
        found.append((plan.gpu.total, n_layers, n_ffn))
    totals = [total for total, *_ in found]
    assert totals == sorted(totals)
    assert found[-1][1:] == (7, 0)
    assert {n_ffn for *_, n_ffn in found} >= {0, 1}


RATES = {
    "upload_bytes_per_second": 2e9,
    "gpu_ops_per_second": 4e12,
    "cpu_ops_per_second": 5e11,
    "weight_bytes": 100_000_000,  # 50 ms
    "row_ops": 400_000_000,  # 0.1 ms on the GPU, 0.8 ms on the CPU
    "most_rows": 512,
}


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({}, 72),  # 50 / 0.7 = 71.4
        ({"weight_bytes": 141_000_000}, 101),
        ({"upload_bytes_per_second": 20e9}, 8),
        ({"upload_bytes_per_second": 2e8}, 0),  # 715 are more than a batch has
        ({"upload_bytes_per_second": 2e8, "most_rows": 715}, 715),
        ({"upload_bytes_per_second": 2e8, "most_rows": 714}, 0),
        ({"gpu_ops_per_second": 5e11}, 0),  # no gain by any row
        ({"gpu_ops_per_second": 1e11}, 0),
        ({"gpu_ops_per_second": 1e30, "upload_bytes_per_second": 1e30}, 1),
    ],
)
def test_from_how_many_tokens_streaming_pays(changes, rows) -> None:
    assert _core.least_streamed_rows(**{**RATES, **changes}) == rows


def test_what_streaming_takes(default_model: Path, monkeypatch) -> None:
    """Its memory is planned on both sides, and only where the CPU has a feed-forward part."""

    def plan(n_gpu_layers: int, available: int = 4 * GIB, **rest) -> _core.MemoryPlan:
        gpu = {"n_gpu_layers": n_gpu_layers, "gpu_available": available, "op_offload": True}
        return _core.plan_memory(str(default_model), n_ctx=1024, **(gpu | rest))

    pretended = plan(10)
    assert (pretended.gpu.streaming.rows, pretended.gpu.streaming.scratch) == (0, 0)
    assert pretended.gpu.streaming.note.startswith("not measured")
    monkeypatch.setenv("PYLLAMACPP_STREAM_ROWS", "64")
    alone, streamed = plan(10, op_offload=False), plan(10)
    assert alone.gpu.total == pretended.gpu.total
    assert streamed.gpu.streaming.rows == 64
    assert streamed.gpu.streaming.scratch == (32 << 20) + 576 * 4
    assert streamed.gpu.total == alone.gpu.total + streamed.gpu.streaming.scratch
    assert streamed.scratch == alone.scratch + streamed.gpu.streaming.scratch
    # What is packed for the CPU is read again from the file.
    n_ffn = sum(
        int(t.n_bytes)
        for t in gguf.GGUFReader(default_model).tensors
        if re.match(r"blk\.(1?\d|20)\.ffn_(gate|up|down)", t.name)
    )
    assert streamed.mapped - alone.mapped == n_ffn
    assert plan(10, repack="never").mapped == plan(10, repack="never", op_offload=False).mapped
    all_there = plan(31).gpu
    assert (all_there.streaming.rows, all_there.total) == (0, plan(31, op_offload=False).gpu.total)
    tight = plan(-1, (256 << 20) + (70 << 20)).gpu
    assert tight.n_layers > 0
    assert (tight.streaming.rows, tight.streaming.note) == (0, "no layer fits beside it")
    for wrong in ("x", "-1", "1.5", "9999999999", "8 "):
        monkeypatch.setenv("PYLLAMACPP_STREAM_ROWS", wrong)
        with pytest.raises(InvalidArgumentError, match=r"_STREAM_ROWS is '.*', expected a number"):
            plan(10)


def test_command_with_a_gpu(run, tiny: str) -> None:
    plan = json.loads(run("plan", tiny, "--vram", "4G", "--json").stdout)["gpu"]
    assert (plan["n_layers"], plan["available"], plan["obstacle"]) == (3, 4 * GIB, "")
    head = json.loads(run("plan", tiny, "--vram", "4G", "--json").stdout)["parts"][-1]
    assert head == {"layer": None, "part": "head", "on": "gpu", "weights": 295168, "kv": 0}
    page = run("plan", tiny, "--vram", "4G", "-ngl", "2").stdout
    assert re.search("layer 0 .* CPU: attention .* each\n|layer 0 .* CPU: attention", page)
    assert re.search("layer 1 .* GPU: attention .*, keys and values .*, feed-forward", page)
    assert re.search("GPU: weights .* the last 2 layers", page)
    assert re.search("GPU: available +4,096.0 MiB", page)
