"""`Llama(n_gpu_layers=)` and the commands on Mesa's software renderer, lavapipe.

In processes of their own, as the Vulkan loader reads once which drivers there are.
"""

import json
import re
import sys
from pathlib import Path

import gguf
import numpy as np
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
        "gpu_bytes": llm.model.gpu_bytes,
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


SPLITS_PROGRAM = """
import json, sys
from pyllamacpp import _core

path, n_layers = sys.argv[1], int(sys.argv[2])
prompt = list(range(3, 83))


def evaluate(model, n_batch):
    context = _core.Context(model, n_ctx=128, n_batch=n_batch)
    context.decode([(0, prompt, "all")])
    return context.logits()


cpu = evaluate(_core.Model(path), 128)
found = []
for n in range(1, n_layers + 2):
    for n_ffn in range(n):
        model = _core.Model(path, n_gpu_layers=n, n_cpu_ffn=n_ffn)
        rows = evaluate(model, 128)
        same = bool((rows == evaluate(model, 7)).all())
        placed = [model.n_gpu_layers, model.n_cpu_ffn]
        found.append([placed == [n, n_ffn], float(abs(rows - cpu).max()), same])
print(json.dumps([found, _core.take_gpu_messages()]))
"""


def test_the_logits_are_the_cpus_at_every_split(run, tmp_path):
    """Layers from the end, the first of them with their feed-forward part on the CPU."""
    path = TinyModel(n_layers=3, qkv_bias=True).write(tmp_path / "tiny.gguf")
    program = tmp_path / "program.py"
    program.write_text(SPLITS_PROGRAM)
    command = (sys.executable, program, path, "3")
    found, messages = json.loads(run(*command, **LAVAPIPE, PYLLAMACPP_VK_VALIDATE="1"))
    assert messages == []
    assert len(found) == 1 + 2 + 3 + 4
    for as_asked, off, same in found:
        assert as_asked
        assert off < 0.01  # logits up to 4; keys and values are halves
        assert same


MEMORY_PROGRAM = """
import json, sys
from pyllamacpp import _core

path, cases = sys.argv[1], json.loads(sys.argv[2])
found = []
for shape, available in cases:
    plan = _core.plan_memory(path, n_gpu_layers=-1, gpu_available=available, **shape)
    gpu = plan.gpu
    model = _core.Model(path, n_gpu_layers=gpu.n_layers, n_cpu_ffn=gpu.n_cpu_ffn)
    weights = model.gpu_bytes
    context = _core.Context(model, **shape)
    loaded = model.gpu_bytes
    context.decode([(0, [5] * shape["n_batch"], "last")])
    found.append({
        "n_layers": gpu.n_layers,
        "n_cpu_ffn": gpu.n_cpu_ffn,
        "weights": [weights, gpu.weights],
        "all": [loaded, gpu.total],
        "grown": model.gpu_bytes - loaded,
        "usable": gpu.usable,
    })
print(json.dumps(found))
"""


def test_what_is_really_taken(run, tmp_path, default_model):
    """The plan's forecast against what is allocated, of which an evaluation takes no more."""
    program = tmp_path / "program.py"
    program.write_text(MEMORY_PROGRAM)
    reserve = 256 << 20
    cases = [
        [{"n_ctx": 512, "n_batch": 32}, 4 << 30],
        [{"n_ctx": 512, "n_batch": 32}, reserve + (90 << 20)],
        [{"n_ctx": 256, "n_batch": 16, "type_k": "q8_0", "type_v": "q4_0"}, reserve + (71 << 20)],
    ]
    command = (sys.executable, program, default_model, json.dumps(cases))
    found = json.loads(run(*command, **LAVAPIPE))
    assert found[0]["n_layers"] == 31
    assert all(1 < f["n_layers"] < 31 for f in found[1:])
    for f in found:
        for taken, planned in (f["weights"], f["all"]):
            assert taken == pytest.approx(planned, rel=0.03)
        assert f["all"][0] <= f["usable"]
        assert f["grown"] == 0


def test_a_limit_is_kept(texts, default_model):
    """A pretended small card: the plan knows of it, and its last tenth is never touched."""
    cpu, gpu, auto = texts(
        default_model, "The capital of France is", [0, -1, "auto"], PYLLAMACPP_VK_MEM_LIMIT="350M"
    )
    assert 0 < gpu["n_gpu_layers"] < 31
    assert gpu["gpu_bytes"] <= 94 << 20
    assert gpu["text"].startswith(" Paris")
    (warning,) = gpu["warnings"]
    assert warning.startswith(f"n_gpu_layers=-1: {gpu['n_gpu_layers']} of the 31 layers")
    assert "llvmpipe" in warning
    assert warning.endswith("has no memory for more")
    assert auto["n_gpu_layers"] == gpu["n_gpu_layers"]
    assert cpu["warnings"] == auto["warnings"] == []


