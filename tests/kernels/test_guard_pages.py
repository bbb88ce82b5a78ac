"""No kernel reads or writes beyond its operands: they end at a page that cannot be touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pyllamacpp.kernels import tiers

WORKER = Path(__file__).with_name("guard_worker.py")


def run_worker(argument: str) -> tuple[int, list[str], str]:
    """The exit code, the calls it said it would make, and what it wrote to stderr."""
    done = subprocess.run(
        [sys.executable, str(WORKER), argument],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr[-2000:]


def test_the_guard_page_catches_one_byte() -> None:
    code, said, _ = run_worker("--touch")
    assert code != 0
    assert said == ["last byte 0"]


@pytest.mark.parametrize("tier", tiers())
def test_operands_at_guard_pages(tier: str) -> None:
    code, said, errors = run_worker(tier)
    last = said[-1] if said else "its start"
    assert code == 0, f"{tier} ended with code {code} in: {last}\n{errors}"
    assert last == "done"
