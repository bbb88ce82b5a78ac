"""The one build runs on CPUs older, or merely other, than the one that built it."""

import os

import pytest

# CPU as qemu names it, and the tier that must be chosen there.
CPUS = [("Nehalem", "scalar"), ("Haswell", "avx2")]

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="compares x86 CPUs")


@pytest.mark.parametrize(("cpu", "tier"), CPUS)
def test_same_text_as_on_this_machine(cpu, tier, native_program, default_model, isa_tiers, run):
    if tier not in isa_tiers:
        pytest.skip(f"this machine has no {tier}")
    command = [native_program, "-m", default_model, "-p", "Once upon", "-n", "2", "-c", "64"]
    command += ["-t", "2", "--temp", "0"]
    expected = run(*command, PYLLAMACPP_ISA=tier)
    assert expected.strip()
    assert run("qemu-x86_64", "-cpu", cpu, *command) == expected
