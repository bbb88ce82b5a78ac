"""Where settings come from, and several models of a file."""

import importlib.util
import json
import sys
import urllib.request
from pathlib import Path

import pytest

from pyllamacpp import InvalidArgumentError, Llama
from pyllamacpp.errors import UnsupportedError
from pyllamacpp.server import require_packages
from pyllamacpp.server.settings import as_toml, read_settings

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
from tiny_model import TinyModel


def test_flags_then_the_environment_then_the_file(tmp_path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('port = 1\nhost = "a"\nmax_queue = 3\n')
    environment = {"PYLLAMACPP_SERVER_PORT": "2", "PYLLAMACPP_SERVER_HOST": "b"}
    environment["PYLLAMACPP_SERVER_API_KEYS"] = "one,two"
    found = read_settings({"port": 4, "host": None}, str(file), environment)
    assert (found.port, found.host, found.max_queue) == (4, "b", 3)
    assert found.api_keys == ["one", "two"]
    written = as_toml(found)
    assert "one" not in written
    file.write_text(written)
    again = read_settings({}, str(file), {})
    assert again == found.model_copy(update={"api_keys": []})


@pytest.mark.parametrize("text", ["port = 99999", "colour = 1", "port =", "tls_key = 'a'"])
def test_a_wrong_file_is_one_sentence(tmp_path, text: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(InvalidArgumentError):
        read_settings({}, str(file), {})


def test_models_are_loaded_on_demand_and_closed_for_others(
    start_server, default_model, tmp_path
) -> None:
    file = tmp_path / "server.toml"
    tables = [f'[[models]]\nmodel = "{default_model}"\nname = "{n}"\nctx = 64\n' for n in "ab"]
    file.write_text("max_models = 1\n" + "".join(tables))
    with start_server("--config", str(file)) as (address, _):

        def slot_models(name: str) -> set[str]:
            body = {"model": name, "prompt": "Once upon", "max_tokens": 2, "ignore_eos": True}
            request = urllib.request.Request(f"{address}/v1/completions", json.dumps(body).encode())
            with urllib.request.urlopen(request) as answer:
                assert json.load(answer)["model"] == name
            with urllib.request.urlopen(f"{address}/slots") as answer:
                return {slot["model"] for slot in json.load(answer)}

        assert [slot_models(name) for name in "aba"] == [{"a"}, {"b"}, {"a"}]


def test_a_cache_outlives_the_model(start_server, default_model, tmp_path) -> None:
    words = " ".join(f"word {i}" for i in range(60))

    def answer(address: str) -> str:
        body = {"prompt": words, "max_tokens": 4, "temperature": 0, "ignore_eos": True}
        request = urllib.request.Request(f"{address}/v1/completions", json.dumps(body).encode())
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)["choices"][0]["text"]

    options = ["-m", str(default_model), "-c", "512", "--cache", "disk", "--cache-size", "64M"]
    options += ["--cache-dir", str(tmp_path / "texts")]
    texts = []
    for _ in range(2):
        with start_server(*options) as (address, process):
            texts.append(answer(address))
            process.terminate()
            process.wait()
        files = sorted(path.name for path in (tmp_path / "texts").iterdir())
        assert len(files) == 1  # the second server found the text, and had nothing to add
    with start_server("-m", str(default_model), "-c", "512") as (address, _):
        assert texts == [answer(address)] * 2


@pytest.mark.parametrize(
    "text", ['cache = "disk"', 'cache = "ram"\ncache_dir = "a"', 'cache = "on"', "cache_size = 0"]
)
def test_a_cache_that_cannot_be(tmp_path, text: str) -> None:
    test_a_wrong_file_is_one_sentence(tmp_path, text)


def test_a_missing_package_is_named_with_its_command(monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    with pytest.raises(UnsupportedError, match=r"needs uvicorn: run pip install '\.\[server\]'"):
        require_packages()


def test_the_context_unless_given(start_server, default_model: Path, tmp_path: Path) -> None:
    """As docs/server.md has it: the server asks the file, the class keeps its peer's default."""
    short = TinyModel(n_ctx=200).write(tmp_path / "short.gguf")
    for model, of_file, of_server in ((default_model, 8192, 4096), (short, 200, 200)):
        with (
            start_server("-m", str(model)) as (address, _),
            urllib.request.urlopen(f"{address}/props") as answer,
        ):
            assert json.load(answer)["n_ctx"] == of_server
        with Llama(str(model), verbose=False) as llm:
            assert llm.n_ctx() == 512
        with Llama(str(model), n_ctx=0, verbose=False) as llm:
            assert llm.n_ctx() == of_file
