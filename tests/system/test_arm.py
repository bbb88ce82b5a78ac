"""The build for ARM, cross-compiled and run on emulated CPUs."""

import re
from pathlib import Path

import pytest

from pyllamacpp.kernels import TYPE_IDS

PRODUCT = re.compile(r"\t([su]dot|(?:s|u|us)mmla)\t")
# CPU as qemu names it, and the tiers that must be found there, best first.
CPUS = [
    ("cortex-a53", ["neon", "scalar"]),
    ("neoverse-n1", ["neon_dotprod", "neon", "scalar"]),
    ("max", ["neon_i8mm", "neon_dotprod", "neon", "scalar"]),
]


@pytest.fixture(scope="module")
def arm(build, run):
    """Runs a program of the build for ARM on an emulated CPU."""
    folders = [build("aarch64", target) for target in ("pyllamacpp-chat", "native_test_kernels")]

    def run_on(cpu: str, program: str, *arguments: str | Path, **environment: str) -> str:
        emulator = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-cpu", cpu)
        return run(*emulator, folders[0] / program, *arguments, **environment)

    return run_on


@pytest.mark.parametrize(("cpu", "tiers"), CPUS)
def test_every_kernel_of_every_tier(cpu, tiers, arm):
    assert arm(cpu, "tests/native/native_test_kernels").split() == tiers


@pytest.mark.parametrize(("cpu", "tiers"), CPUS)
def test_text_of_the_default_model(cpu, tiers, arm, native_program, default_model, run):
    """The portable kernels say what they say on this machine, all of NEON's the same.

    NEON's products are fused, so that its text may leave the portable one's, but not at once.
    """
    options = ["-m", default_model, "-p", "Once upon", "-c", "64", "--temp", "0", "-n"]
    first, more = (run(native_program, *options, n, PYLLAMACPP_ISA="scalar") for n in "28")
    assert first.strip()
    assert arm(cpu, "pyllamacpp-chat", *options, "8", PYLLAMACPP_ISA="scalar") == more
    vectorized = tiers[:-1]
    texts = {arm(cpu, "pyllamacpp-chat", *options, "8", PYLLAMACPP_ISA=t) for t in vectorized}
    assert texts == {arm(cpu, "pyllamacpp-chat", *options, "8")}
    assert texts.pop().startswith(first.rstrip("\n"))


@pytest.mark.parametrize(
    ("cpu", "tier"), [("cortex-a53", "neon_dotprod"), ("neoverse-n1", "neon_i8mm")]
)
def test_a_tier_beyond_the_cpu_is_refused(cpu, tier, arm, default_model):
    options = ["-m", default_model, "-p", "Hi", "-n", "1"]
    with pytest.raises(pytest.fail.Exception, match=f"no kernels '{tier}' on this machine"):
        arm(cpu, "pyllamacpp-chat", *options, PYLLAMACPP_ISA=tier)


@pytest.fixture(scope="module")
def functions_with(build, run):
    """Instructions of the products of bytes, and the functions of the program that have them."""
    program = build("aarch64", "pyllamacpp-chat") / "pyllamacpp-chat"
    name, found = "", {}
    for line in run("aarch64-linux-gnu-objdump", "-d", "-C", program).splitlines():
        if line.endswith(">:"):
            name = line
        elif instruction := PRODUCT.search(line):
            found.setdefault(instruction[1], set()).add(name)
    return found


def test_instructions_of_a_tier_stay_in_its_kernels(functions_with):
    assert set(functions_with) == {"sdot", "smmla"}
    assert all(re.search("neon_dotprod|neon_i8mm", name) for name in functions_with["sdot"])
    assert all("neon_i8mm" in name for name in functions_with["smmla"])


def test_every_type_multiplies_byte_matrices(functions_with):
    types = {name.lower() for name in re.findall(r"Codec(\w+)", str(functions_with["smmla"]))}
    assert types == set(TYPE_IDS) - {"f32", "f16", "bf16"}
