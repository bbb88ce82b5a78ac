"""hf:OWNER/REPO/FILE against a hub on this machine, through the installed command."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "oracle"))

from fake_hub import COMMIT, FakeHub
from tiny_model import TinyModel

from pyllamacpp.errors import InvalidArgumentError
from pyllamacpp.models.hub import HubFile, parse

Command = Callable[..., "subprocess.CompletedProcess[str]"]
FILE = "folder/tiny-f32.gguf"
SOURCE = f"hf:someone/models/{FILE}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return TinyModel(n_layers=1).write(tmp_path_factory.mktemp("tiny") / "m.gguf").read_bytes()


@pytest.fixture
def hub(tiny: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    server = FakeHub()
    server.repos["someone/models"] = {FILE: tiny, "README.md": b"# Models"}
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("PYLLAMACPP_CACHE", str(tmp_path / "own"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    yield server
    server.stop()


def refusal(result: "subprocess.CompletedProcess[str]") -> str:
    """The one sentence of a failed command."""
    assert result.returncode == 1, result
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_parsing() -> None:
    assert parse("hf:a/b/c.gguf") == HubFile("a/b", "c.gguf")
    assert parse("hf:a/b@v1.0/d/c.gguf") == HubFile("a/b", "d/c.gguf", "v1.0")
    assert str(parse("hf:a/b@v1.0/d/c.gguf")) == "hf:a/b@v1.0/d/c.gguf"
    for wrong in ["hf:", "hf:a", "hf:/b/c", "hf:a//c", "hf:a b/c/d", "hf:a/b@/c"]:
        with pytest.raises(InvalidArgumentError, match="hf:OWNER/REPO/FILE"):
            parse(wrong)
    parts = parse("hf:a/b/m-00001-of-00003.gguf").parts()
    assert [part.file for part in parts] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    with pytest.raises(InvalidArgumentError, match=r"part 2 of 3; give m-00001-of-00003\.gguf"):
        parse("hf:a/b/m-00002-of-00003.gguf").parts()


def test_fetch_use_list_and_remove(hub: FakeHub, run: Command, monkeypatch) -> None:
    generated = run("generate", "-m", SOURCE, "-p", "abc", "-n", "4", "--temp", "0", "-c", "64")
    assert generated.returncode == 0, generated.stderr
    n_requests = len(hub.requests)
    assert n_requests > 0
    pulled = run("pull", SOURCE)
    assert pulled.returncode == 0
    path = Path(pulled.stdout.strip())
    assert path.read_bytes() == hub.repos["someone/models"][FILE]
    assert len(hub.requests) == n_requests  # it was there
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = run("generate", "-m", SOURCE, "-p", "abc", "-n", "4", "--temp", "0", "-c", "64")
    assert again.stdout == generated.stdout
    assert SOURCE in run("models").stdout
    assert run("rm", SOURCE).returncode == 0
    assert SOURCE not in run("models").stdout
    assert "not in the hub's cache" in refusal(run("rm", SOURCE))
    assert "cannot be reached" in refusal(run("pull", SOURCE))


@pytest.mark.usefixtures("hub")
def test_a_revision(run: Command) -> None:
    assert run("pull", f"hf:someone/models@{COMMIT}/{FILE}").returncode == 0
    missing = refusal(run("pull", f"hf:someone/models@nothing/{FILE}"))
    assert "no such revision" in missing


def test_a_split_model_comes_whole(hub: FakeHub, run: Command, tiny: bytes) -> None:
    names = [f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    hub.repos["someone/models"] |= dict.fromkeys(names, tiny)
    pulled = run("pull", f"hf:someone/models/{names[0]}")
    assert pulled.returncode == 0, pulled.stderr
    assert sorted(p.name for p in Path(pulled.stdout.strip()).parent.iterdir()) == names


def test_what_is_not_there(hub: FakeHub, run: Command) -> None:
    missing = refusal(run("pull", "hf:someone/models/other.gguf"))
    assert "no such file; its GGUF files are folder/tiny-f32.gguf" in missing
    assert f"names no file; its GGUF files are {FILE}" in refusal(run("pull", "hf:someone/models"))
    assert "no such repository" in refusal(run("pull", "hf:someone/else/x.gguf"))
    hub.repos["someone/empty"] = {"README.md": b""}
    assert "it has no GGUF files" in refusal(run("pull", "hf:someone/empty"))
    hub.repos["someone/gated"] = {"x.gguf": b"x"}
    hub.gated.add("someone/gated")
    assert "HF_TOKEN" in refusal(run("pull", "hf:someone/gated/x.gguf"))


def test_damaged_bytes_are_not_kept(hub: FakeHub, run: Command) -> None:
    hub.wrong_bytes.add(FILE)
    assert "came with sha256" in refusal(run("pull", SOURCE))
    assert SOURCE not in run("models").stdout
    hub.wrong_bytes.clear()
    assert run("pull", SOURCE).returncode == 0


def test_without_the_library(tmp_path: Path, monkeypatch, run: Command) -> None:
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError('absent')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "pip install huggingface-hub" in refusal(run("pull", SOURCE))
    assert run("models").returncode == 0


def program(code: str) -> str:
    """What a program prints; the hub's library reads its settings once, so it is a new one."""
    head = "from pyllamacpp import Llama\noptions = {'n_ctx': 32, 'verbose': False}\n"
    done = subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, check=False, cwd="/"
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def test_from_pretrained(hub: FakeHub, tiny: bytes, tmp_path: Path) -> None:
    hub.repos["someone/models"]["second-q8.gguf"] = tiny
    load = "print(Llama.from_pretrained('someone/models', {}, **options).model_path)"
    assert Path(program(load.format("'*f32.gguf'"))).read_bytes() == tiny
    folder = tmp_path / "here"
    more = f"{FILE!r}, additional_files=['*.md'], local_dir={str(folder)!r}"
    assert program(load.format(more)) == str(folder / FILE)
    assert (folder / "README.md").read_bytes() == b"# Models"
    other = str(tmp_path / "other")
    assert program(load.format(f"{FILE!r}, cache_dir={other!r}")).startswith(other)


