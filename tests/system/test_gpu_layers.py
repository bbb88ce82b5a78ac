"""`Llama(n_gpu_layers=)` and the commands on Mesa's software renderer, lavapipe.

In processes of their own, as the Vulkan loader reads once which drivers there are.
"""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
from tiny_model import TinyModel

LAVAPIPE = {
    "VK_ICD_FILENAMES": "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json",
    "PYLLAMACPP_VK_ALLOW_CPU": "1",
}
PROGRAM = """
import json, sys, warnings
from pyllamacpp import Llama

path, prompt, layers = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
found = []
for n in layers:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        llm = Llama(path, n_ctx=128, n_gpu_layers=n, verbose=False)
    text = llm(prompt, max_tokens=24, temperature=0)["choices"][0]["text"]
    found.append({
        "text": text,
        "n_gpu_layers": llm.model.n_gpu_layers,
        "warnings": [str(w.message) for w in caught],
    })
    llm.close()
print(json.dumps(found))
"""

TYPES_PROGRAM = """
import json, sys
from pyllamacpp import _core

path, types = sys.argv[1], ("f16", "q8_0", "q4_0")
prompt = list(range(3, 203))
found = {}
for n in (0, -1, 2):
    model = _core.Model(path, n_gpu_layers=n)
    for key in types:
        for value in types:
            rows = []
            for n_batch in (256, 7):
                shape = {"n_ctx": 256, "type_k": key, "type_v": value, "max_sequences": 2}
                context = _core.Context(model, n_batch=n_batch, **shape)
                context.decode([(0, prompt, "all")])
                rows.append(context.logits())
            context.fork(0, 1)
            context.trim(1, 190)  # within a page, which is copied
            context.decode([(1, prompt[190:], "all")])
            same = (rows[0] == rows[1]).all() and (rows[0][190:] == context.logits()).all()
            cpu, _ = found.setdefault(f"{key} {value}", (rows[0], []))
            found[f"{key} {value}"][1].append([float(abs(rows[0] - cpu).max()), bool(same)])
print(json.dumps({name: off for name, (_, off) in found.items()}))
"""


@pytest.fixture
def texts(run, tmp_path):
    """Loads a model with each of `layers` and says what came of it."""
    program = tmp_path / "program.py"  # outside the checkout, which has no extension
    program.write_text(PROGRAM)

    def texts(path, prompt, layers, **environment):
        command = (sys.executable, program, path, prompt, json.dumps(layers))
        return json.loads(run(*command, **(LAVAPIPE | environment)))

    return texts


def test_the_text_is_the_cpus_at_every_split(texts, tmp_path):
    path = TinyModel(n_layers=4).write(tmp_path / "tiny.gguf")
    cpu, *split = texts(path, "A small model", [0, 1, 2, 3, 4, 5, -1, "auto"])
    assert [found["n_gpu_layers"] for found in split] == [1, 2, 3, 4, 5, 5, 5]
    assert len(cpu["text"]) > 8
    for found in split:
        assert found["text"] == cpu["text"]
        assert found["warnings"] == []


def test_types_of_keys_and_values(run, tmp_path):
    """Each as on the CPU: where an input rounds to the next code, by a step of its block."""
    path = TinyModel(n_layers=3, n_embd=96, head_dim=96, rope_dim=48).write(tmp_path / "tiny.gguf")
    program = tmp_path / "program.py"
    program.write_text(TYPES_PROGRAM)
    found = json.loads(run(sys.executable, program, path, **LAVAPIPE))
    assert len(found) == 9
    for types, splits in found.items():
        for off, same in splits:
            assert same
            assert off < (0.2 if "q" in types else 0.01), types  # logits up to 4


def test_a_device_that_runs_out_gets_fewer_layers(texts, default_model):
    """The device refuses what it said it had: the rest runs on the CPU, and a warning says so."""
    prompt = "The capital of France is"
    cpu, gpu, auto = texts(default_model, prompt, [0, -1, "auto"], PYLLAMACPP_VK_MEM_LIMIT="130M")
    assert 0 < gpu["n_gpu_layers"] < 31
    assert gpu["text"].startswith(" Paris")
    (warning,) = gpu["warnings"]
    assert warning.startswith(f"n_gpu_layers=-1: {gpu['n_gpu_layers']} of the 31 layers")
    assert "llvmpipe" in warning
    assert warning.endswith("has no memory for more")
    assert auto["n_gpu_layers"] == gpu["n_gpu_layers"]
    assert cpu["warnings"] == auto["warnings"] == []


def test_no_driver(texts, default_model):
    (found,) = texts(default_model, "One", [3], VK_ICD_FILENAMES="/nonexistent")
    assert found["n_gpu_layers"] == 0
    (warning,) = found["warnings"]
    assert warning.endswith("no Vulkan driver found a GPU")


def test_main_gpu(run, default_model):
    program = (
        "import sys; from pyllamacpp import Llama; Llama(sys.argv[1], main_gpu=7, n_gpu_layers=1)"
    )
    wrapped = f"try:\n  exec({program!r})\nexcept ValueError as error:\n  print(error)"
    out = run("env", "-C", "/", sys.executable, "-c", wrapped, default_model, **LAVAPIPE)
    assert out == "main_gpu is 7; the GPUs here are 0 to 0\n"


def test_chat_wholly_on_the_gpu(run, default_model):
    command = Path(sys.executable).parent / "pyllamacpp"
    question = "What is the capital of France?"
    answer = run(
        *(command, "chat", "-m", default_model, "-c", "256", "-ngl", "-1", "--temp", "0", question),
        **LAVAPIPE,
    )
    assert "Paris" in answer
