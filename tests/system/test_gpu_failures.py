"""A GPU that fails, on Mesa's software renderer behind a loader that fails when told.

In processes of their own, as the Vulkan loader reads once which drivers there are.
"""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
from tiny_model import TinyModel

LOADER = Path(__file__).with_name("failing_vulkan.cpp")
LAVAPIPE = {
    "VK_ICD_FILENAMES": "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json",
    "PYLLAMACPP_VK_ALLOW_CPU": "1",
    "REAL_VULKAN": "/usr/lib/x86_64-linux-gnu/libvulkan.so.1",
}


@pytest.fixture(scope="module")
def loader(run, tmp_path_factory):
    """The environment of a process whose Vulkan loader is the failing one."""
    folder = tmp_path_factory.mktemp("loader")
    flags = ("-std=c++20", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")
    run("g++", *flags, "-o", folder / "libvulkan.so.1", LOADER)
    return LAVAPIPE | {"LD_LIBRARY_PATH": str(folder)}


@pytest.fixture
def answer(run, loader, tmp_path):
    """What a program (a string) prints as JSON."""

    def answer(text, *arguments, **environment):
        program = tmp_path / "program.py"  # outside the checkout, which has no extension
        program.write_text(text)
        return json.loads(run(sys.executable, program, *arguments, **(loader | environment)))

    return answer


EVALUATION = """
import json, os, sys
from pyllamacpp import _core
from pyllamacpp.errors import PyllamacppError

path, n_gpu_layers, stream_rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
failures = [("FAIL_SUBMIT", "1", "-4"), ("FAIL_SUBMIT", "2", "-4"), ("FAIL_WAIT", "1", "-4"),
            ("FAIL_SUBMIT", "1", "-2"), ("FAIL_WAIT", "1", "-1")]
prompt = list(range(3, 103))
model = _core.Model(path, n_gpu_layers=n_gpu_layers)


def context():
    shape = {"n_ctx": 256, "n_batch": 16, "max_sequences": 2}
    context = _core.Context(model, **shape, stream_rows=stream_rows)
    context.decode([(0, prompt[:20], "last")])
    context.fork(0, 1)
    return context


def evaluate(context):
    context.decode([(0, prompt[20:], "all"), (1, prompt[30:40], "last")])
    return context.logits()


undisturbed = context()
expected = evaluate(undisturbed)
found = []
for variable, n, result in failures:
    tried = context()
    free = tried.n_free_pages
    os.environ |= {variable: n, "FAIL_RESULT": result}
    try:
        evaluate(tried)
        raise SystemExit(f"{variable}={n}: no error")
    except PyllamacppError as error:
        sentence = f"{type(error).__name__}: {error}"
    del os.environ[variable]
    # A shared page that was copied before stays copied.
    kept = free - tried.n_free_pages in (0, 1)
    as_it_was = [tried.tokens(0) == tried.tokens(1) == prompt[:20], kept]
    as_it_was.append(bool((evaluate(tried) == expected).all()))
    found.append([sentence, as_it_was])
print(json.dumps(found))
"""


@pytest.mark.parametrize(("n_gpu_layers", "stream_rows"), [(-1, 0), (2, 0), (2, 8)])
def test_an_evaluation_that_fails_changes_nothing(answer, tmp_path, n_gpu_layers, stream_rows):
    """One sentence, sequences as they were, and where the device recovers the same bits."""
    path = TinyModel(n_layers=3).write(tmp_path / "tiny.gguf")
    found = answer(EVALUATION, path, str(n_gpu_layers), str(stream_rows))
    lost = "DeviceError: GPU: {}: the device was lost; the model must be loaded again (VkResult -4)"
    assert [sentence for sentence, _ in found] == [
        lost.format("submitting work"),
        lost.format("submitting work"),
        lost.format("waiting for work"),
        "OutOfMemoryError: GPU: submitting work: the device is out of memory (VkResult -2)",
        "OutOfMemoryError: GPU: waiting for work: the driver is out of memory (VkResult -1)",
    ]
    for _, as_it_was in found:
        assert as_it_was == [True, True, True]


FEWER = """
import json, sys, warnings
from pyllamacpp import Llama

found = []
for n in (-1, "auto"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        llm = Llama(sys.argv[1], n_ctx=128, n_gpu_layers=n, verbose=False)
    text = llm("The capital of France is", max_tokens=4, temperature=0)["choices"][0]["text"]
    found.append([text, llm.model.n_gpu_layers, [str(w.message) for w in caught]])
    llm.close()
print(json.dumps(found))
"""


def test_a_device_that_runs_out_gets_fewer_layers(answer, default_model):
    """The device refuses what it said it had: the rest runs on the CPU, and a warning says so."""
    gpu, auto = answer(FEWER, default_model, FAIL_OVER=str(150 << 20))
    text, n_layers, (warning,) = gpu
    assert text.startswith(" Paris")
    assert 0 < n_layers < 31
    assert warning.startswith(f"n_gpu_layers=-1: {n_layers} of the 31 layers (the head is one) run")
    assert "llvmpipe" in warning
    assert warning.endswith("has no memory for more")
    assert auto[:2] == [text, n_layers]
    assert auto[2] == []


LOST = """
import json, os, sys
from pyllamacpp import Llama

llm = Llama(sys.argv[1], n_ctx=128, n_gpu_layers=-1, verbose=False)


def text():
    return llm("The capital of France is", max_tokens=4, temperature=0)["choices"][0]["text"]


first = text()
os.environ["FAIL_WAIT"] = "2"
try:
    text()
except RuntimeError as error:
    sentence = str(error)
del os.environ["FAIL_WAIT"]
print(json.dumps([first, sentence, text()]))
"""


def test_a_lost_device_is_an_exception(answer, default_model):
    first, sentence, last = answer(LOST, default_model)
    assert "the device was lost" in sentence
    assert first == last


TIER = """
import json, sys
from pyllamacpp import _core
from pyllamacpp.errors import PyllamacppError

(gpu,) = _core.list_gpus()
try:
    model = _core.Model(sys.argv[1], n_gpu_layers=-1)
    context = _core.Context(model, n_ctx=128)
    context.decode([(0, [3, 4, 5], "last")])
    result = bool((abs(context.logits()) < 100).all())
except PyllamacppError as error:
    result = f"{type(error).__name__}: {error}"
print(json.dumps([gpu.tier, "dot" in gpu.features, result]))
"""


def test_the_tier_is_chosen_by_what_the_device_has(answer, tmp_path):
    path = TinyModel(n_layers=1).write(tmp_path / "tiny.gguf")
    assert answer(TIER, path) == ["core", True, True]
    assert answer(TIER, path, INTEGER_DOT="fast") == ["integer_dot", True, True]
    assert answer(TIER, path, INTEGER_DOT="fast", PYLLAMACPP_VK_TIER="core")[0] == "core"
    assert answer(TIER, path, INTEGER_DOT="none") == ["core", False, True]
    _, has_dot, sentence = answer(TIER, path, INTEGER_DOT="none", PYLLAMACPP_VK_TIER="integer_dot")
    assert not has_dot
    assert sentence.startswith("UnsupportedError: PYLLAMACPP_VK_TIER is integer_dot, and llvmpipe")
    assert sentence.endswith(" has no integer dot products")
