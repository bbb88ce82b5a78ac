"""The record that ../data/make_golden.py left, and the text it is about."""

import json
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    record: dict[str, Any] = json.loads((DATA / "golden.json").read_text(encoding="utf-8"))
    return record


@pytest.fixture(scope="session")
def english() -> bytes:
    return (DATA / "english.txt").read_bytes()
