"""The llguidance package, or an error that says how to get it."""

from __future__ import annotations

from typing import Any

from ..errors import UnsupportedError


def llguidance() -> Any:
    """The package. Raises UnsupportedError with the command that installs it."""
    try:
        import llguidance as package
    except ImportError as error:
        raise UnsupportedError(
            "grammars and JSON schemas need the package llguidance: pip install '.[grammar]'"
        ) from error
    return package
