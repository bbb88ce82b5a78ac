"""Prompts by cooperative matrices, on the software renderer of Debian sid's Mesa.

Programs built here run with the dynamic linker and the libraries of the folder DEBIAN_SID, which
.ci/full makes. A device without cooperative matrices of bytes fails every test.
"""

import json
import os
import runpy
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.sid

ROOT = Path(__file__).resolve().parents[2]
SHADERS = ROOT / "csrc" / "backend" / "vulkan" / "shaders"
PROMPT = json.loads((ROOT / "tests" / "data" / "golden.json").read_text("utf-8"))["prompts"][
    "capital"
]["ids"]


@pytest.fixture(scope="session")
def with_sid(run):
    """Runs a command with sid's Vulkan, or with libraries of `folder` before it."""
    root = Path(os.environ["DEBIAN_SID"])
    libraries = root / "usr" / "lib" / "x86_64-linux-gnu"
    vulkan = {
        "VK_ICD_FILENAMES": str(root / "usr/share/vulkan/icd.d/lvp_icd.json"),
        "VK_LAYER_PATH": str(root / "usr/share/vulkan/explicit_layer.d"),
        # Subgroups of 8 lanes: with 4 Mesa 26.2 has no cooperative matrices, with 16 its compiler
        # of shaders crashes on them.
        "LP_NATIVE_VECTOR_WIDTH": "256",
        "PYLLAMACPP_VK_ALLOW_CPU": "1",
        "PYLLAMACPP_VK_VALIDATE": "1",
        "REAL_VULKAN": str(libraries / "libvulkan.so.1"),
    }

    def with_sid(*command, folder=libraries, **environment):
        linker = (root / "lib64" / "ld-linux-x86-64.so.2", "--library-path")
        return run(*linker, f"{folder}:{libraries}", *command, **(vulkan | environment))

    return with_sid


def test_the_shader_is_valid(with_sid, tmp_path):
    compile_shader = runpy.run_path(str(SHADERS / "compile.py"))["compile_shader"]
    (tmp_path / "out.spv").write_bytes(compile_shader(SHADERS / "matmul_cooperative.comp"))
    validator = Path(os.environ["DEBIAN_SID"], "usr", "bin", "spirv-val")
    with_sid(validator, "--target-env", "vulkan1.3", tmp_path / "out.spv")


def test_every_op_on_every_type(build, with_sid):
    program = build("release", "vulkan_ops") / "tests" / "native" / "vulkan_ops"
    first, *_, compared, last = with_sid(
        program, PYLLAMACPP_VK_TIER="cooperative_matrix"
    ).splitlines()
    assert first.endswith(", tier cooperative_matrix")
    assert compared.startswith("bits of integer_dot by matrices of ")
    assert last == "0 failures"


def test_the_tier(with_sid, run, tmp_path):
    """By default it is taken where integer dot products are fast, as a loader here pretends."""
    loader = Path(__file__).with_name("failing_vulkan.cpp")
    run("g++", "-std=c++20", "-shared", "-fPIC", "-o", tmp_path / "libvulkan.so.1", loader)
    command = [sys.executable, Path(sys.executable).with_name("pyllamacpp"), "devices"]
    for what, tier in {"": "core", "fast": "cooperative_matrix", "none": "core"}.items():
        shown = with_sid(*command, folder=tmp_path, INTEGER_DOT=what)
        assert f"\n     tier {tier}; " in shown
        assert shown.endswith(", dot, matrix\n") == (what != "none")


PROGRAM = """
import json, os, sys
from pyllamacpp import _core

path, prompt = sys.argv[1], json.loads(sys.argv[2])
logits, texts = [], []
for tier, n_batch in (("integer_dot", 64), ("cooperative_matrix", 64), ("cooperative_matrix", 13)):
    os.environ["PYLLAMACPP_VK_TIER"] = tier
    model = _core.Model(path, n_gpu_layers=-1)
    context = _core.Context(model, n_ctx=128, n_batch=n_batch)
    context.decode([(0, prompt, "all")])
    logits.append(context.logits())
    last, tokens = logits[-1][-1], []
    for _ in range(8):
        tokens.append(int(last.argmax()))
        context.decode([(0, tokens[-1:], "last")])
        last = context.logits()[-1]
    texts.append(tokens)
print(json.dumps({
    "rows": len(logits[0]),
    "same_logits": [bool((found == logits[0]).all()) for found in logits],
    "same_texts": [tokens == texts[0] for tokens in texts],
    "messages": _core.take_gpu_messages(),
}))
"""


def test_the_default_model(with_sid, default_model, tmp_path):
    """The same bits by cooperative matrices as by integer dot products."""
    program = tmp_path / "program.py"  # outside the checkout, which has no extension
    program.write_text(PROGRAM)
    prompt = (PROMPT * 20)[:60]
    found = json.loads(with_sid(sys.executable, program, default_model, json.dumps(prompt)))
    assert found == {
        "rows": 60,
        "same_logits": [True] * 3,
        "same_texts": [True] * 3,
        "messages": [],
    }
