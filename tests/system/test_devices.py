"""`pyllamacpp devices` on Mesa's software renderer, lavapipe."""

import json
import os
import subprocess
import sys
from pathlib import Path

LAVAPIPE = {"VK_ICD_FILENAMES": "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json"}


def test_a_software_renderer_is_shown_when_allowed(run):
    command = [Path(sys.executable).with_name("pyllamacpp"), "devices", "--json"]
    assert json.loads(run(*command, **LAVAPIPE)) == []
    (gpu,) = json.loads(
        run(*command, **LAVAPIPE, PYLLAMACPP_VK_ALLOW_CPU="1", PYLLAMACPP_DEVICE="LLVMpipe")
    )
    assert gpu["name"].startswith("llvmpipe")
    assert gpu["kind"] == "software"
    assert 0 < gpu["memory_free"] <= gpu["memory"]
    assert gpu["chosen"]
    (gpu,) = json.loads(
        run(*command, **LAVAPIPE, PYLLAMACPP_VK_ALLOW_CPU="1", PYLLAMACPP_DEVICE="cpu")
    )
    assert not gpu["chosen"]


def test_the_tier(run):
    """Integer dot products are not accelerated there, so that they are used only when asked for."""
    environment = LAVAPIPE | {"PYLLAMACPP_VK_ALLOW_CPU": "1"}
    command = [Path(sys.executable).with_name("pyllamacpp"), "devices"]
    assert "\n     tier core; " in run(*command, **environment)
    for tier in ("core", "integer_dot"):
        assert f"\n     tier {tier}; " in run(*command, **environment, PYLLAMACPP_VK_TIER=tier)
    result = subprocess.run(
        command,
        env=os.environ | environment | {"PYLLAMACPP_VK_TIER": "fast"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    (sentence,) = result.stderr.splitlines()
    assert (
        "PYLLAMACPP_VK_TIER is 'fast', expected core, integer_dot or cooperative_matrix" in sentence
    )
