"""JSON files of unknown origin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pyllamacpp.errors import FileError, FormatError

_MOST_BYTES = 64 << 20


def read_bytes(path: Path) -> bytes:
    """A whole file, if it can be a vocabulary's.

    Raises FileError when it cannot be read, FormatError when it is larger than any vocabulary.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > _MOST_BYTES:
        raise FormatError(f"{path} has more than {_MOST_BYTES} bytes: it is no vocabulary")
    return data


def parse_object(path: Path, data: bytes) -> dict[str, Any]:
    """The JSON object that a file holds. Raises FormatError when it holds no such thing."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not valid JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path} holds no JSON object")
    return value


def is_id(value: object) -> bool:
    """Whether a JSON value can be a token's id."""
    return type(value) is int and 0 <= value < 1 << 31
