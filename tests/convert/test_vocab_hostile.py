"""Vocabulary files that somebody broke on purpose: our errors, or a file that the engine loads."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyllamacpp_convert.vocab import read_vocab
from text_cases import ALPHABET
from vocab_cases import (
    BEGINS_TEXT,
    LLAMA3,
    METASPACE,
    added,
    byte_level_json,
    byte_level_step,
    sentencepiece_model,
    split_step,
    tiktoken_file,
    tokenizer_of,
)

from pyllamacpp.errors import PyllamacppError

ROWS = 600


def check(folder: Path) -> None:
    """Reads the folder's vocabulary: one of our errors, or something that works."""
    path = next(folder.glob("tokenizer.*"))
    try:
        metadata = read_vocab(path).metadata(ROWS)
    except PyllamacppError:
        return
    ours = tokenizer_of(metadata, folder / "x.gguf")
    assert ours.size == ROWS
    text = "ab <|end|></s> 天\n".encode()
    assert max(ours.encode(text, True, True)) < ROWS


def edited(data: bytes) -> st.SearchStrategy[bytes]:
    """The bytes cut short, and with a few places written over."""
    place = st.tuples(st.integers(0, len(data) - 1), st.binary(min_size=1, max_size=6))

    def edit(cut: int, places: list[tuple[int, bytes]]) -> bytes:
        out = bytearray(data)
        for at, new in places:
            out[at : at + len(new)] = new
        return bytes(out[:cut])

    ends = st.one_of(st.just(len(data)), st.integers(0, len(data)))
    return st.builds(edit, ends, st.lists(place, max_size=4))


@pytest.mark.parametrize("data", [sentencepiece_model(), tiktoken_file()], ids=["spm", "tiktoken"])
def test_broken_bytes(data: bytes) -> None:
    @given(edited(data))
    def run(broken: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "tokenizer.model").write_bytes(broken)
            check(Path(folder))

    run()


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.model").write_bytes(data)
        check(Path(folder))


def characters() -> dict[str, Any]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += ["▁", "a", "b", "ab", "▁ab"]
    return {
        "added_tokens": [added(1, "<s>"), added(2, "</s>"), added(300, "<|end|>")],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
        "pre_tokenizer": METASPACE,
        "post_processor": BEGINS_TEXT,
        "model": {
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": ["a b", "▁ ab"],
            "unk_token": "<unk>",
        },
    }


def byte_level() -> dict[str, Any]:
    steps = [split_step(LLAMA3), byte_level_step(use_regex=False)]
    merges = ["a b"]
    return byte_level_json([*ALPHABET, "ab"], merges, ["<|end|>"], steps, ignore_merges=True)


COMPANIONS = {
    "tokenizer_config.json": {
        "bos_token": {"content": "<s>"},
        "eos_token": "</s>",
        "pad_token": "<|end|>",
        "additional_special_tokens": ["<|end|>"],
        "add_bos_token": True,
        "added_tokens_decoder": {"1": {"content": "<s>", "special": True}},
        "chat_template": [{"name": "default", "template": "x"}, {"name": "y", "template": "z"}],
    },
    "special_tokens_map.json": {"unk_token": "<unk>"},
    "added_tokens.json": {"<|tool|>": 301},
    "generation_config.json": {"eos_token_id": [2, 300, 301]},
    "config.json": {"bos_token_id": 1},
}
VALUES = st.one_of(
    st.sampled_from(
        [
            *(None, True, -1, 0, 1, 299, 301, 10**6, 1 << 31, 1 << 64, 1e300, float("nan")),
            *("", "a", "ab", "<s>", "\ud800", "▁", " ", "Sequence", "NFC", "Metaspace"),
            *([], {}, [[]], ["a", "b"]),
            *({"type": "ByteLevel"}, {"type": "Sequence"}, {"content": 3}, {"id": 3}),
        ]
    ),
    st.integers(),
    st.text(max_size=5),
)


def paths(value: object, to: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything inside a JSON value, the first few of long lists and objects."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[arg-type]
    for key, inner in [*entries][-8:]:
        yield (*to, key)
        if isinstance(inner, dict | list):
            yield from paths(inner, (*to, key))


def change(at: Any, path: tuple[Any, ...], value: object, remove: bool) -> None:
    """Replaces or removes what lies at the path, if an earlier change left it there."""
    key, *rest = path
    if not isinstance(at, dict | list) or key not in (
        at if isinstance(at, dict) else range(len(at))
    ):
        return
    if rest:
        change(at[key], tuple(rest), value, remove)
    elif remove:
        del at[key]
    else:
        at[key] = value


@pytest.mark.parametrize("make", [characters, byte_level])
def test_broken_json(make: Any) -> None:
    whole = {"tokenizer.json": make(), **COMPANIONS}
    source = json.dumps(whole)
    places = [path for path in paths(whole) if len(path) > 1]

    @given(st.lists(st.tuples(st.sampled_from(places), VALUES, st.booleans()), max_size=4))
    def run(changes: list[tuple[tuple[Any, ...], object, bool]]) -> None:
        files = json.loads(source)
        for path, value, remove in changes:
            change(files, path, value, remove)
        with tempfile.TemporaryDirectory() as folder:
            for name, value in files.items():
                (Path(folder) / name).write_text(json.dumps(value), encoding="utf-8")
            check(Path(folder))

    run()


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("depth", [900, 100_000])
@pytest.mark.parametrize("key", ["normalizers", "x"])
def test_deep_nesting(name: str, depth: int, key: str, tmp_path: Path) -> None:
    deep = f'{{"type": "Sequence", "{key}": [' * depth + "]}" * depth
    root = json.dumps(characters())
    (tmp_path / "tokenizer.json").write_text(root, encoding="utf-8")
    changed = root.replace(json.dumps(METASPACE), deep) if name == "tokenizer.json" else deep
    (tmp_path / name).write_text(changed, encoding="utf-8")
    check(tmp_path)


def test_the_whole_ones_are_read(tmp_path: Path) -> None:
    for name, value in {"tokenizer.json": characters(), **COMPANIONS}.items():
        (tmp_path / name).write_text(json.dumps(value), encoding="utf-8")
    vocab = read_vocab(tmp_path / "tokenizer.json")
    assert (vocab.bos, vocab.eos, vocab.eot, vocab.padding) == (1, 2, 300, 300)
    assert vocab.metadata(ROWS)["tokenizer.chat_templates"] == ["y"]
