"""Prompts that stream the weights of layers on the CPU through Mesa's software renderer, lavapipe.

In processes of their own, as the Vulkan loader reads once which drivers there are.
"""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
from tiny_model import TinyModel

LAVAPIPE = {
    "VK_ICD_FILENAMES": "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json",
    "PYLLAMACPP_VK_ALLOW_CPU": "1",
}
GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden.json").read_text("utf-8"))


@pytest.fixture
def answer(run, tmp_path):
    """What a program (a string) prints as JSON."""

    def answer(text, *arguments, **environment):
        program = tmp_path / "program.py"  # outside the checkout, which has no extension
        program.write_text(text)
        words = [str(argument) for argument in arguments]
        return json.loads(run(sys.executable, program, *words, **(LAVAPIPE | environment)))

    return answer


SPLITS = """
import json, sys
from pyllamacpp import _core

path, n_layers = sys.argv[1], 3
prompt = list(range(3, 83))


def evaluate(model, n_batch, stream_rows=0):
    context = _core.Context(model, n_ctx=128, n_batch=n_batch, stream_rows=stream_rows)
    context.decode([(0, prompt, "all")])
    return context.logits(), context.stream_rows


cpu, none = evaluate(_core.Model(path), 128, 16)
found = [none]
for n in range(1, n_layers + 2):
    for n_ffn in range(n):
        model = _core.Model(path, n_gpu_layers=n, n_cpu_ffn=n_ffn)
        placed, _ = evaluate(model, 128)
        streamed, rows = evaluate(model, 128, 16)
        found.append({
            "rows": rows,
            "off": float(abs(streamed - cpu).max()),
            "differs": bool((streamed != placed).any()),
            "same_when_split": bool((streamed == evaluate(model, 40, 16)[0]).all()),
            "small_batches_are_not": bool((placed == evaluate(model, 10, 16)[0]).all()),
        })
print(json.dumps([found, _core.take_gpu_messages()]))
"""


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"PYLLAMACPP_VK_TIER": "integer_dot"},
        # Matrices in several pieces.
        {"PYLLAMACPP_VK_MAX_BIND": "256K"},
    ],
    ids=["plain", "integer_dot", "pieces"],
)
def test_the_logits_are_the_cpus_at_every_split(answer, tmp_path, environment):
    """Whatever the layers before and after are on; batches below the least are as without."""
    path = TinyModel(n_layers=3, n_ff=320, qkv_bias=True).write(tmp_path / "tiny.gguf")
    (alone, *found), messages = answer(SPLITS, path, PYLLAMACPP_VK_VALIDATE="1", **environment)
    assert messages == []
    assert alone == 0  # no layer is on a GPU
    assert len(found) == 1 + 2 + 3 + 4
    for split in found[:6] + found[7:]:
        assert split["rows"] == 16
        assert split["differs"]
        assert split["off"] < 0.01  # logits up to 4; keys and values are halves
    assert found[6]["rows"] == 0  # all of it is on the GPU
    assert not found[6]["differs"]
    for split in found:
        assert split["same_when_split"]
        assert split["small_batches_are_not"]


GREEDY = """
import json, sys
from pyllamacpp import _core

path, prompt, rows = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
model = _core.Model(path, n_gpu_layers=int(sys.argv[4]))
context = _core.Context(model, n_ctx=128, stream_rows=rows)
context.decode([(0, prompt, "last")])
last, tokens = context.logits()[-1], []
first = last.tolist()
for _ in range(12):
    tokens.append(int(last.argmax()))
    context.decode([(0, tokens[-1:], "last")])
    last = context.logits()[-1]
print(json.dumps([first, tokens]))
"""


@pytest.mark.parametrize("tier", ["core", "integer_dot"])
def test_the_default_model(answer, default_model, tier):
    """Within the bounds of tests/golden of the float32 run, and closer than the CPU alone."""
    golden = GOLDEN["prompts"]["capital"]

    def off(rows, layers):
        prompt = json.dumps(golden["ids"])
        logits, tokens = answer(
            GREEDY, default_model, prompt, rows, layers, PYLLAMACPP_VK_TIER=tier
        )
        assert tokens[:5] == golden["greedy"][:5]
        errors = [logits[token] - logit for token, logit in golden["top"] + golden["probes"]]
        return sum(x * x for x in errors) / len(errors)

    streamed = off(2, 8)
    assert streamed <= (2 * 0.30) ** 2
    if tier == "core":  # which rounds no activations to bytes, as the CPU does
        assert streamed < off(0, 0)


TEXT = """
import json, sys, warnings
from pyllamacpp import Llama

found = []
for op_offload in (None, True):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shape = {"n_ctx": 128, "n_gpu_layers": int(sys.argv[2])}
        llm = Llama(sys.argv[1], **shape, op_offload=op_offload, verbose=False)
    text = llm(sys.argv[3], max_tokens=24, temperature=0)["choices"][0]["text"]
    rows = llm.engine.context.stream_rows
    found.append([text, rows, llm.model.gpu_bytes, [str(w.message) for w in caught]])
    llm.close()
print(json.dumps(found))
"""


