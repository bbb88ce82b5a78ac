"""Names from a file in messages: short, quoted, nothing that a terminal would obey."""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import pytest

from pyllamacpp import _core
from pyllamacpp.errors import UnsupportedError

sys.path.append(str(Path(__file__).resolve().parents[1] / "oracle"))
from tiny_model import TinyModel

HOSTILE = "\x1b[2J\n\u202e" + "x" * 5000


@pytest.mark.parametrize("key", ["architecture", "rope.scaling.type", "tokenizer.ggml.pre"])
def test_a_hostile_name_is_quoted_and_shortened(key: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    if key == "rope.scaling.type":
        TinyModel(metadata={key: HOSTILE}).write(path)
    else:
        writer = gguf.GGUFWriter(path, HOSTILE if key == "architecture" else "llama")
        writer.add_tokenizer_model("llama" if key == "architecture" else "gpt2")
        writer.add_tokenizer_pre(HOSTILE)
        writer.add_token_list(["<unk>", "a"])
        writer.add_token_scores([0.0, 0.0])
        writer.add_token_types([2, 1])
        writer.add_unk_token_id(0)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    with pytest.raises(UnsupportedError, match="is not supported") as caught:
        _core.Model(str(path))
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert len(sentence) < 1000
