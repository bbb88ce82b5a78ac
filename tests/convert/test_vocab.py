"""Vocabularies through the converter give the ids of the library each of them was made for."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import gguf
import pytest
import sentencepiece
import tiktoken
import tokenizers
from pyllamacpp_convert.vocab import read_vocab
from text_cases import ALPHABET, CASES, CONTROL, NORMAL, UNUSED, random_texts, spelled
from vocab_cases import (
    LLAMA3,
    METASPACE,
    byte_level_json,
    byte_level_step,
    characters_json,
    real,
    split_step,
    tiktoken_file,
    tokenizer_of,
    write_json,
)

MISTRAL = ["tokenizer.model.v1", ".model.v2", ".model.v3", ".model.v7"]


@pytest.mark.parametrize("name", MISTRAL)
def test_sentencepiece(name: str, tmp_path: Path) -> None:
    path = real("mistral-common", name)
    vocab = read_vocab(path)
    assert vocab.notes == []
    assert vocab.files == [path]
    metadata = vocab.metadata(len(vocab.tokens))
    for key, value in {
        "model": "llama",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        "add_bos_token": True,
        "add_eos_token": False,
        "add_space_prefix": True,
        "remove_extra_whitespaces": False,
    }.items():
        assert metadata[f"tokenizer.ggml.{key}"] == value
    assert "tokenizer.ggml.padding_token_id" not in metadata
    ours = tokenizer_of(metadata, tmp_path / "x.gguf")
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    for text in random_texts(11, CASES):
        assert ours.encode(text.encode(), False, False) == theirs.encode(text), ascii(text)
    assert ours.encode(b"ab", True, False) == [1, *theirs.encode("ab")]


def test_llama3(tmp_path: Path) -> None:
    path = real("llama-models", "llama3/tokenizer.model")
    vocab = read_vocab(path)
    assert vocab.notes == []
    metadata = vocab.metadata(128256)
    ours = tokenizer_of(metadata, tmp_path / "x.gguf")
    lines = (line.split() for line in path.read_bytes().splitlines())
    names = {
        "<|begin_of_text|>": 128000,
        "<|end_of_text|>": 128001,
        "<|reserved_special_token_0|>": 128002,
        "<|reserved_special_token_3|>": 128005,
        "<|start_header_id|>": 128006,
        "<|end_header_id|>": 128007,
        "<|reserved_special_token_4|>": 128008,
        "<|eot_id|>": 128009,
        "<|reserved_special_token_5|>": 128010,
        "<|reserved_special_token_250|>": 128255,
    }
    theirs = tiktoken.Encoding(
        "x",
        pat_str=LLAMA3,
        mergeable_ranks={base64.b64decode(token): int(rank) for token, rank in lines},
        special_tokens=names,
    )
    for text in random_texts(12, CASES, special=list(names)):
        ids = theirs.encode(text, allowed_special="all")
        assert ours.encode(text.encode(), False, True) == ids, ascii(text)
    assert ours.encode(b"hi", True, False) == [128000, *theirs.encode("hi")]
    ends = [i for i in range(ours.size) if ours.ends_generation(i)]
    assert ends == [128001, 128009]


def test_names_of_llama31(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(tiktoken_file())
    write_json(tmp_path / "params.json", {"use_scaled_rope": True, "dim": 64})
    vocab = read_vocab(tmp_path / "tokenizer.model")
    n = 259
    named = {
        0: "begin_of_text",
        3: "reserved_special_token_1",
        4: "finetune_right_pad_id",
        5: "reserved_special_token_2",
        8: "eom_id",
        9: "eot_id",
        10: "python_tag",
        11: "reserved_special_token_3",
        255: "reserved_special_token_247",
    }
    assert {i: vocab.tokens[n + i] for i in named} == {i: f"<|{t}|>" for i, t in named.items()}
    assert vocab.types == [NORMAL] * n + [CONTROL] * 256
    assert (vocab.bos, vocab.eos, vocab.eot, vocab.padding) == (n, n + 1, n + 9, n + 4)
    assert ["holds 259 ranks" in note for note in vocab.notes] == [True]
    ours = tokenizer_of(vocab.metadata(n + 256), tmp_path / "x.gguf")
    assert ours.encode(b"ab ab a", False, False) == [256, 258, 257]
    assert [i for i in range(ours.size) if ours.ends_generation(i)] == [n + 1, n + 8, n + 9]


def smollm2(model: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """tokenizer.json of the default model, and the metadata in its file."""
    fields = gguf.GGUFReader(model).fields
    stated = {
        key: field.contents() for key, field in fields.items() if key.startswith("tokenizer.")
    }
    tokens, types = stated["tokenizer.ggml.tokens"], stated["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    steps = [{"type": "Digits", "individual_digits": True}, byte_level_step(use_regex=True)]
    return byte_level_json(tokens, stated["tokenizer.ggml.merges"], special, steps), stated


def test_smollm2(default_model: Path, tmp_path: Path) -> None:
    root, stated = smollm2(default_model)
    path = write_json(tmp_path / "tokenizer.json", root)
    write_json(
        tmp_path / "tokenizer_config.json",
        {
            "bos_token": "<|im_start|>",
            "eos_token": {"content": "<|im_end|>", "lstrip": False},
            "unk_token": "<|endoftext|>",
            "pad_token": "<|im_end|>",
            "chat_template": stated["tokenizer.chat_template"],
        },
    )
    vocab = read_vocab(path)
    assert vocab.notes == []
    assert vocab.metadata(49152) == stated | {"tokenizer.ggml.add_eos_token": False}


STEPS = {
    "gpt-2": [byte_level_step(use_regex=True)],
    "smollm": [{"type": "Digits", "individual_digits": True}, byte_level_step(use_regex=True)],
    "llama-bpe": [split_step(LLAMA3), byte_level_step(use_regex=False)],
    "qwen2": [split_step(LLAMA3.replace("{1,3}", "")), byte_level_step(use_regex=False)],
    "deepseek-llm": [
        split_step("[\r\n]"),
        # The file goes on so for a hundred ranges; the ids of all are compared in tests/text.
        split_step("\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf]+"),
        split_step("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"),
        split_step(r"\s+$"),
        split_step("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"),
        {"type": "Digits", "individual_digits": True},
        byte_level_step(use_regex=False),
    ],
}


@pytest.mark.parametrize("pre", STEPS)
@pytest.mark.parametrize("pairs", [False, True])
def test_byte_level(pre: str, pairs: bool, tmp_path: Path) -> None:
    words = [b" t", b"th", b" th", b"he", b"12", b"123", b"\n\n", "天".encode()[:2], "天".encode()]
    tokens = [*ALPHABET, *map(spelled, words)]
    cuts = [(t[:i], t[i:]) for t in tokens for i in range(1, len(t))]
    merges: list[Any] = [f"{a} {b}" for a, b in cuts if a in tokens and b in tokens]
    if pairs:  # as newer versions of the package write them
        merges = [merge.split(" ") for merge in merges]
    root = byte_level_json(
        tokens, merges, ["<|end|>"], STEPS[pre], ignore_merges=pre == "llama-bpe"
    )
    path = write_json(tmp_path / "tokenizer.json", root)
    vocab = read_vocab(path)
    assert (vocab.pre, vocab.notes) == (pre, [])
    ours = tokenizer_of(vocab.metadata(len(tokens) + 1), tmp_path / "x.gguf")
    theirs = tokenizers.Tokenizer.from_file(str(path))
    special = ["<|end|>"]
    letters = None if pre != "deepseek-llm" else "the 123 天\n\n x"
    for text in random_texts(13, CASES // 4, special) if letters is None else [letters]:
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text.encode(), False, True) == ids, ascii(text)


@pytest.mark.parametrize("name", MISTRAL[:1])
@pytest.mark.parametrize("metaspace", [False, True])
def test_sentencepiece_as_json(name: str, metaspace: bool, tmp_path: Path) -> None:
    model = read_vocab(real("mistral-common", name))
    root = characters_json(model)
    if metaspace:
        root["normalizer"] = None
        root["pre_tokenizer"] = METASPACE
    path = write_json(tmp_path / "tokenizer.json", root)
    write_json(tmp_path / "config.json", {"bos_token_id": 1, "eos_token_id": 2})
    vocab = read_vocab(path)
    assert vocab.notes == []
    expected = model.metadata(32000)
    metadata = vocab.metadata(32000)
    differ = {key for key in expected.keys() | metadata.keys() if expected[key] != metadata[key]}
    assert differ == {"tokenizer.ggml.scores"}
    ours = tokenizer_of(metadata, tmp_path / "x.gguf")
    theirs = tokenizers.Tokenizer.from_file(str(path))
    for text in random_texts(14, CASES):
        # Metaspace puts no space before a space; SentencePiece and the engine do.
        if metaspace and text.startswith((" ", "▁")):
            continue
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text.encode(), False, False) == ids, ascii(text)


def test_more_rows_than_tokens(tmp_path: Path) -> None:
    vocab = read_vocab(real("mistral-common", MISTRAL[0]))
    metadata = vocab.metadata(32064)
    assert ["the last 64 rows get unused tokens" in note for note in vocab.notes] == [True]
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list)
    assert isinstance(types, list)
    assert tokens[-1] == "[PAD32063]"
    assert types[-64:] == [UNUSED] * 64
    ours = tokenizer_of(metadata, tmp_path / "x.gguf")
    theirs = sentencepiece.SentencePieceProcessor(
        model_file=str(real("mistral-common", MISTRAL[0]))
    )
    for text in ["[PAD32063]", *random_texts(15, 200)]:
        assert ours.encode(text.encode(), False, True) == theirs.encode(text)
