"""`pyllamacpp devices` on Mesa's software renderer, lavapipe."""

import json
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
