"""Runs llama-cpp-python's own Python tests against this package, under the alias `llama_cpp`.

    python benchmarks/peer_tests.py [SDIST.tar.gz]

The tests come out of the source distribution, which pip fetches where none is given; models of the
hub are replaced by the default model. A test that fails must be in `NOT_PASSING` with its reason
and one that is there must fail; exit code 1 otherwise.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from compare import PEER, PEER_VERSION, default_model

VOCABULARY = "vendor/llama.cpp/models/ggml-vocab-llama-spm.gguf"
# Lines that look into the peer's objects, or expect the words of a model of the hub; the rest of
# their tests is run.
LEFT_OUT = (
    "llama._ctx",
    "._is_recurrent is",
    "._is_hybrid is",
    '["text"] == " jumps over the lazy dog."',
    '["text"] == "true"',
)
# Test, with its parameters or without for all of them -> why it does not pass.
_ARCHITECTURE = "a model of the hub that is not a LLaMA"
_OTHERS = ("llama_cpp_recurrent_model_path-True-False", "llama_cpp_hybrid_model_path-False-True")
_CACHED = (
    "test_exact_cached_prompt_reuse_matches_fresh",
    "test_loaded_exact_cached_prompt_reuse_matches_fresh",
    "test_ram_cache_exact_prompt_hit_matches_fresh",
    "test_shorter_prompt_prefix_reuse_matches_fresh",
)
NOT_PASSING: dict[str, str] = {
    **{f"{test}[{other}]": _ARCHITECTURE for test in _CACHED for other in _OTHERS},
    "test_recurrent_model_prompt_cache_reset": _ARCHITECTURE,
    "test_hybrid_model_prompt_cache_reset": _ARCHITECTURE,
    "test_ram_cache_exact_prompt_hit_matches_fresh": "the text is equal, but no call of load_state",
    "test_real_model": "the C interface, which this package has not",
    "test_real_llama_embeddings": "a model of the hub that is not a LLaMA",
    "test_mistral_instruct": "formats are known by name, not as functions format_NAME",
    "test_hf_tokenizer_config_str_to_chat_formatter": "expects an empty answer closed by </s>",
}
# What the tests import beside the package: the parts of the C interface are not there, and of
# scipy one function is wanted.
CONFTEST = """
import sys
from types import ModuleType

import huggingface_hub
import numpy as np

import pyllamacpp.as_llama_cpp

special = ModuleType("scipy.special")
special.log_softmax = lambda x, axis=None: x - np.logaddexp.reduce(x, axis=axis, keepdims=True)
sys.modules["scipy"], sys.modules["scipy.special"] = ModuleType("scipy"), special
sys.modules["llama_cpp._internals"] = ModuleType("llama_cpp._internals")


def download(repo, file):
    if repo not in ("lmstudio-community/Qwen3.5-0.8B-GGUF", "ggml-org/models"):
        raise FileNotFoundError(f"{{repo}} is not replaced by the default model")
    return {model!r}


huggingface_hub.hf_hub_download = download
"""


def fetch(folder: Path) -> Path:
    """The source distribution; pip reads its metadata but builds nothing."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", PEER]
    subprocess.run([*command, "-d", str(folder), f"{PEER}=={PEER_VERSION}"], check=True)
    (found,) = folder.glob("*.tar.gz")
    return found


def unpack(sdist: Path, folder: Path) -> None:
    """Its tests/*.py and the vocabulary they read."""
    with tarfile.open(sdist) as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            parts = name.split("/")
            is_test = len(parts) == 2 and parts[0] == "tests" and name.endswith(".py")
            if member.isfile() and (is_test or name == VOCABULARY):
                content = archive.extractfile(member)
                assert content is not None
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                data = content.read()
                if is_test:
                    lines = data.decode().splitlines(keepends=True)
                    kept = [line for line in lines if not any(x in line for x in LEFT_OUT)]
                    data = "".join(kept).encode()
                path.write_bytes(data)


def run(folder: Path) -> dict[str, str]:
    """Each test with why it failed, in one line, empty where it passed."""
    conftest = CONFTEST.format(model=str(default_model()))
    (folder / "tests" / "conftest.py").write_text(conftest)
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "--junitxml", str(report), "tests"]
    subprocess.run([*command, "-p", "no:cacheprovider"], cwd=folder, check=False, timeout=1200)
    found = {}
    for case in ET.parse(report).iter("testcase"):
        first = next((child.get("message") or "failed" for child in case), "")
        found[case.attrib["name"]] = first.splitlines()[0] if first else ""
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sdist = Path(sys.argv[1]) if len(sys.argv) > 1 else fetch(folder)
        unpack(sdist, folder)
        found = run(folder)
    failed = {test: why for test, why in found.items() if why}
    print(f"{len(found) - len(failed)} of {len(found)} tests of {PEER} {PEER_VERSION} pass")
    unexpected = 0
    for test, why in failed.items():
        reason = NOT_PASSING.get(test) or NOT_PASSING.get(test.partition("[")[0])
        unexpected += reason is None
        print(f"- {test}: {reason or 'NOT EXPECTED: ' + why}")
    wrong = NOT_PASSING.keys() - {test.partition("[")[0] for test in failed} - failed.keys()
    for test in sorted(wrong):
        print(f"- {test}: passes or is not there, but is listed as failing")
    sys.exit(bool(unexpected or wrong or not found))


if __name__ == "__main__":
    main()
