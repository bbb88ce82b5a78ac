"""Loading, closing, pickling; missing and wrong files; the source tree."""

import logging
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from pyllamacpp import Llama
from pyllamacpp.errors import FileError, FormatError, ModelFileError, PyllamacppError

ROOT = Path(__file__).resolve().parents[2]


def test_a_missing_file_is_a_value_error(tmp_path: Path) -> None:
    missing = tmp_path / "none.gguf"
    with pytest.raises(ModelFileError, match=r"there is no file .*none\.gguf") as caught:
        Llama(str(missing), verbose=False)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, FileError)


def test_a_folder_is_answered_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder, not a GGUF file"):
        Llama(tmp_path, verbose=False)
    meta = tmp_path / "7B"
    meta.mkdir()
    (meta / "consolidated.00.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Meta checkpoint.*pyllamacpp convert .*7B -o"):
        Llama(meta, verbose=False)
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"Hugging Face model.*pyllamacpp convert .*hub -o"):
        Llama(hub, verbose=False)


@pytest.mark.parametrize(
    "content", [b"", b"GG", b"not a model at all", b"GGUF\3\0\0\0" + b"\xff" * 50]
)
def test_garbage_is_a_format_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage.gguf"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"garbage\.gguf") as caught:
        Llama(path, verbose=False)
    assert isinstance(caught.value, ValueError)


def test_a_truncated_model_is_a_format_error(tmp_path: Path, default_model: Path) -> None:
    path = tmp_path / "half.gguf"
    path.write_bytes(default_model.read_bytes()[: 40 << 20])
    with pytest.raises(FormatError, match=r"half\.gguf"):
        Llama(path, verbose=False)


def test_vocab_only(default_model: Path) -> None:
    with Llama(str(default_model), vocab_only=True, verbose=False) as llm:
        assert llm.detokenize(llm.tokenize(b"Hello")) == b"Hello"
        assert llm.n_vocab() == 49152
        assert llm.metadata["general.architecture"] == "llama"
        for use in (lambda: llm("Hello"), lambda: llm.eval([1]), lambda: llm.scores):
            with pytest.raises(PyllamacppError, match="vocabulary only"):
                use()


def test_close_frees_and_says_so(default_model: Path) -> None:
    llm = Llama(str(default_model), n_ctx=64, verbose=False)
    stream = llm("Hello", max_tokens=8, stream=True)
    next(stream)
    llm.close()
    llm.close()
    with pytest.raises(PyllamacppError):
        next(stream)
    for use in (lambda: llm("Hello"), lambda: llm.tokenize(b"x"), lambda: llm.n_tokens):
        with pytest.raises(PyllamacppError, match="closed"):
            use()


def test_pickling_loads_again(default_model: Path) -> None:
    with (
        Llama(str(default_model), n_ctx=96, seed=7, verbose=False) as llm,
        pickle.loads(pickle.dumps(llm)) as copy,
    ):
        assert copy.n_ctx() == 96
        first, second = (
            one("Once", max_tokens=12, temperature=1.5)["choices"][0]["text"] for one in (llm, copy)
        )
        assert first == second


def test_verbose_turns_on_the_logger(default_model: Path, caplog) -> None:
    caplog.set_level(logging.INFO, "pyllamacpp")
    with Llama(str(default_model), n_ctx=64, verbose=True) as llm:
        assert "loaded" in caplog.text
        caplog.clear()
        llm("Hello", max_tokens=2)
        assert "2 generated" in caplog.text
        caplog.clear()
    with Llama(str(default_model), n_ctx=64, verbose=False) as llm:
        llm("Hello", max_tokens=2)
    assert caplog.text == ""


def test_the_library_never_prints(default_model: Path, capfd) -> None:
    with Llama(str(default_model), n_ctx=64, verbose=False) as llm:
        llm("Hello", max_tokens=2)
        llm.create_chat_completion([{"role": "user", "content": "Hi"}], max_tokens=2)
    assert capfd.readouterr() == ("", "")


def test_import_is_light() -> None:
    heavy = "numpy", "jinja2", "click", "importlib.metadata"
    code = f"import sys, pyllamacpp; print([name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_the_source_tree_says_how_to_install() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pyllamacpp"
    found = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert "ImportError" in found.stderr
    assert "run pip install ." in found.stderr


def test_pyllamacpp_convert_is_importable() -> None:
    import pyllamacpp_convert

    assert pyllamacpp_convert.__doc__
