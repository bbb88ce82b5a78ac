"""Models of the Hugging Face hub: `hf:OWNER/REPO/FILE`, or `hf:OWNER/REPO@REVISION/FILE`.

Fetched with huggingface-hub into that library's own cache, which other tools share; its settings
apply (HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE). Of a split model FILE is the first part.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..errors import (
    FileError,
    FormatError,
    InvalidArgumentError,
    ModelFileError,
    UnsupportedError,
)

PREFIX = "hf:"

_SOURCE = re.compile(
    r"hf:(?P<owner>[\w.-]+)/(?P<repo>[\w.-]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<file>.+))?"
)
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_NAMED = 20


@dataclass(frozen=True)
class HubFile:
    """A file of a repository. revision: a branch, tag or commit; None: the default branch."""

    repo: str
    file: str
    revision: str | None = None

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{PREFIX}{self.repo}{at}/{self.file}"

    def parts(self) -> list[HubFile]:
        """All files of a split model whose first part this is; else this one alone.

        Raises InvalidArgumentError for a later part.
        """
        match = _PART.fullmatch(self.file)
        if match is None:
            return [self]
        stem, number, count = match[1], int(match[2]), int(match[3])
        if number != 1:
            raise InvalidArgumentError(
                f"{self} is part {number} of {count}; give {stem}-00001-of-{match[3]}.gguf"
            )
        names = (f"{stem}-{i:05}-of-{match[3]}.gguf" for i in range(1, count + 1))
        return [HubFile(self.repo, name, self.revision) for name in names]


def parse(source: str) -> HubFile:
    """`hf:OWNER/REPO[@REVISION]/FILE`.

    Raises InvalidArgumentError for another shape; without FILE it names the GGUF files there.
    """
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise InvalidArgumentError(f"{source!r} is not of the form hf:OWNER/REPO/FILE")
    repo = f"{match['owner']}/{match['repo']}"
    if match["file"] is None:
        there = _files_there(repo, match["revision"])
        raise InvalidArgumentError(f"{source} names no file; {there}")
    return HubFile(repo, match["file"], match["revision"])


def fetch(source: HubFile, *, show_progress: bool = False, **where: Any) -> Path:
    """Fetches the file (all parts of a split model) unless it is there; the first part's path.

    where: `local_dir`, a folder to put it into, or `cache_dir`, another cache than the hub's.

    Raises UnsupportedError without huggingface-hub, ModelFileError when the hub has no such file or
    refuses it, FileError when the network or the disk fails, FormatError for damaged bytes.
    """
    first, *_ = [_fetch_one(part, show_progress, where) for part in source.parts()]
    return first


def fetch_matching(
    repo: str, pattern: str | None, *, show_progress: bool = False, **where: Any
) -> Path:
    """`fetch` for the one file of a repository that a pattern as a shell's names.

    Raises InvalidArgumentError when none or several match (the parts of one split model count as
    one file), and as `fetch`.
    """
    if pattern is not None and not any(char in pattern for char in "*?["):
        return fetch(HubFile(repo, pattern), show_progress=show_progress, **where)
    found = [] if pattern is None else _matching(repo, pattern)
    if not found:
        asked = "names no file" if pattern is None else f"has no file that matches {pattern!r}"
        raise InvalidArgumentError(f"{PREFIX}{repo} {asked}; {_files_there(repo, None)}")
    if set(found) != {part.file for part in HubFile(repo, found[0]).parts()}:
        names = ", ".join(found[:_MOST_NAMED])
        raise InvalidArgumentError(f"{PREFIX}{repo}: several files match {pattern!r}: {names}")
    return fetch(HubFile(repo, found[0]), show_progress=show_progress, **where)


def _matching(repo: str, pattern: str) -> list[str]:
    with _translated(HubFile(repo, pattern)):
        names = _library().list_repo_files(repo)
    return sorted(name for name in names if fnmatchcase(name, pattern))


def cached() -> list[tuple[HubFile, Path]]:
    """The GGUF files in the hub's cache; nothing without huggingface-hub."""
    try:
        hub, errors = _library(), _errors()
    except UnsupportedError:
        return []
    try:
        repos = hub.scan_cache_dir().repos
    except errors.CacheNotFound:
        return []
    found: dict[tuple[str, str], tuple[HubFile, Path]] = {}
    for repo in repos:
        if repo.repo_type != "model":
            continue
        for revision in repo.revisions:
            for file in revision.files:
                name = file.file_path.relative_to(revision.snapshot_path).as_posix()
                if name.endswith(".gguf"):
                    found[repo.repo_id, name] = (HubFile(repo.repo_id, name), file.file_path)
    return [found[key] for key in sorted(found)]


