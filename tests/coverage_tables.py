"""Writes docs/coverage.md from a test run:

    pytest tests/model tests/kernels --junitxml=report.xml
    python tests/coverage_tables.py report.xml > docs/coverage.md

A cell is the number of tests that passed for a row and a column; "3 of 4" where one did not.
tests/test_coverage_page.py compares the page with the tests there are.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "kernels"))
from kernel_oracle import BLOCK_TYPES, TYPES

TIERS = ("avx512vnni", "avx2", "scalar")
KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")
OUTSIDE = "gguf package"  # dequantizers and files of the `gguf` package as the oracle
VARIANT_TESTS = {
    "test_float_weights_and_cache": "float64 oracle, f32 cache, relative rms < 1e-5",
    "test_default_cache": "float64 oracle, f16 cache, relative rms < 2e-3",
    "test_token_by_token": "token by token bitwise as the whole prompt",
}
_ID = re.compile(r"(?P<name>test_\w+)(?:\[(?P<params>.*)\])?")

# (table, row, column) of every cell, with how many tests it has.
Cells = Counter[tuple[str, str, str]]


def cells_of(file: str, test: str) -> list[tuple[str, str, str]]:
    """The cells that a test counts in; `test` is its name with parameters in brackets."""
    match = _ID.fullmatch(test)
    if match is None or match["params"] is None:
        return []
    name, params = match["name"], match["params"]
    if name in VARIANT_TESTS:
        return [("variants", params, VARIANT_TESTS[name])]
    words = params.split("-")
    tier = next((tier for tier in TIERS if tier in words), None)
    if "test_attention" in file:
        types = {word for word in words if word in KV_TYPES}
        return [("cache", dtype, tier) for dtype in sorted(types) if tier]
    if not file.endswith(("test_matmul", "test_dequantize")):
        return []
    dtype = next((word for word in words if word in TYPES), None)
    if dtype is None:
        return []
    if "gguf_package" in name:
        # What runs on every tier counts once, so that the page is the same on every machine.
        return [("types", dtype, OUTSIDE)] if tier in (None, "scalar") else []
    layout = ", packed" if "packed" in words else ""
    return [("types", dtype + layout, tier)] if tier else []


def count(tests: Iterable[tuple[str, str]]) -> Cells:
    """How many of the tests (file, test) belong to each cell."""
    return Counter(cell for file, test in tests for cell in cells_of(file, test))


def from_report(path: str) -> tuple[Cells, Cells]:
    """All tests of a JUnit report, and those that passed."""
    every, passed = [], []
    for case in ET.parse(path).iter("testcase"):
        test = (case.attrib["classname"].rsplit(".", 1)[-1], case.attrib["name"])
        every.append(test)
        if len(case) == 0:
            passed.append(test)
    return count(every), count(passed)


def table(
    title: str, head: str, columns: Iterable[str], rows: Iterable[str], every: Cells, passed: Cells
) -> list[str]:
    columns = list(columns)
    lines = [f"## {title[0].upper()}{title[1:]}", ""]
    lines += [f"| {head} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = []
        for column in columns:
            key = (title, row, column)
            full = every[key] == passed[key]
            cells.append(f"{passed[key]}" if full else f"{passed[key]} of {every[key]}")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return [*lines, ""]


def page(every: Cells, passed: Cells) -> str:
    variants = dict.fromkeys(row for kind, row, _ in every if kind == "variants")
    types = [name for dtype in TYPES for name in (dtype, f"{dtype}, packed")]
    types = [name for name in types if name in TYPES or name.split(",")[0] in BLOCK_TYPES]
    lines = [
        "# What is tested",
        "",
        "Written by `tests/coverage_tables.py` from a test run: how many passed in each cell.",
        "",
        *table("variants", "model variant", VARIANT_TESTS.values(), variants, every, passed),
        *table("types", "weight type and layout", (*TIERS, OUTSIDE), types, every, passed),
        *table("cache", "KV cache type", TIERS, KV_TYPES, every, passed),
    ]
    return "\n".join(lines).rstrip() + "\n"


def parse_page(text: str) -> Cells:
    """The cells of a page; those that are not whole numbers raise ValueError."""
    cells: Cells = Counter()
    title, columns = "", []
    for line in text.splitlines():
        if line.startswith("## "):
            title, columns = line[3:].lower(), []
        elif line.startswith("| "):
            first, *rest = line.strip("| ").split(" | ")
            if not columns:
                columns = rest
            else:
                for column, cell in zip(columns, rest, strict=True):
                    cells[title, first, column] = int(cell)
    return cells


if __name__ == "__main__":
    sys.stdout.write(page(*from_report(sys.argv[1])))