def test_the_text_is_the_cpus(answer, tmp_path):
    path = TinyModel(n_layers=4).write(tmp_path / "tiny.gguf")
    prompt = "A small model, asked for more than a few words"
    alone, streamed = answer(TEXT, path, 2, prompt, PYLLAMACPP_STREAM_ROWS="16")
    assert (alone[1], streamed[1]) == (0, 16)
    assert len(alone[0]) > 8
    assert streamed[0] == alone[0]
    assert streamed[3] == []
    never = answer(TEXT, path, 2, prompt, PYLLAMACPP_STREAM_ROWS="0")[1]
    assert never[:3] == alone[:3]


PLAN = """
import json, sys
from pyllamacpp import _core

path, n_gpu_layers, n_tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
shape = {"n_ctx": 256, "n_batch": 128}
plan = _core.plan_memory(path, n_gpu_layers=n_gpu_layers, op_offload=True, **shape)
gpu = plan.gpu
s = gpu.streaming
rates = {
    name: getattr(s, name)
    for name in (
        "upload_bytes_per_second", "gpu_ops_per_second", "cpu_ops_per_second", "weight_bytes",
        "row_ops",
    )
}
model = _core.Model(path, n_gpu_layers=gpu.n_layers, n_cpu_ffn=gpu.n_cpu_ffn)
context = _core.Context(model, stream_rows=s.rows, **shape)
loaded = model.gpu_bytes
context.decode([(0, [5] * n_tokens, "last")])
print(json.dumps({
    "rows": s.rows,
    "scratch": s.scratch,
    "note": s.note,
    "rates": rates,
    "decided": _core.least_streamed_rows(most_rows=128, **rates) if rates["row_ops"] else None,
    "taken": [loaded, gpu.total],
    "grown": model.gpu_bytes - loaded,
    "n_layers": gpu.n_layers,
}))
"""


def test_what_is_really_taken(answer, default_model):
    """The forecast against what is allocated, of which an evaluation takes no more."""
    found = answer(PLAN, default_model, 6, 32, PYLLAMACPP_STREAM_ROWS="32")
    assert (found["rows"], found["n_layers"]) == (32, 6)
    assert found["note"] == "PYLLAMACPP_STREAM_ROWS"
    taken, planned = found["taken"]
    assert taken == pytest.approx(planned, rel=0.03)
    assert 32 << 20 <= found["scratch"] < 33 << 20
    assert found["grown"] == 0
    limit = {"PYLLAMACPP_VK_MEM_LIMIT": "356M"}
    beside = answer(PLAN, default_model, -1, 0, PYLLAMACPP_STREAM_ROWS="32", **limit)
    alone = answer(PLAN, default_model, -1, 0, PYLLAMACPP_STREAM_ROWS="0", **limit)
    assert 0 < beside["n_layers"] < alone["n_layers"] < 31
    assert beside["taken"][0] <= 100 << 20


def test_what_is_measured_decides(answer, default_model):
    found = answer(PLAN, default_model, 6, 0)
    assert all(rate > 0 for rate in found["rates"].values())
    assert found["rates"]["row_ops"] == 2 * 3 * 576 * 1536
    assert found["rows"] == found["decided"]
    assert found["note"] == ("" if found["rows"] else "the CPU is faster up to the largest batch")
    all_there = answer(PLAN, default_model, -1, 0)
    assert (all_there["rows"], all_there["note"]) == (0, "")
    assert all_there["rates"]["upload_bytes_per_second"] == 0  # nothing to decide


def test_the_command_prints_it(run, default_model):
    command = (Path(sys.executable).parent / "pyllamacpp", "plan", default_model, "-ngl", "6")
    page = run(*command, "--op-offload", **LAVAPIPE)
    assert re.search(
        r"GPU: working memory .*; measured: upload \d+\.\d\d GB/s, products [\d,]+ Gop/s, "
        r"on the CPU [\d,]+",
        page,
    )
    assert "measured" not in run(*command, **LAVAPIPE)


def test_no_memory_for_it(answer, run, default_model, tmp_path):
    """The device refuses what it needs: prompts go where layers are, and a warning says so."""
    flags = ("-std=c++20", "-shared", "-fPIC")
    source = Path(__file__).with_name("failing_vulkan.cpp")
    run("g++", *flags, "-o", tmp_path / "libvulkan.so.1", source)
    loader = {
        "LD_LIBRARY_PATH": str(tmp_path),
        "REAL_VULKAN": "/usr/lib/x86_64-linux-gnu/libvulkan.so.1",
    }
    most = {"FAIL_OVER": str(90 << 20), "PYLLAMACPP_STREAM_ROWS": "4"}
    prompt = "The capital of France is"
    alone, streamed = answer(TEXT, default_model, 2, prompt, **loader, **most)
    assert alone[0].startswith(" Paris")
    assert streamed[:3] == alone[:3]
    (warning,) = streamed[3]
    assert warning.startswith("op_offload: the GPU has no memory to stream weights through")
