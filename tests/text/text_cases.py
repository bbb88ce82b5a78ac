"""Random texts, and vocabularies for both sides of a comparison.

PYLLAMACPP_TEXT_CASES=100000 makes the comparisons with the reference libraries long.
"""

from __future__ import annotations

import importlib.metadata
import os
import random
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from pyllamacpp._core import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
CASES = int(os.environ.get("PYLLAMACPP_TEXT_CASES", "2000"))

# Assigned since Unicode 15. Our tables are of Unicode 16, those of a reference library of the
# version that its release happened to be built with: for these code points, and for those that no
# version known here assigns, either may see a letter or a digit where the other sees none.
NEWER = """
897 1B4E-1B4F 1B7F 1C89-1C8A 2427-2429 2FFC-2FFF 31E4-31E5 31EF A7CB-A7CD A7DA-A7DC 105C0-105F3
10D40-10D65 10D69-10D85 10D8E-10D8F 10EC2-10EC4 10EFC 11380-11389 1138B 1138E 11390-113B5
113B7-113C0 113C2 113C5 113C7-113CA 113CC-113D5 113D7-113D8 113E1-113E2 116D0-116E3 11BC0-11BE1
11BF0-11BF9 11F5A 13460-143FA 16100-16139 16D40-16D79 18CFF 1CC00-1CCF9 1CD00-1CEB3 1E5D0-1E5FA
1E5FF 1F8B2-1F8BB 1F8C0-1F8C1 1FA89 1FA8F 1FABE 1FAC6 1FADC 1FADF 1FAE9 1FBCB-1FBEF 2EBF0-2EE5D
"""

FRAGMENTS = [
    " ", "  ", "   ", "\n", "\r\n", "\n\n", "\t", "\r", "\xa0", "\u3000", "\u2028", "\x85", "\x1c",
    "\u200b", "\ufeff", "\x00", "\x7f", "\u180e", "\u1680", "\u205f", "1", "42", "2024", "3.14",
    "٣", "Ⅷ", "½", "²", "\u09ea", "九", "'s", "'S", "'ll", "'LL", "'re", "'vE", "'\u017f", "'",
    "''", "the",
    "Straße", "ñ", "n\u0303", "e\u0301\u0323\u0308", "Z\u0351\u036b\u0343", "\u0301", "ἀβγ",
    "Ω\u2126",
    "K\u212a", "ǅ", "жизнь", "שלום", "مرحبا", "नमस\u094dत\u0947", "สว\u0e31สด\u0e35",
    "က\u102d\u102f",
    "天", "한글", "ひらがな", "カタカナ", "\uff26\uff35\uff2c\uff2c", "\uff1a\uff1b", "。、",
    "\u2018quoted\u2019", "👩\u200d👩\u200d👧", "👍🏽", "🇩🇪",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "❤\ufe0f",
    "\U0001d518\U0001d52b\U0001d526", "\U00010400\U00010428", "\U0001e900\U0001e922", "!", "...",
    "=>", "_", "(", "«", "/*", "</", "▁", "▁the", "�", "\U0010ffff", "\ue000",
    "👩\u200d👩\u200d👧\u200d👦",
]  # fmt: skip


def newer_code_points() -> set[int]:
    codes: set[int] = set()
    for entry in NEWER.split():
        first, _, last = entry.partition("-")
        codes.update(range(int(first, 16), int(last or first, 16) + 1))
    return codes


LEFT_OUT = newer_code_points()


def usable(c: str) -> bool:
    return unicodedata.category(c) not in ("Cn", "Cs") and ord(c) not in LEFT_OUT


@cache
def all_characters() -> list[str]:
    return [c for c in map(chr, range(0x110000)) if usable(c)]


@cache
def english() -> str:
    path = Path(__file__).parents[1] / "data" / "english.txt"
    return path.read_text(encoding="utf-8")


def random_texts(seed: int, count: int = CASES, special: Sequence[str] = ()) -> Iterator[str]:
    """Words, fragments, runs, stretches of one script, and characters of all planes, mixed."""
    rng = random.Random(seed)
    characters, words = all_characters(), english().split(" ")
    assigned = [c for c in characters if unicodedata.category(c) != "Co"]
    for _ in range(count):
        parts: list[str] = []
        for _ in range(rng.randrange(1, 24)):
            kind = rng.random()
            if kind < 0.3:
                parts.append(rng.choice(words))
                parts.append(rng.choice(("", " ", " ")))
            elif kind < 0.65:
                parts.append(rng.choice(FRAGMENTS))
            elif kind < 0.72:
                parts.append(rng.choice(FRAGMENTS) * rng.randrange(1, 12))
            elif kind < 0.82:
                start = rng.randrange(len(assigned))
                parts.extend(rng.choices(assigned[start : start + 60], k=rng.randrange(1, 8)))
            elif kind < 0.9:
                parts.append(rng.choice(assigned))
            elif kind < 0.93 or not special:
                parts.append(rng.choice(characters))
            else:
                name = rng.choice(special)
                parts.append(name if rng.random() < 0.8 else name[: rng.randrange(len(name))])
        yield "".join(parts)


def byte_alphabet() -> list[str]:
    """The character that GPT-2 writes for each byte."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = iter(range(0x100, 0x200))
    return [chr(b) if b in visible else chr(next(hidden)) for b in range(256)]


ALPHABET = byte_alphabet()


def spelled(token: bytes) -> str:
    return "".join(ALPHABET[byte] for byte in token)


def merges_of_ranks(ranks: dict[bytes, int]) -> list[tuple[str, str]]:
    """As converters write a tiktoken vocabulary: every pair of tokens that makes a token."""
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
        pairs = [cut for cut in cuts if cut[0] in ranks and cut[1] in ranks]
        merges += sorted(pairs, key=lambda cut: (ranks[cut[0]], ranks[cut[1]]))
    return [(spelled(a), spelled(b)) for a, b in merges]


def tokenizer_of_ranks(ranks: dict[bytes, int], special: dict[str, int], pre: str) -> Tokenizer:
    tokens = {i: spelled(token) for token, i in ranks.items()} | {i: t for t, i in special.items()}
    size = max(tokens) + 1
    return Tokenizer(
        model="gpt2",
        tokens=[tokens.get(i, f"[PAD{i}]").encode() for i in range(size)],
        types=[
            CONTROL if tokens.get(i) in special else NORMAL if i in tokens else UNUSED
            for i in range(size)
        ],
        merges=[f"{a} {b}".encode() for a, b in merges_of_ranks(ranks)],
        pre=pre,
    )


def file_of_package(package: str, name: str) -> Path | None:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if str(file).endswith(name):
            return Path(str(file.locate()))
    return None


def fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a protobuf message: bytes as they are, all else as an integer."""

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    at = 0
    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or varint()
        value = data[at : at + size]
        at += size
        yield key >> 3, value if key & 7 == 2 else int.from_bytes(value, "little")
