"""The HTTP server: OpenAI's endpoints over one loaded model or several.

Needs the extra `server`; `require_packages` says so where it is missing.
"""

from __future__ import annotations

import importlib.util

from ..errors import UnsupportedError

_PACKAGES = ("starlette", "uvicorn", "pydantic", "prometheus_client")


def require_packages() -> None:
    """Raises UnsupportedError with the command that installs what is missing."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UnsupportedError(
            f"the server needs {', '.join(missing)}: run pip install '.[server]' in the checkout, "
            f"or pip install {' '.join(missing).replace('_', '-')}"
        )
