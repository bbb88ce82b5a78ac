"""The committed tables are what their script writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "csrc" / "text" / "make_unicode_tables.py"
UNICODE_VERSION = "16.0.0"


def test_tables_are_current() -> None:
    unicodedata2 = pytest.importorskip("unicodedata2")
    if unicodedata2.unidata_version != UNICODE_VERSION:
        pytest.skip(f"needs unicodedata2 {UNICODE_VERSION}")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
