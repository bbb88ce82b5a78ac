"""docs/coverage.md says what the tests are: as many for each cell as there are, all passed."""

import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
from coverage_tables import OUTSIDE, VARIANT_TESTS, count, parse_page

from pyllamacpp import _core

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_counts_the_tests() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/model"]
    command += ["tests/kernels"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tests = []
    for line in listed.splitlines():
        file, separator, test = line.partition("::")
        if separator:
            tests.append((Path(file).stem, test))
    there = count(tests)
    # A CPU that lacks a tier collects nothing for it.
    shown = {*_core.isa_tiers(), OUTSIDE, *VARIANT_TESTS.values()}
    page = parse_page((ROOT / "docs" / "coverage.md").read_text(encoding="utf-8"))
    assert {cell: n for cell, n in page.items() if cell[2] in shown and n} == dict(there)
