"""tiktoken's format, as Meta publishes Llama 3's vocabulary: one "base64 rank" on each line."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from pyllamacpp.errors import FormatError, UnsupportedError
from pyllamacpp_convert.vocab.model import AddedToken, Vocab

_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) ([0-9]{1,9})")
_N_SPECIAL = 256
_LLAMA3_RANKS = 128000

# Names at the start of the 256 that follow the ranks; the rest are reserved. None: reserved too.
_V3 = (
    *("begin_of_text", "end_of_text", None, None, None, None, "start_header_id"),
    *("end_header_id", None, "eot_id"),
)
_V31 = (
    *("begin_of_text", "end_of_text", None, None, "finetune_right_pad_id", None),
    *("start_header_id", "end_header_id", "eom_id", "eot_id", "python_tag"),
)


def read_tiktoken(path: Path, data: bytes, v31: bool) -> Vocab:
    """Llama 3's vocabulary; v31: with the special tokens that Llama 3.1 named.

    Raises FormatError when `data` is malformed, UnsupportedError for other models' vocabularies.
    """
    ranks = _ranks(path, data)
    if len(ranks) > _LLAMA3_RANKS:
        raise UnsupportedError(
            f"{path} holds {len(ranks)} ranks, Llama 3's vocabulary {_LLAMA3_RANKS}; those of "
            "other models in this format are not supported"
        )
    tokens = [spelled(token) for token in ranks]
    special = _special_names(_V31 if v31 else _V3)
    vocab = Vocab(
        path,
        "gpt2",
        tokens,
        [1] * len(tokens),
        n_trained=len(tokens) + _N_SPECIAL,
        merges=merges_of_ranks(ranks),
        pre="llama-bpe",
    )
    vocab.add({len(ranks) + i: AddedToken(name, True) for i, name in enumerate(special)})
    vocab.bos, vocab.eos, vocab.eot, vocab.padding = (
        vocab.find(f"<|{name}|>")
        for name in ("begin_of_text", "end_of_text", "eot_id", "finetune_right_pad_id")
    )
    if len(ranks) != _LLAMA3_RANKS:
        vocab.notes.append(
            f"{path} holds {len(ranks)} ranks, Llama 3's vocabulary {_LLAMA3_RANKS}: text is split "
            "as Llama 3 does"
        )
    return vocab


def _ranks(path: Path, data: bytes) -> dict[bytes, int]:
    """Ranks by token, in the order of the ranks: 0, 1, 2, ..."""
    found: dict[int, bytes] = {}
    for i, line in enumerate(data.splitlines()):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        try:
            token = base64.b64decode(match[1], validate=True) if match else b""
        except binascii.Error:
            token = b""
        if match is None or not token:
            shown = line[:40].decode("utf-8", "replace")
            raise FormatError(f'{path}: line {i + 1}, {shown!r}, is not "base64 rank"')
        rank = int(match[2])
        if rank in found:
            raise FormatError(f"{path}: line {i + 1} has the rank {rank} again")
        found[rank] = token
    missing = next((rank for rank in range(len(found)) if rank not in found), None)
    if missing is not None:
        raise FormatError(f"{path}: no line has the rank {missing}")
    ranks = {found[rank]: rank for rank in range(len(found))}
    if len(ranks) != len(found):
        raise FormatError(f"{path}: two lines have the same token")
    byte = next((byte for byte in range(256) if bytes([byte]) not in ranks), None)
    if byte is not None:
        raise FormatError(f"{path}: no line has the byte 0x{byte:02X}")
    return ranks


def merges_of_ranks(ranks: dict[bytes, int]) -> list[str]:
    """Every pair of tokens that makes a token, by the rank of what it makes.

    Gives tiktoken's ids: it merges the pair whose result has the lowest rank. Of the pairs that
    make one token only one can ever arise (what is inside a token's borders merges as it does
    alone), so their order does not matter.
    """
    cuts = ((token[:i], token[i:]) for token in ranks for i in range(1, len(token)))
    return [f"{spelled(a)} {spelled(b)}" for a, b in cuts if a in ranks and b in ranks]


def _special_names(names: tuple[str | None, ...]) -> list[str]:
    out: list[str] = []
    reserved = 0
    for i in range(_N_SPECIAL):
        name = names[i] if i < len(names) else None
        if name is None:
            name = f"reserved_special_token_{reserved}"
            reserved += 1
        out.append(f"<|{name}|>")
    return out


def _byte_alphabet() -> list[str]:
    """The printable character that GPT-2's vocabularies write for each byte."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in visible else next(others)) for byte in range(256)]


_ALPHABET = _byte_alphabet()


def spelled(token: bytes) -> str:
    """A token as byte-level vocabularies write it."""
    return "".join([_ALPHABET[byte] for byte in token])