def test_a_repositorys_chat_format(hub: FakeHub) -> None:
    config = b'{"bos_token": "<s>", "eos_token": "</s>"}'
    files = {"tokenizer_config.json": config, "chat_template.jinja": b"{{ messages[0].content }}!"}
    hub.repos["someone/chats"] = files
    code = (
        "from pyllamacpp.llama_chat_format import hf_autotokenizer_to_chat_formatter as formatter\n"
        "print(formatter({!r})(messages=[{{'role': 'user', 'content': 'U'}}]).prompt)"
    )
    assert program(code.format("someone/chats")) == "U!"
    assert "the repository has no such file" in program(code.format("someone/models"))


def test_from_pretrained_refuses(hub: FakeHub, monkeypatch) -> None:
    load = "Llama.from_pretrained({!r}, {!r})"
    missing = program(load.format("someone/models", "x*"))
    assert missing.startswith("pyllamacpp.errors.InvalidArgumentError: ")
    assert f"no file that matches 'x*'; its GGUF files are {FILE}" in missing
    hub.repos["someone/models"]["second.gguf"] = b""
    several = program(load.format("someone/models", "*.gguf"))
    assert f"several files match '*.gguf': {FILE}, second.gguf" in several
    assert "names no file; its GGUF files are" in program(load.format("someone/models", None))
    assert "no such repository" in program(load.format("someone/else", "*.gguf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "errors.FileError: cannot fetch" in program(load.format("someone/models", "*.gguf"))


def test_from_pretrained_fetches_all_parts(hub: FakeHub, tiny: bytes) -> None:
    names = [f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    hub.repos["someone/split"] = dict.fromkeys(names, tiny)
    fetch = "from pyllamacpp.models.hub import fetch_matching\nprint(fetch_matching({!r}, {!r}))"
    path = Path(program(fetch.format("someone/split", "m-*.gguf")))
    assert sorted(file.name for file in path.parent.iterdir()) == names
