"""The Vulkan backend's shaders on Mesa's software renderer, lavapipe."""

import sys
from pathlib import Path

import pytest

SHADERS = Path(__file__).resolve().parents[2] / "csrc" / "backend" / "vulkan" / "shaders"
LAVAPIPE = {
    "VK_ICD_FILENAMES": "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json",
    "PYLLAMACPP_VK_ALLOW_CPU": "1",
    "PYLLAMACPP_VK_VALIDATE": "1",
}


def test_committed_shaders_are_what_their_sources_give(run):
    run(sys.executable, SHADERS / "compile.py", "--check")


# What glslc and spirv-val of Debian 12 know: test_cooperative_matrix.py has the rest.
KNOWN = sorted(set(SHADERS.glob("*.comp")) - {SHADERS / "matmul_cooperative.comp"})


@pytest.mark.parametrize("source", KNOWN, ids=lambda path: path.stem)
def test_shaders_are_valid(source, run, tmp_path):
    run("glslc", "-O", "--target-env=vulkan1.1", "-o", tmp_path / "out.spv", source)
    run("spirv-val", "--target-env", "vulkan1.1", tmp_path / "out.spv")


# Lanes of the vector that lavapipe takes for a subgroup: 4, 8 and 16.
@pytest.mark.parametrize("width", ["128", "256", "512"])
@pytest.mark.parametrize("tier", ["core", "integer_dot"])
def test_every_op_on_every_type(tier, width, build, run):
    program = build("release", "vulkan_ops") / "tests" / "native" / "vulkan_ops"
    environment = LAVAPIPE | {"LP_NATIVE_VECTOR_WIDTH": width, "PYLLAMACPP_VK_TIER": tier}
    first, *_, last = run(program, **environment).splitlines()
    assert first.endswith(f", tier {tier}")
    assert last == "0 failures"
