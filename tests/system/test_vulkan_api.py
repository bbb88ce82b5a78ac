"""csrc/backend/vulkan/vulkan_api.h, declared by hand, says what the Khronos header says."""

import os
import re
from pathlib import Path

import pytest

HEADER = Path(__file__).resolve().parents[2] / "csrc" / "backend" / "vulkan" / "vulkan_api.h"
# What Debian 12's header does not have yet.
NEWER = re.compile("cooperative_matrix|CooperativeMatrix|COMPONENT_TYPE|SCOPE_SUBGROUP", re.I)


def check(run, tmp_path, *flags):
    text = re.sub(r"//.*", "", HEADER.read_text("utf-8"))
    names = re.findall(r"inline constexpr \w+\s+(VK_\w+)\s*=", text)
    checks = [f"int64_t(ours::{name}) == int64_t({name})" for name in names]
    structs = re.findall(r"^struct (Vk\w+) \{(.*?)^\};", text, re.M | re.S)
    for struct, body in structs:
        checks.append(f"sizeof(ours::{struct}) == sizeof({struct})")
        members = re.findall(r"\(\*(\w+)\)|(\w+)(?:\[\d+\])?;", body)
        for member in (a or b for a, b in members):
            if not member.startswith("unused"):
                offsets = (f"offsetof({space}{struct}, {member})" for space in ("ours::", ""))
                checks.append(" == ".join(offsets))
    functions = re.findall(r"F\((\w+),\s*(\w+),\s*\((.*?)\)\)", text.replace("\\\n", ""), re.S)
    for result, name, parameters in functions:
        # As many parameters, and the same result: their types differ in name only.
        count = parameters.count(",") + 1
        checks.append(f"arity((PFN_vk{name})nullptr) == {count}")
        checks.append(f"returns<{result.replace('PFN', '::PFN')}>((PFN_vk{name})nullptr)")
    assert len(structs) > 40
    assert len(functions) > 40
    # Ours first: the Khronos header defines some of the names as macros.
    source = tmp_path / "check.cpp"
    source.write_text(
        f'#include "{HEADER}"\n#include <vulkan/vulkan.h>\n#include <type_traits>\n'
        "namespace ours = pyllamacpp::vk;\n"
        "template <class R, class... P> constexpr int arity(R (*)(P...)) { return sizeof...(P); }\n"
        "template <class Wanted, class R, class... P> constexpr bool returns(R (*)(P...)) {\n"
        "  return std::is_same_v<Wanted, R> ||\n"
        "         (std::is_same_v<Wanted, int32_t> && std::is_enum_v<R>);\n}\n"
        + asserts(check for check in checks if not NEWER.search(check))
        + "#ifdef VK_KHR_cooperative_matrix\n"
        + asserts(check for check in checks if NEWER.search(check))
        + "#endif\n"
    )
    run("g++", "-std=c++20", "-fsyntax-only", "-Wno-invalid-offsetof", *flags, source)


def asserts(checks):
    return "".join(f'static_assert({check}, "{check}");\n' for check in checks)


def test_against_the_khronos_header(run, tmp_path):
    check(run, tmp_path)


@pytest.mark.sid
def test_against_a_newer_khronos_header(run, tmp_path):
    for name in ("vulkan", "vk_video"):
        (tmp_path / name).symlink_to(Path(os.environ["DEBIAN_SID"], "usr", "include", name))
    assert "VK_KHR_cooperative_matrix" in (tmp_path / "vulkan" / "vulkan_core.h").read_text("utf-8")
    check(run, tmp_path, f"-I{tmp_path}")
