"""docs/features.md names tests that exist, and some for every feature that there is."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")


def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_tests_exist() -> None:
    named = TEST.findall(PAGE)
    assert len(named) == PAGE.count("`tests/") - 1  # the head names this file
    there = {file: functions(file) for file, _ in named}
    assert [f"{file}::{name}" for file, name in named if name not in there[file]] == []


def test_every_yes_has_one() -> None:
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    assert len(rows) > 30
    assert [row[0] for row in rows if row[1].startswith("yes") and not TEST.search(row[2])] == []
