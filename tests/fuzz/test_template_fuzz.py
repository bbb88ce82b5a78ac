"""A short run of the template fuzzer wherever atheris is not; .ci/full runs it for hours."""

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent))
import template_grammar as grammar


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar.sandbox, "MOST_STEPS", grammar.MOST_STEPS)
    monkeypatch.setattr(grammar.sandbox, "DATA_BASE", grammar.DATA_BASE)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=40, max_size=400))
def test_only_the_documented_errors_come_out(data: bytes) -> None:
    grammar.run(data)
