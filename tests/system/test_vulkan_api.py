"""csrc/backend/vulkan/vulkan_api.h, declared by hand, says what the Khronos header says."""

import re
from pathlib import Path

HEADER = Path(__file__).resolve().parents[2] / "csrc" / "backend" / "vulkan" / "vulkan_api.h"


def test_against_the_khronos_header(run, tmp_path):
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
        + "".join(f'static_assert({check}, "{check}");\n' for check in checks)
    )
    run("g++", "-std=c++20", "-fsyntax-only", "-Wno-invalid-offsetof", source)
