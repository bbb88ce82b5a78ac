"""MODEL, wherever a user names one: a path, the name of a fetched model, or hf:OWNER/REPO/FILE."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..errors import ModelFileError
from .cache import cache_dir, cached_path, is_cached, is_name
from .catalogue import CATALOGUE, DEFAULT_MODEL


def resolve_model(model: str | os.PathLike[str] | None = None) -> Path:
    """The GGUF file that `model` means; None is the default model, fetched if it is not there.

    `hf:OWNER/REPO/FILE` is fetched from the Hugging Face hub if it is not there.

    Raises ModelFileError when there is none or it is a folder, and what `pull` and `hub` raise.
    """
    if model is None:
        # Only a first use needs the modules of a download.
        if not is_cached(DEFAULT_MODEL):
            from .pull import pull

            pull(DEFAULT_MODEL)
        return cached_path(DEFAULT_MODEL)
    text = os.fspath(model)
    if text.startswith("hf:"):
        from . import hub

        return hub.fetch(hub.parse(text), show_progress=sys.stderr.isatty())
    path = Path(text)
    if path.is_dir():
        raise ModelFileError(_folder_sentence(path))
    if path.exists():
        return path
    if is_name(text):
        if is_cached(text):
            return cached_path(text)
        if text in CATALOGUE:
            raise ModelFileError(f"{text} is not fetched yet: run pyllamacpp pull {text}")
        raise ModelFileError(f"there is no file {text} and no model of that name in {cache_dir()}")
    raise ModelFileError(f"there is no file {text}")


def _folder_sentence(folder: Path) -> str:
    kind = ""
    if any(folder.glob("consolidated.*.pth")):
        kind = "Meta checkpoint"
    elif (folder / "config.json").is_file():
        kind = "Hugging Face model"
    if not kind:
        return f"{folder} is a folder, not a GGUF file"
    return (
        f"{folder} is the folder of a {kind}, not a GGUF file; convert it first: "
        f"pyllamacpp convert {folder} -o OUT.gguf --type q4_k_m"
    )
