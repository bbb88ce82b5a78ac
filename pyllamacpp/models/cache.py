"""Where fetched models lie: one folder of NAME.gguf files."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import FileError, InvalidArgumentError, ModelFileError
from .catalogue import CATALOGUE

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def cache_dir() -> Path:
    """PYLLAMACPP_CACHE, or ~/.cache/pyllamacpp/models. It need not exist."""
    chosen = os.environ.get("PYLLAMACPP_CACHE")
    return Path(chosen).expanduser() if chosen else Path("~/.cache/pyllamacpp/models").expanduser()


def is_name(text: str) -> bool:
    """True for what can be the name of a model: letters, digits and ._- only."""
    return _NAME.fullmatch(text) is not None


def cached_path(name: str) -> Path:
    """Where the model of that name lies once fetched.

    Raises InvalidArgumentError for what is no name.
    """
    if not is_name(name):
        raise InvalidArgumentError(f"{name!r} is not the name of a model")
    return cache_dir() / f"{name}.gguf"


def is_cached(name: str) -> bool:
    """True when the model is there; one of the catalogue must have its full size."""
    path = cached_path(name)
    if not path.is_file():
        return False
    entry = CATALOGUE.get(name)
    return entry is None or path.stat().st_size == entry.n_bytes


def cached_models() -> list[str]:
    """Names of the models that are there, sorted."""
    folder = cache_dir()
    if not folder.is_dir():
        return []
    names = (path.stem for path in folder.glob("*.gguf"))
    return sorted(name for name in names if is_name(name) and is_cached(name))


def remove(name: str) -> Path:
    """Deletes a fetched model and returns where it lay.

    Raises ModelFileError when there is none, FileError when it cannot be deleted.
    """
    path = cached_path(name)
    try:
        path.unlink()
    except FileNotFoundError:
        raise ModelFileError(f"there is no model {name!r} in {cache_dir()}") from None
    except OSError as error:
        raise FileError(f"cannot remove {path}: {error.strerror}") from error
    return path
