"""Lets programs written for llama-cpp-python run unchanged on this package.

    import pyllamacpp.as_llama_cpp      # from here on `import llama_cpp` gives this package

    python -m pyllamacpp.as_llama_cpp SCRIPT.py [ARGUMENTS...]
    python -m pyllamacpp.as_llama_cpp -m MODULE [ARGUMENTS...]

Nothing named llama_cpp is installed, so this package and llama-cpp-python can be side by side; in
a process with the alias the name means this package.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pyllamacpp

NAME = "llama_cpp"
# Modules that users import.
MODULES = (
    "llama",
    "llama_cache",
    "llama_chat_format",
    "llama_grammar",
    "llama_speculative",
    "llama_tokenizer",
    "llama_types",
)
_OWN = "__pyllamacpp__"


class _Alias(ModuleType):
    """This package under the other name, with the names of `llama_types` beside it."""

    def __getattr__(self, name: str) -> object:
        for module in (pyllamacpp, import_module("pyllamacpp.llama_types")):
            if hasattr(module, name) and not name.startswith("_"):
                return getattr(module, name)
        if name == "__version__":
            return pyllamacpp.__version__
        if name in MODULES:
            return import_module(f"{NAME}.{name}")
        what = "pyllamacpp does not have it"
        if name.startswith(("llama_", "ggml_", "LLAMA_", "GGML_")):
            what = "pyllamacpp has none of llama.cpp's C interface, only what Llama is"
        raise AttributeError(f"module {NAME!r} has no attribute {name!r}: {what}")

    def __dir__(self) -> list[str]:
        return sorted({*dir(pyllamacpp), *import_module("pyllamacpp.llama_types").__dict__})


class _Loader(Loader):
    """Gives out a module of this package; importlib must not change what that says of itself."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        if spec.name == NAME:
            module: ModuleType = _Alias(NAME, pyllamacpp.__doc__)
            module.__dict__[_OWN] = True
            return module
        module = import_module(spec.name.replace(NAME, "pyllamacpp", 1))
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        if _OWN not in module.__dict__:
            module.__spec__ = self._spec


class _Finder(MetaPathFinder):
    """Finds `llama_cpp` and its modules."""

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname == NAME:
            return ModuleSpec(fullname, _Loader(), is_package=True)
        parent, _, name = fullname.rpartition(".")
        if parent == NAME and name in MODULES:
            return ModuleSpec(fullname, _Loader())
        return None


def install() -> None:
    """Makes `import llama_cpp` give this package from now on; a second call does nothing.

    Raises ImportError when llama-cpp-python itself was imported before.
    """
    other = sys.modules.get(NAME)
    if other is not None and not hasattr(other, _OWN):
        raise ImportError(
            f"{NAME} is imported already, from {getattr(other, '__file__', None)}: "
            "import pyllamacpp.as_llama_cpp must come first"
        )
    if not any(type(finder).__qualname__ == _Finder.__qualname__ for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def main(arguments: list[str]) -> None:
    """Runs a script or a module as `python` would."""
    import runpy

    if len(arguments) < 1 or arguments == ["-m"]:
        raise SystemExit("usage: python -m pyllamacpp.as_llama_cpp (SCRIPT.py | -m MODULE) [...]")
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    script = Path(arguments[0])
    if not script.is_file():
        raise SystemExit(f"there is no file {script}")
    sys.argv = arguments
    sys.path.insert(0, str(script.resolve().parent))
    runpy.run_path(str(script), run_name="__main__")


install()
if __name__ == "__main__":
    main(sys.argv[1:])
