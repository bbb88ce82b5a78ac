"""The wheel as users get it: complete, lean, for every CPU, without foreign libraries."""

import json
import os
import re
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "wheel"

C_AND_CXX = re.compile(r"(libstdc\+\+|libm|libgcc_s|libc|libpthread|ld-linux-[\w-]+)\.so\.\d+")
# What a tier may export: functions, data, vtables, guards and local statics of its namespace.
TIER_NAME = r"_Z(?:T[VIST]|G[VR]|Z)*N[KVrRO]*10pyllamacpp3cpu{length}{tier}\w*"


@pytest.fixture(scope="module")
def wheel(run, tmp_path_factory) -> zipfile.Path:
    """Built once, every warning an error, and unpacked."""
    out = tmp_path_factory.mktemp("wheel")
    presets = json.loads((ROOT / "CMakePresets.json").read_text("utf-8"))["configurePresets"]
    release = next(preset for preset in presets if preset["name"] == "release")
    flags = release["cacheVariables"]["CMAKE_CXX_FLAGS"]
    arguments = ("--no-deps", f"--config-settings=build-dir={BUILD}", "--wheel-dir", out)
    run(sys.executable, "-m", "pip", "wheel", ".", *arguments, CXXFLAGS=flags)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_tag_names_this_python_and_platform(wheel):
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert wheel.name.endswith(f"-{python}-{python}-{platform}.whl")


def test_content(unpacked):
    files = [path for path in unpacked.rglob("*") if path.is_file()]
    names = {path.relative_to(unpacked).as_posix() for path in files}
    (scripts,) = unpacked.glob("*.data/scripts")
    extension = sysconfig.get_config_var("EXT_SUFFIX")
    assert {
        f"pyllamacpp/_core{extension}",
        "pyllamacpp/pyllamacpp_kernels.h",
        "pyllamacpp/py.typed",
        "pyllamacpp/server/static/index.html",
        "pyllamacpp/server/static/app.js",
        "pyllamacpp_convert/__init__.py",
        (scripts / "pyllamacpp-chat").relative_to(unpacked).as_posix(),
    } <= names
    assert len([name for name in names if name.endswith(".so")]) == 1
    tops = {name.split("/")[0] for name in names}
    ours = {"pyllamacpp", "pyllamacpp_convert"}
    assert {top for top in tops if not top.endswith((".data", ".dist-info"))} == ours
    assert not [name for name in names if re.search(r"test|\.(a|o|cpp|pyc)$", name)]


def test_needs_only_c_and_cxx_libraries(unpacked, run):
    binaries = [*unpacked.glob("*.data/scripts/pyllamacpp-chat"), *unpacked.rglob("*.so")]
    assert len(binaries) == 2
    for binary in binaries:
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", "-W", binary, LC_ALL="C"))
        assert needed
        assert [name for name in needed if not C_AND_CXX.fullmatch(name)] == []


def tier_objects(tier: str) -> list[Path]:
    return sorted((BUILD / "CMakeFiles" / f"kernels_{tier}.dir").rglob("*.o"))


X86_TIERS = ["avx2", "avxvnni", "avx512vnni"] if os.uname().machine == "x86_64" else []


@pytest.mark.parametrize("tier", X86_TIERS)
@pytest.mark.usefixtures("wheel")
def test_tier_defines_names_of_its_own_namespace_only(tier, run):
    # Of a shared inline function the linker keeps one copy: this one would then run everywhere.
    objects = tier_objects(tier)
    assert objects
    own = re.compile(TIER_NAME.format(length=len(tier), tier=tier))
    lines = run("nm", "--defined-only", "--extern-only", "--format=posix", *objects).splitlines()
    names = [line.split()[0] for line in lines if len(line.split()) > 1]
    assert names
    assert [name for name in names if not own.fullmatch(name)] == []


@pytest.mark.skipif(not X86_TIERS, reason="looks for x86 registers")
@pytest.mark.usefixtures("wheel")
def test_no_other_object_uses_vector_extensions(run):
    tiers = {path for tier in X86_TIERS for path in tier_objects(tier)}
    others = sorted({*(BUILD / "CMakeFiles").rglob("*.o")} - tiers)
    assert others
    vector = re.compile(r"%[yz]mm\d|\tv[a-z]\w+ .*%xmm")
    wrong = [path for path in others if vector.search(run("objdump", "-d", path))]
    assert wrong == []
