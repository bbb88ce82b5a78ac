"""Which kernels run: every tier has every entry of its own, and PYLLAMACPP_ISA forces a tier."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyllamacpp import _core
from pyllamacpp.errors import InvalidArgumentError
from pyllamacpp.kernels import Kernels, tiers


def run_with_isa(isa: str | None, code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python code outside the checkout, whose folder would hide the installed package."""
    environment = {k: v for k, v in os.environ.items() if k != "PYLLAMACPP_ISA"}
    if isa is not None:
        environment["PYLLAMACPP_ISA"] = isa
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


PRINT_ISA = """
from pyllamacpp import _core, kernels
print(_core.isa(), kernels.Kernels().tier)
"""


def test_tiers_end_with_scalar() -> None:
    assert tiers()[-1] == "scalar"
    assert len(set(tiers())) == len(tiers())
    assert tiers() == _core.isa_tiers()


def test_every_tier_has_every_entry_of_its_own() -> None:
    """An entry that equals the scalar pointer would be a kernel that is missing."""
    tables = {name: Kernels(name).entries() for name in tiers()}
    n_entries = len(tables["scalar"])
    assert n_entries >= 12
    for name, entries in tables.items():
        assert len(entries) == n_entries
        assert len(set(entries)) == n_entries
        assert all(entries)
        assert Kernels(name).types() == Kernels("scalar").types()
        for other, theirs in tables.items():
            assert other == name or not set(entries) & set(theirs)


@pytest.mark.parametrize("isa", tiers())
def test_the_variable_forces_a_tier(isa: str, tmp_path: Path) -> None:
    done = run_with_isa(isa, PRINT_ISA, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [isa, isa]


@pytest.mark.parametrize("isa", [None, ""])
def test_the_best_tier_runs_by_default(isa: str | None, tmp_path: Path) -> None:
    done = run_with_isa(isa, PRINT_ISA, tmp_path)
    assert done.stdout.split() == [tiers()[0], tiers()[0]], done.stderr


def test_an_unknown_tier_in_the_variable_is_an_error(tmp_path: Path) -> None:
    done = run_with_isa("sse9", PRINT_ISA, tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "InvalidArgumentError" in last
    assert "'sse9'" in last
    assert ", ".join(tiers()) in last


def test_an_unknown_tier_is_an_error() -> None:
    with pytest.raises(InvalidArgumentError, match=r"'neon9'.*it has .*scalar"):
        Kernels("neon9")
    with pytest.raises(InvalidArgumentError):
        Kernels("")
