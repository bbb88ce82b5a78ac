"""Vocabulary files of every kind, small ones made up and real ones of the package index."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyllamacpp_convert.vocab import Vocab
from pyllamacpp_convert.writer import GgufStreamWriter
from text_cases import BYTE, CONTROL, NORMAL, UNKNOWN, file_of_package

from pyllamacpp._core import Tokenizer

Piece = tuple[str, float, int]

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def real(package: str, name: str) -> Path:
    path = file_of_package(package, name)
    assert path is not None, f"{package} no longer holds {name}"
    return path


def tokenizer_of(metadata: Mapping[str, Any], path: Path) -> Tokenizer:
    """The engine's tokenizer from a GGUF with the metadata and no tensor."""
    writer = GgufStreamWriter(path, {"general.architecture": "llama", **metadata}, [])
    writer._check = lambda: None  # reading back with the gguf package takes seconds
    with writer:
        writer.finish()
    return Tokenizer.from_gguf(str(path))


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _field(number: int, value: int | float | bytes) -> bytes:
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    return _varint(number << 3) + _varint(value)


PIECES: list[Piece] = [
    ("<unk>", 0.0, UNKNOWN),
    ("<s>", 0.0, CONTROL),
    ("</s>", 0.0, CONTROL),
    *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)),
    *((text, -float(i), NORMAL) for i, text in enumerate(["ab", "▁ab", "▁▁", "▁", "a", "b"])),
]
TRAINER = {3: 2, 40: 0, 41: 1, 42: 2, 43: -1}
NORMALIZER: dict[int, int | bytes] = {1: b"identity", 3: 1, 4: 0}


def sentencepiece_model(
    pieces: Sequence[Piece] = PIECES,
    trainer: Mapping[int, int] = TRAINER,
    normalizer: Mapping[int, int | bytes] = NORMALIZER,
) -> bytes:
    out = b""
    for text, score, kind in pieces:
        out += _field(1, _field(1, text.encode()) + _field(2, score) + _field(3, kind))
    for number, message in ((2, trainer), (3, normalizer)):
        out += _field(number, b"".join(_field(key, value) for key, value in message.items()))
    return out


def tiktoken_file(tokens: Sequence[bytes] = (b"ab", b" a", b" ab")) -> bytes:
    every = [*(bytes([byte]) for byte in range(256)), *tokens]
    return b"".join(b"%s %d\n" % (base64.b64encode(token), i) for i, token in enumerate(every))


def added(i: int, content: str, *, special: bool = True) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": content, "special": special, **flags}


def byte_level_json(
    tokens: Sequence[str],
    merges: Sequence[str],
    special: Sequence[str],
    steps: Sequence[dict[str, Any]],
    **changes: object,
) -> dict[str, Any]:
    model = {
        "type": "BPE",
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": list(merges),
        "byte_fallback": False,
    }
    return {
        "added_tokens": [
            added(tokens.index(name) if name in tokens else len(tokens) + i, name)
            for i, name in enumerate(special)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)},
        "post_processor": None,
        "model": model | changes,
    }


def split_step(pattern: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def byte_level_step(*, use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


# As `tokenizers` writes pre_tokenizers.Metaspace(prepend_scheme="first", split=False).
METASPACE = {
    "type": "Metaspace",
    "replacement": "▁",
    "prepend_scheme": "first",
    "split": False,
}
PREPEND = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}
BEGINS_TEXT = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
}


def characters_json(vocab: Vocab) -> dict[str, Any]:
    """A SentencePiece vocabulary as Hugging Face writes it: every pair that makes a token, the
    tokens by their scores.
    """
    ids = {token: i for i, token in enumerate(vocab.tokens)}
    made = [i for i, kind in enumerate(vocab.types) if kind == NORMAL]
    made.sort(key=lambda i: -vocab.scores[i])
    cuts = ((t[:i], t[i:]) for t in map(vocab.tokens.__getitem__, made) for i in range(1, len(t)))
    return {
        "added_tokens": [added(i, vocab.tokens[i]) for i in range(3)],
        "normalizer": PREPEND,
        "pre_tokenizer": None,
        "post_processor": BEGINS_TEXT,
        "decoder": None,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": ids,
            "merges": [f"{a} {b}" for a, b in cuts if a in ids and b in ids],
        },
    }


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
