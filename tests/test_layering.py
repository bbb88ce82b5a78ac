"""Includes and imports go down the ladder of docs/design.md; vector code stays in its place."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# What each layer may use; it may also use whatever those layers use.
CSRC = {
    "base": (),
    "gguf": ("base",),
    "quant": ("base",),
    "cpu": ("base",),
    "text": ("base",),
    "sample": ("base",),
    "backend": ("cpu", "quant"),
    "cache": ("backend",),
    "model": ("gguf", "backend", "cache", "text"),
    "session": ("model", "sample"),
    "chat": ("session",),
    "api": ("cpu", "quant"),
    "bind": ("session",),
}
PACKAGE = {
    "errors": (),
    "constants": (),
    "log": (),
    "_core": ("errors",),
    "kernels": ("_core",),
    "scores": ("_core",),
    "encoding": ("_core",),
    "params": ("_core", "encoding"),
    "models": ("errors", "log"),
    "chat": ("_core", "log"),
    "llama_chat_format": ("chat", "models"),
    "loading": ("_core", "log"),
    "embedding": ("loading",),
    "system": ("_core",),
    "processors": ("params",),
    "banned": ("params",),
    "stream": ("_core", "params"),
    "state": ("_core",),
    "llama_cache": ("state", "log"),
    "engine": ("stream", "scores", "state"),
    "log_prob_text": ("stream",),
    "completion": ("engine", "log_prob_text", "log"),
    "chat_completion": ("completion", "chat"),
    "llama_types": ("chat_completion",),
    "jobs": ("completion",),
    "drafting": ("engine", "loading", "models"),
    "session": ("drafting", "embedding", "lora", "llama_cache"),
    "grammar": ("_core",),
    "arguments": ("params", "grammar"),
    "llama_grammar": ("grammar",),
    "llama_speculative": ("drafting",),
    "llama_tokenizer": ("session",),
    "lora": ("_core",),
    "llama": (
        "session",
        "chat_completion",
        "jobs",
        "chat",
        "grammar",
        "banned",
        "llama_tokenizer",
        "processors",
        "arguments",
    ),
    "__init__": ("llama", "constants", "llama_speculative", "system"),
    "as_llama_cpp": ("__init__", "llama_types"),
    "eval": ("llama",),
    "server": ("__init__", "jobs", "models", "embedding", "errors", "log"),
    "cli": ("__init__", "eval", "server"),
    "__main__": ("cli",),
}
# Whole modules: pyllamacpp_convert reaches the quantizers through the flat C ABI only.
CONVERT = ("pyllamacpp.errors", "pyllamacpp.kernels")

INTRINSICS = re.compile(r'#\s*include\s*[<"](\w+intrin\.h|arm_\w+\.h)[>"]')
ISA_FLAG = re.compile(
    r"-m(arch|cpu|tune|avx|sse|ssse|fma|f16c|bmi|popcnt)|/arch:|target_clones"
    r"|__attribute__\s*\(\(\s*target|#\s*pragma\s+(GCC|clang)\s+(target|attribute)"
)


def reachable(layer: str, edges: dict[str, tuple[str, ...]]) -> set[str]:
    return {layer}.union(*(reachable(below, edges) for below in edges[layer]))


def sources(folder: Path, *suffixes: str) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in suffixes)


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text("utf-8"), re.M)


def imported_modules(path: Path, package: str) -> Iterator[str]:
    """Absolute dotted names of everything a module imports, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: -(node.level - 1) or None] if node.level else []
            module = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def package_of(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).parent.parts)


def test_design_page_states_the_same_ladder() -> None:
    page = (ROOT / "docs" / "design.md").read_text("utf-8")
    lines = re.findall(r"^csrc/(\w+)\s.*?(?:\((?:uses )?([a-z, ]+)(?:;[^()]*)?\))?$", page, re.M)
    stated = {layer: tuple(filter(None, used.split(", "))) for layer, used in lines}
    assert stated == CSRC


def test_every_folder_has_its_place() -> None:
    folders = {path.name for path in (ROOT / "csrc").iterdir() if path.is_dir()}
    assert folders <= CSRC.keys()


@pytest.mark.parametrize("layer", CSRC)
def test_includes_go_down(layer: str) -> None:
    allowed = reachable(layer, CSRC)
    wrong = [
        f"{path.relative_to(ROOT)} includes {name}"
        for path in sources(ROOT / "csrc" / layer, ".h", ".cpp")
        for name in includes(path)
        if name.split("/")[0] not in allowed or not (ROOT / "csrc" / name).is_file()
    ]
    assert not wrong


def test_kernels_know_no_threads() -> None:
    threads = re.compile(r"<(thread|mutex|condition_variable|future)>|thread_pool")
    wrong = [
        path.relative_to(ROOT)
        for path in sources(ROOT / "csrc" / "cpu", ".h", ".cpp")
        if threads.search(path.read_text("utf-8"))
    ]
    assert not wrong


def test_intrinsics_stay_in_the_kernels() -> None:
    kernels = [ROOT / "csrc" / "cpu" / "simd", ROOT / "csrc" / "cpu" / "kernels_isa.cpp"]
    wrong = [
        path.relative_to(ROOT)
        for path in sources(ROOT / "csrc", ".h", ".cpp")
        if INTRINSICS.search(path.read_text("utf-8")) and not {path, *path.parents} & {*kernels}
    ]
    assert not wrong


def test_isa_flags_stay_in_add_tier() -> None:
    build_files = [ROOT / "CMakeLists.txt", ROOT / "CMakePresets.json", ROOT / "pyproject.toml"]
    build_files += (ROOT / "tests").rglob("CMakeLists.txt")
    build_files += sources(ROOT / "csrc", ".h", ".cpp")
    wrong = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in build_files
        for line in path.read_text("utf-8").splitlines()
        if ISA_FLAG.search(line) and not line.strip().startswith("add_tier(")
    ]
    assert not wrong


@pytest.mark.parametrize("part", PACKAGE)
def test_imports_go_down(part: str) -> None:
    allowed = reachable(part, PACKAGE)
    source = ROOT / "pyllamacpp" / part
    files = sources(source, ".py") if source.is_dir() else [source.with_suffix(".py")]
    wrong = []
    for path in filter(Path.is_file, files):
        for name in imported_modules(path, package_of(path, ROOT)):
            top, *rest = name.split(".")
            if top == "pyllamacpp_convert" and part not in ("cli", "lora"):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if top == "pyllamacpp":
                # `from pyllamacpp import Llama` is an import of the package itself.
                used = rest[0] if rest and rest[0] in PACKAGE else "__init__"
                if used not in allowed:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_every_module_has_its_place() -> None:
    package = ROOT / "pyllamacpp"
    modules = {path.relative_to(package).parts[0] for path in sources(package, ".py", ".pyi")}
    assert {name.split(".")[0] for name in modules} <= PACKAGE.keys()


def test_convert_reaches_the_kernels_only() -> None:
    root = ROOT / "convert"
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(root, ".py")
        if path.name != "__main__.py"  # the command line
        for name in imported_modules(path, package_of(path, root))
        if name.split(".")[0] == "pyllamacpp" and not name.startswith(CONVERT)
    ]
    assert not wrong