def remove(source: HubFile) -> list[Path]:
    """Deletes the file (all parts) from the hub's cache, in every revision; what it deleted.

    Raises ModelFileError when none is there, FileError when one cannot be deleted.
    """
    names = {part.file for part in source.parts()}
    paths = [path for file, path in cached() if file.repo == source.repo and file.file in names]
    if not paths:
        raise ModelFileError(f"{source} is not in the hub's cache")
    for path in paths:
        blob = path.resolve()
        try:
            path.unlink()
            blob.unlink(missing_ok=True)
        except OSError as error:
            raise FileError(f"cannot remove {path}: {error.strerror}") from error
    return paths


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UnsupportedError(
            "models of the Hugging Face hub need one more package: pip install huggingface-hub"
        ) from error
    return huggingface_hub


def _errors() -> Any:
    _library()
    from huggingface_hub import errors

    return errors


def _fetch_one(source: HubFile, show_progress: bool, place: dict[str, Any]) -> Path:
    hub = _library()
    where = {"repo_id": source.repo, "filename": source.file, "revision": source.revision}
    if not place.get("local_dir"):
        there = hub.try_to_load_from_cache(**where, cache_dir=place.get("cache_dir"))
        if isinstance(there, str) and Path(there).exists():
            return Path(there)
    from huggingface_hub import utils

    (utils.enable_progress_bars if show_progress else utils.disable_progress_bars)()
    with _translated(source):
        path = Path(hub.hf_hub_download(**where, **place))
    _check(source, path)
    return path


@contextmanager
def _translated(source: HubFile) -> Iterator[None]:
    """Raises what the hub's library raises as this package's exceptions."""
    errors = _errors()
    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise FileError(
            f"{source} is not in the cache, and the hub cannot be reached: {_reason(error)}"
        ) from error
    except errors.EntryNotFoundError as error:
        there = _files_there(source.repo, source.revision)
        raise ModelFileError(f"{source}: the repository has no such file; {there}") from error
    except errors.RevisionNotFoundError as error:
        raise ModelFileError(f"{source}: the repository has no such revision") from error
    except errors.GatedRepoError as error:
        raise ModelFileError(
            f"{source}: access must be granted on the hub's page of the repository, "
            "then HF_TOKEN set"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelFileError(
            f"{source}: there is no such repository, or it is private and needs HF_TOKEN"
        ) from error
    except errors.HFValidationError as error:
        raise InvalidArgumentError(f"{source}: {_reason(error)}") from error
    except (errors.HfHubHTTPError, OSError) as error:
        raise FileError(f"cannot fetch {source}: {_reason(error)}") from error
    except Exception as error:
        # Newer versions of the library let their HTTP package's errors through.
        if not type(error).__module__.startswith("httpx"):
            raise
        raise FileError(f"the hub cannot be reached for {source}: {_reason(error)}") from error


def _check(source: HubFile, path: Path) -> None:
    """A large file's blob is named by its sha256, which the library does not compare."""
    blob = path.resolve()
    if not _SHA256.fullmatch(blob.name):
        return
    sha256 = hashlib.sha256()
    with blob.open("rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
    digest = sha256.hexdigest()
    if digest != blob.name:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise FormatError(f"{source} came with sha256 {digest}, expected {blob.name}")


def _files_there(repo: str, revision: str | None) -> str:
    """The GGUF files of a repository in words, as the end of a sentence."""
    try:
        names = _library().list_repo_files(repo, revision=revision)
    except (_errors().HfHubHTTPError, OSError, ValueError):
        return "its files cannot be listed"
    found = sorted(name for name in names if name.endswith(".gguf"))
    if not found:
        return "it has no GGUF files"
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return f"its GGUF files are {', '.join(found[:_MOST_NAMED])}{more}"


def _reason(error: Exception) -> str:
    """The first line of what an exception says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
