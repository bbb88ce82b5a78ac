"""The default model wholly and partly on Mesa's software renderer, lavapipe.

Held to the float32 run in tests/data/golden.json. In processes of their own, as the Vulkan loader
reads once which drivers there are.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LAVAPIPE = {
    "VK_ICD_FILENAMES": "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json",
    "PYLLAMACPP_VK_ALLOW_CPU": "1",
    "PYLLAMACPP_VK_VALIDATE": "1",
}
GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden.json").read_text("utf-8"))
CAPITAL = GOLDEN["prompts"]["capital"]
PROGRAM = """
import json, sys
import gguf
from pyllamacpp import _core

path, layers, prompt = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
model = _core.Model(path, n_gpu_layers=layers)


def evaluate(n_batch):
    context = _core.Context(model, n_ctx=128, n_batch=n_batch, max_sequences=2)
    context.decode([(0, prompt, "all")])
    return context, context.logits()


def hidden(n_batch):
    context = _core.Context(model, n_ctx=128, n_batch=n_batch, max_sequences=2)
    return context.embed([(0, prompt, "all"), (1, prompt[:3], "last")])


context, logits = evaluate(64)
states = hidden(64)
table = next(t for t in gguf.GGUFReader(path).tensors if t.name == "token_embd.weight")
from_states = states[: len(prompt)] @ gguf.dequantize(table.data, table.tensor_type).T
same_when_split = bool((logits == evaluate(2)[1]).all())
last, tokens = logits[-1], []
for _ in range(12):
    tokens.append(int(last.argmax()))
    context.decode([(0, tokens[-1:], "last")])
    last = context.logits()[-1]
context.trim(0, len(prompt))
context.fork(0, 1)  # the shared page is copied when it is written
context.decode([(1, tokens[:1], "last")])
forked = int(context.logits()[-1].argmax())
print(json.dumps({
    "n_gpu_layers": model.n_gpu_layers,
    "logits": logits[-1].tolist(),
    "same_when_split": same_when_split,
    "same_states_when_split": bool((states == hidden(2)).all()),
    "same_state_in_company": bool((states[-1] == states[2]).all()),
    "off_the_states": float(abs(from_states - logits).max()),
    "tokens": tokens,
    "forked": forked,
    "messages": _core.take_gpu_messages(),
}))
"""


@pytest.fixture
def program(tmp_path):
    """A file outside the checkout, whose package has no extension beside it."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.mark.parametrize(
    ("layers", "environment"),
    [
        (-1, {}),
        (16, {}),
        (1, {}),
        (-1, {"PYLLAMACPP_VK_TIER": "integer_dot"}),
        # As a device of small limits: matrices and the cache in many parts.
        (-1, {"PYLLAMACPP_VK_MAX_BIND": "1M", "PYLLAMACPP_VK_MAX_ALLOC": "8M"}),
    ],
)
def test_layers_on_the_gpu(layers, environment, run, default_model, program):
    prompt = json.dumps(CAPITAL["ids"])
    command = [sys.executable, program, default_model, str(layers), prompt]
    found = json.loads(run(*command, **LAVAPIPE, **environment))
    assert found["n_gpu_layers"] == (31 if layers == -1 else layers)
    assert found["messages"] == []
    assert found["same_when_split"]
    assert found["same_states_when_split"]
    assert found["same_state_in_company"]
    assert found["forked"] == found["tokens"][1]
    if environment.get("PYLLAMACPP_VK_TIER") == "integer_dot":
        # Activations are rounded to bytes: the bounds of tests/golden, where five steps are robust.
        off = [
            found["logits"][token] - logit for token, logit in CAPITAL["top"] + CAPITAL["probes"]
        ]
        assert sum(x * x for x in off) / len(off) <= (2 * 0.30) ** 2
        assert found["tokens"][:5] == CAPITAL["greedy"][:5]
        return
    assert found["off_the_states"] < 1e-3  # logits up to 30, sums of 576 in float32
    if layers == -1:  # on the CPU activations are rounded to bytes too
        assert found["tokens"] == CAPITAL["greedy"][:12]
        for token, logit in CAPITAL["top"] + CAPITAL["probes"]:
            # Keys and values are halves.
            assert found["logits"][token] == pytest.approx(logit, abs=0.02)


def refusal(default_model, **environment) -> str:
    program = "import sys; from pyllamacpp import _core; _core.Model(sys.argv[1], n_gpu_layers=-1)"
    result = subprocess.run(
        [sys.executable, "-c", program, default_model],
        env={**LAVAPIPE, **environment},
        cwd="/",
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 1
    return result.stderr.splitlines()[-1]


def test_out_of_memory_is_an_error(default_model):
    assert refusal(default_model, PYLLAMACPP_VK_MEM_LIMIT="20M").startswith(
        "pyllamacpp.errors.OutOfMemoryError: not enough memory on llvmpipe"
    )


def test_a_limit_that_is_no_size(default_model):
    message = refusal(default_model, PYLLAMACPP_VK_MEM_LIMIT="much")
    assert "PYLLAMACPP_VK_MEM_LIMIT is 'much', expected a size" in message


def test_a_tier_that_the_device_lacks(default_model):
    message = refusal(default_model, PYLLAMACPP_VK_TIER="cooperative_matrix")
    assert message.startswith(
        "pyllamacpp.errors.UnsupportedError: PYLLAMACPP_VK_TIER is cooperative_matrix, and llvmpipe"
    )
    assert message.endswith("has no cooperative matrices of bytes")


def test_no_gpu(default_model):
    message = refusal(default_model, PYLLAMACPP_VK_ALLOW_CPU="0", PYLLAMACPP_VK_VALIDATE="0")
    assert "there is none here" in message
