"""Files that are shortened or written to while they are in use: an error, never a crash.

In processes of their own: a crash must not take the other tests along.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "oracle"))
from tiny_model import TinyModel

# Wide enough that the tensors reach over many pages.
MODEL = TinyModel(n_embd=256, n_ff=1024, n_layers=4)

SCRIPT = """
import os, sys
from pyllamacpp import FileError, _core

path, what, repack = sys.argv[1:]

def load(path):
    return _core.Context(_core.Model(path, repack=repack), n_ctx=64)

def logits(context):
    context.trim(0, 0)
    context.decode([(0, [1, 70, 80, 90], "last")])
    return context.logits().tobytes()

context = load(path)
with open(path, "rb") as file:
    data = file.read()
other_path = path + ".other"
with open(other_path, "wb") as file:
    file.write(data)
other = load(other_path)
first = logits(context)
if what == "shortened":
    os.truncate(path, 3 * len(data) // 4)
elif what == "emptied":
    os.truncate(path, 0)
elif what == "rewritten":
    with open(path, "r+b") as file:
        file.seek(len(data) - 100)
        file.write(bytes(100))
elif what == "replaced":
    os.replace(other_path, path)
elif what == "removed":
    os.remove(path)
for _ in range(2):
    try:
        print("same" if logits(context) == first else "different")
    except FileError as error:
        assert context.tokens(0) == []
        print(str(error).replace(path, "PATH"))
assert logits(other) == first
"""
SENTENCE = "'PATH' was shortened or written to while it was in use; load it again\n"


def run(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout


@pytest.mark.parametrize("repack", ["never", "auto"])
@pytest.mark.parametrize("what", ["shortened", "emptied", "rewritten"])
def test_a_model_in_use(what: str, repack: str, tmp_path: Path) -> None:
    path = MODEL.write(tmp_path / "model.gguf")
    assert run(SCRIPT, path, what, repack) == SENTENCE + SENTENCE


@pytest.mark.parametrize("what", ["replaced", "removed"])
def test_the_old_file_stays_while_it_is_in_use(what: str, tmp_path: Path) -> None:
    path = MODEL.write(tmp_path / "model.gguf")
    assert run(SCRIPT, path, what, "never") == "same\nsame\n"


WHILE_LOADING = """
import os, random, sys, threading, time
from pyllamacpp import PyllamacppError, _core

path = sys.argv[1]
with open(path, "rb") as file:
    data = file.read()
random.seed(1)
outcomes = set()
for i in range(60):
    copy = f"{path}.{i}"
    with open(copy, "wb") as file:
        file.write(data)

    def shorten():
        time.sleep(random.random() * 0.006)
        os.truncate(copy, random.randrange(len(data)))

    thread = threading.Thread(target=shorten)
    thread.start()
    try:
        model = _core.Model(copy, repack=random.choice(["never", "auto"]))
        _core.Context(model, n_ctx=64).decode([(0, [1, 70], "last")])
        outcomes.add("ran")
    except PyllamacppError as error:
        assert copy in str(error), error
        outcomes.add("refused")
    thread.join()
    os.remove(copy)
print(*sorted(outcomes))
"""


def test_a_file_shortened_while_it_is_loaded(tmp_path: Path) -> None:
    path = MODEL.write(tmp_path / "model.gguf")
    assert "refused" in run(WHILE_LOADING, path)


def test_other_bus_errors_still_end_the_process(tmp_path: Path) -> None:
    script = """
import mmap, os, sys
from pyllamacpp import _core
model = _core.GgufFile(sys.argv[1])
with open(sys.argv[2], "w+b") as file:
    file.truncate(1 << 16)
    other = mmap.mmap(file.fileno(), 0)
    file.truncate(0)
    other[5000]
"""
    path = MODEL.write(tmp_path / "model.gguf")
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(tmp_path / "x")], check=False, cwd="/"
    )
    assert done.returncode == -7  # SIGBUS