FURTHER_PROGRAM = """
import json, sys
from pyllamacpp import Llama

llm = Llama(sys.argv[1], n_ctx=128, n_gpu_layers=-1, embedding=True, verbose=False)
found = [len(llm.embed("a few words")), llm.new_context(n_ctx=64)("One", max_tokens=2) is not None]
big = llm.new_context(n_ctx=4096)
for refused in (lambda: llm.new_context(n_ctx=100_000), lambda: big.embed("a few words")):
    try:
        refused()
    except MemoryError as error:
        found.append(str(error))
print(json.dumps(found))
"""


def test_further_contexts_have_to_fit(run, tmp_path, default_model):
    program = tmp_path / "program.py"
    program.write_text(FURTHER_PROGRAM)
    environment = LAVAPIPE | {"PYLLAMACPP_VK_MEM_LIMIT": "430M"}
    n_vectors, works, context, embedder = json.loads(
        run(sys.executable, program, default_model, **environment)
    )
    assert n_vectors == 3  # one of each token
    assert works
    assert context.startswith("a context of 100000 tokens needs 2.")
    assert embedder.startswith("texts of up to 4096 tokens need 0.")
    for message in (context, embedder):
        assert re.search(r"GiB of the GPU's memory and 0\.\d\d GiB are available$", message)


@pytest.mark.parametrize(
    "command",
    [
        ("bench", "-p", "8", "-n", "2", "-r", "1"),
        ("perplexity", "-c", "64", "-f", "TEXT"),
        ("imatrix", "-c", "64", "-f", "TEXT", "-o", "OUT"),
        ("embed", "-c", "64", "a few words"),
    ],
    ids=lambda command: command[0],
)
def test_commands(command, run, default_model, tmp_path):
    """The same answers as on the CPU, but for rounding."""
    text = tmp_path / "text.txt"
    text.write_text("It was a bright cold day in April. " * 12)
    out = tmp_path / "out.imatrix"
    program = Path(sys.executable).parent / "pyllamacpp"

    def answer(layers):
        places = {"TEXT": str(text), "OUT": str(out)}
        words = [places.get(word, word) for word in command[1:]]
        words += ["--force"] if command[0] == "imatrix" else ["--json"]
        printed = run(program, command[0], "-m", default_model, "-ngl", layers, *words, **LAVAPIPE)
        if command[0] != "imatrix":
            return json.loads(printed)
        return {t.name: t.data.astype(float) for t in gguf.GGUFReader(out).tensors}

    cpu, gpu = answer("0"), answer("20")
    if command[0] == "bench":
        assert [row["test"] for row in gpu] == ["pp8", "tg2"]
    elif command[0] == "perplexity":
        assert gpu["ppl"] == pytest.approx(cpu["ppl"], rel=0.03)
    elif command[0] == "embed":
        near = np.dot(gpu["data"][0]["embedding"], cpu["data"][0]["embedding"])
        assert near == pytest.approx(1, abs=0.01)
    else:
        assert list(cpu) == list(gpu)
        for name, sums in cpu.items():
            assert gpu[name].sum() == pytest.approx(sums.sum(), rel=0.1)


def test_no_driver(texts, default_model):
    (found,) = texts(default_model, "One", [3], VK_ICD_FILENAMES="/nonexistent")
    assert found["n_gpu_layers"] == 0
    (warning,) = found["warnings"]
    assert warning.endswith("no Vulkan driver found a GPU")


def test_no_loader(run, texts, default_model, tmp_path):
    """Vulkan's library cannot be opened: found first, and no library."""
    for name in ("libvulkan.so.1", "libvulkan.so"):
        (tmp_path / name).write_bytes(b"")
    environment = LAVAPIPE | {"LD_LIBRARY_PATH": str(tmp_path)}
    program = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    for name in ("libvulkan.so.1", "libvulkan.so"):
        wrapped = f"try:\n  {program}\nexcept OSError as error:\n  print(error)"
        assert "file too short" in run(sys.executable, "-c", wrapped, name, **environment)
    (found,) = texts(default_model, "The capital of France is", [-1], **environment)
    assert found["text"].startswith(" Paris")
    assert found["n_gpu_layers"] == 0
    (warning,) = found["warnings"]
    assert warning.endswith("no Vulkan driver found a GPU")
    devices = (Path(sys.executable).parent / "pyllamacpp", "devices")
    assert run(*devices, **environment) == "no GPU: no Vulkan driver found one\n"


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


@pytest.mark.parametrize("layers", ["12", "auto"])
def test_the_native_program(layers, run, native_program, default_model):
    prompt = ("-p", "The capital of France is", "-n", "4", "--temp", "0", "-c", "128")
    out = run(native_program, "-m", default_model, "-ngl", layers, *prompt, **LAVAPIPE)
    assert out.startswith(" Paris")
