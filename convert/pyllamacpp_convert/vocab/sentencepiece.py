"""SentencePiece's tokenizer.model: a protobuf message (sentencepiece_model.proto).

Its four kinds of fields are read here; the protobuf package would be a dependency for that alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyllamacpp.errors import FormatError, UnsupportedError
from pyllamacpp_convert.vocab.model import TokenType, Vocab

_PIECE, _TRAINER, _NORMALIZER = 1, 2, 3
_MODEL_TYPES = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}
_BPE = 2

_Field = int | float | bytes


def read_sentencepiece(path: Path, data: bytes) -> Vocab:
    """The vocabulary of a model trained as BPE.

    Raises FormatError when `data` is malformed, UnsupportedError for other kinds of models.
    """
    try:
        model = _model(data)
    except (ValueError, IndexError, struct.error) as error:
        raise FormatError(f"{path} is not a SentencePiece model: {error}") from error
    kind = model.trainer.get(3, 1)  # the default of the format is unigram
    if kind != _BPE:
        raise UnsupportedError(
            f"{path} is a SentencePiece model of the kind {_MODEL_TYPES.get(_whole(kind), kind)}; "
            "supported is BPE"
        )
    n = len(model.tokens)
    vocab = Vocab(
        path,
        "llama",
        model.tokens,
        model.types,
        n_trained=n,
        scores=model.scores,
        add_space_prefix=bool(model.normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(model.normalizer.get(4, 1)),
    )
    ids = [_whole(model.trainer.get(number, default)) for number, default in _IDS]
    vocab.unknown, vocab.bos, vocab.eos, vocab.padding = (i if 0 <= i < n else None for i in ids)
    if vocab.remove_extra_whitespaces:
        vocab.notes.append(
            "the vocabulary takes several spaces as one, which is not done here: they give other "
            "tokens than in training"
        )
    name = model.normalizer.get(1, b"")
    if model.normalizer.get(2):
        shown = name.decode("utf-8", "replace") if isinstance(name, bytes) else "a table"
        vocab.notes.append(
            f"the vocabulary normalizes text ({shown:.40}), which is not done here: other "
            "spellings of a character give other tokens than in training"
        )
    return vocab


# unk_id, bos_id, eos_id, pad_id of the trainer's settings, and their defaults.
_IDS = ((40, 0), (41, 1), (42, 2), (43, -1))


@dataclass
class _Model:
    tokens: list[str]
    scores: list[float]
    types: list[int]
    trainer: dict[int, _Field]
    normalizer: dict[int, _Field]


def _model(data: bytes) -> _Model:
    out = _Model([], [], [], {}, {})
    for number, value in _fields(data):
        if number not in (_PIECE, _TRAINER, _NORMALIZER):
            continue
        if not isinstance(value, bytes):
            raise ValueError(f"its field {number} is no message")
        if number == _TRAINER:
            out.trainer.update(_fields(value))
        elif number == _NORMALIZER:
            out.normalizer.update(_fields(value))
        else:
            text, score, kind = _piece(value, len(out.tokens))
            out.tokens.append(text)
            out.scores.append(score)
            out.types.append(kind)
    if not out.tokens:
        raise ValueError("it holds no pieces")
    return out


def _piece(data: bytes, i: int) -> tuple[str, float, int]:
    fields = dict(_fields(data))
    text, score, kind = fields.get(1, b""), fields.get(2, 0.0), fields.get(3, TokenType.NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, float) or kind not in tuple(TokenType):
        raise ValueError(f"its piece {i} is malformed")
    return text.decode(), score, _whole(kind)


def _whole(value: _Field) -> int:
    """An int32 field; a negative one is written as 64 bits."""
    if not isinstance(value, int):
        raise ValueError("a number in it is no whole one")
    return value - (1 << 64) if value >= 1 << 63 else value


def _fields(data: bytes) -> Iterator[tuple[int, _Field]]:
    """Number and value of each field: whole numbers, 32-bit floats, bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (1 << 64) - 1
        raise ValueError("a number in it has no end")

    while at < len(data):
        key = varint()
        number, wire = key >> 3, key & 7
        if wire == 0:
            yield number, varint()
            continue
        if wire not in (1, 2, 5):
            raise ValueError(f"it has a field of the kind {wire}")
        size = varint() if wire == 2 else 8 if wire == 1 else 4
        value = data[at : at + size]
        if len(value) != size:
            raise ValueError("it ends in the middle of a field")
        at += size
        yield number, value if wire == 2 else struct.unpack("<f" if wire == 5 else "<d", value)[0]
