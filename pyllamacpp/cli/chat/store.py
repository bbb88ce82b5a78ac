"""Conversations on disk: one JSON file each, under a name, in the user's data folder."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import FileError, FormatError, InvalidArgumentError
from ...models.cache import is_name
from .conversation import Message

LAST = "last"  # the name of the conversation that is saved by itself
_FORMAT = "pyllamacpp-conversation"
_VERSION = 1
_SUFFIX = ".json"


@dataclass(frozen=True)
class Saved:
    """A conversation as it lies on disk. model: the name of the file it was held with."""

    system: str | None
    messages: Sequence[Message]
    model: str


def data_dir() -> Path:
    """PYLLAMACPP_DATA, or pyllamacpp in the folder that the system has for a user's data."""
    chosen = os.environ.get("PYLLAMACPP_DATA")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "pyllamacpp"


def names() -> list[str]:
    """Of all saved conversations, sorted."""
    return sorted(path.stem for path in _folder().glob(f"*{_SUFFIX}") if is_name(path.stem))


def exists(name: str) -> bool:
    """Whether a conversation of that name was saved. Raises InvalidArgumentError for no name."""
    return _path(name).exists()


def save(name: str, conversation: Saved) -> Path:
    """Writes it, in place of one of the same name, all or nothing. Raises FileError."""
    path = _path(name)
    text = json.dumps(
        {
            "format": _FORMAT,
            "version": _VERSION,
            "model": conversation.model,
            "system": conversation.system,
            "messages": list(conversation.messages),
        },
        indent=1,
    )
    try:
        # What is said is nobody else's business.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_whole(path, text)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error
    return path


def load(name: str) -> Saved:
    """Reads it.

    Raises FileError when there is none, FormatError when its file is something else or newer.
    """
    path = _path(name)
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        known = ", ".join(names()) or "none"
        raise FileError(f"there is no conversation {name!r}; saved are: {known}") from None
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise FormatError(f"{path} is not JSON") from None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise FormatError(f"{path} is not a saved conversation")
    if found.get("version") != _VERSION:
        raise FormatError(
            f"{path} is of version {found.get('version')!r:.20}, this program reads {_VERSION}"
        )
    system, messages = found.get("system"), found.get("messages", [])
    if not (system is None or isinstance(system, str)) or not _in_turns(messages):
        raise FormatError(f"{path} does not hold questions and answers in turn")
    said = [{"role": m["role"], "content": m["content"]} for m in messages]
    return Saved(system, said, str(found.get("model")))


def export(file: str, conversation: Saved) -> Path:
    """Writes it for others to read: Markdown (.md) or a list of messages (.json).

    Raises InvalidArgumentError for another ending, FileError when the file is there already.
    """
    path = Path(file).expanduser()
    system = conversation.system
    first = [] if system is None else [{"role": "system", "content": system}]
    messages = [*first, *conversation.messages]
    if path.suffix == ".md":
        text = "\n\n".join(f"## {m['role'].capitalize()}\n\n{m['content']}" for m in messages)
    elif path.suffix == ".json":
        text = json.dumps(messages, indent=1, ensure_ascii=False)
    else:
        raise InvalidArgumentError(f"{file} must end in .md or .json")
    try:
        with path.open("x", encoding="utf-8", errors="surrogateescape") as out:
            out.write(text + "\n")
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error
    return path


def _folder() -> Path:
    return data_dir() / "conversations"


def _path(name: str) -> Path:
    if not is_name(name):
        raise InvalidArgumentError(
            f"{name!r} is not a name: letters, digits and ._- make one, a letter or digit first"
        )
    return _folder() / f"{name}{_SUFFIX}"


def _in_turns(messages: object) -> bool:
    return (
        isinstance(messages, list)
        and len(messages) % 2 == 0
        and all(
            isinstance(message, dict)
            and message.get("role") == ("assistant" if i % 2 else "user")
            and isinstance(message.get("content"), str)
            for i, message in enumerate(messages)
        )
    )


def _write_whole(path: Path, text: str) -> None:
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
