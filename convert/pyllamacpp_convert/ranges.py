"""Ranges of files, read without maps and with errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from pyllamacpp.errors import FileError, FormatError


@contextmanager
def open_to_read(path: Path) -> Iterator[FileIO]:
    """The file, unbuffered. Raises FileError when it cannot be opened or read."""
    try:
        with path.open("rb", buffering=0) as file:
            yield file
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error


def read_exactly(file: FileIO, offset: int, into: memoryview, path: Path) -> None:
    """Fills `into` from `offset` on. Raises FormatError when the file ends before."""
    file.seek(offset)
    done = 0
    while done < len(into):
        n = file.readinto(into[done:])
        if not n:
            raise FormatError(f"{path} ends in the middle of a tensor: fetch it again")
        done += n
