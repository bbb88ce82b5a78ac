"""Byte-level BPE against the tokenizers package, with the vocabulary of the default model."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from pyllamacpp._core import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = range(1, 5)

# Assigned since Unicode 15. Our tables are of Unicode 16, those of the tokenizers package of the
# version that its release happened to be built with: for these code points, and for those that no
# version known here assigns, either may see a letter or a digit where the other sees none.
NEWER = """
897 1B4E-1B4F 1B7F 1C89-1C8A 2427-2429 2FFC-2FFF 31E4-31E5 31EF A7CB-A7CD A7DA-A7DC 105C0-105F3
10D40-10D65 10D69-10D85 10D8E-10D8F 10EC2-10EC4 10EFC 11380-11389 1138B 1138E 11390-113B5
113B7-113C0 113C2 113C5 113C7-113CA 113CC-113D5 113D7-113D8 113E1-113E2 116D0-116E3 11BC0-11BE1
11BF0-11BF9 11F5A 13460-143FA 16100-16139 16D40-16D79 18CFF 1CC00-1CCF9 1CD00-1CEB3 1E5D0-1E5FA
1E5FF 1F8B2-1F8BB 1F8C0-1F8C1 1FA89 1FA8F 1FABE 1FAC6 1FADC 1FADF 1FAE9 1FBCB-1FBEF 2EBF0-2EE5D
"""


def newer_code_points() -> set[int]:
    codes: set[int] = set()
    for entry in NEWER.split():
        first, _, last = entry.partition("-")
        codes.update(range(int(first, 16), int(last or first, 16) + 1))
    return codes


LEFT_OUT = newer_code_points()


def usable(c: str) -> bool:
    return unicodedata.category(c) not in ("Cn", "Cs") and ord(c) not in LEFT_OUT


CHARACTERS = st.characters(exclude_categories=("Cn", "Cs")).filter(usable)
FRAGMENTS = st.sampled_from(
    [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\x85", "\x1c", "\u200b", "1",
     "42", "٣", "Ⅷ", "½", "²", "\u09ea", "'s", "'S", "'ll", "'re", "'", "the", "Straße", "ñ",
     "n\u0303", "天", "한글", "कि", "👩‍👩‍👧", "🇩🇪", "!", "...", "=>", "_", "\ufffd"]
)  # fmt: skip
TEXT = st.one_of(
    st.lists(FRAGMENTS).map("".join),
    st.lists(st.one_of(FRAGMENTS, CHARACTERS)).map("".join),
    st.text(CHARACTERS),
)

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_alphabet() -> list[str]:
    """The character that GPT-2 writes for each byte."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = iter(range(0x100, 0x200))
    return [chr(b) if b in visible else chr(next(hidden)) for b in range(256)]


ALPHABET = byte_alphabet()


def same(ours: Tokenizer, theirs: tokenizers.Tokenizer, text: str) -> None:
    expected = theirs.encode(text, add_special_tokens=False).ids
    assert ours.encode(text.encode(), False, False) == expected


@pytest.fixture(scope="module")
def ours(default_model: Path) -> Tokenizer:
    return Tokenizer.from_gguf(str(default_model))


@pytest.fixture(scope="module")
def theirs(default_model: Path) -> tokenizers.Tokenizer:
    fields = gguf.GGUFReader(default_model).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    vocab = {token: i for i, token in enumerate(tokens)}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return made


def test_random_text(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    @settings(max_examples=1000, deadline=None)
    @given(TEXT)
    def compare(text: str) -> None:
        same(ours, theirs, text)

    compare()


def test_every_plane(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    # Every assigned code point once, in an order that mixes scripts, with and without spaces.
    codes = [c for c in map(chr, range(0x110000)) if usable(c) and not 0xE000 <= ord(c) <= 0xF8FF]
    random.Random(1).shuffle(codes)
    for start in range(0, len(codes), 5000):
        part = codes[start : start + 5000]
        same(ours, theirs, "".join(part))
        same(ours, theirs, " ".join(part))


@pytest.mark.parametrize(
    "text",
    ["", " ", "a" * 1_000_000, "ab" * 500_000, "天地" * 100_000, " " * 300_000, "\n" * 300_000,
     "7" * 100_000, "!" * 300_000, "'" * 100_000, "<|im_end|>" * 1000],
    ids=lambda text: f"{text[:10]!r}*{len(text)}",
)  # fmt: skip
def test_long_runs(ours: Tokenizer, theirs: tokenizers.Tokenizer, text: str) -> None:
    same(ours, theirs, text)


def test_special_tokens(ours: Tokenizer) -> None:
    end = ours.encode(b"<|im_end|>", False, True)
    assert len(end) == 1
    assert ours.ends_generation(end[0])
    assert ours.piece(end[0], True) == b"<|im_end|>"
    assert ours.piece(end[0], False) == b""
    text = b"a<|im_start|>b<|im_end|>"
    assert ours.decode(ours.encode(text, False, True), True) == text
    assert ours.decode(ours.encode(text, False, True), False) == b"ab"
    assert end[0] not in ours.encode(text, False, False)
    assert ours.decode(ours.encode(text, False, False), False) == text


def small(**changes: object) -> Tokenizer:
    """All bytes, five words, one control token and two that a user defined."""
    words = ["Ġa", "Ġab", "ab", "'s", "12"]
    tokens = [*ALPHABET, *words, "<|end|>", "<u>", "<u>!"]
    arguments = {
        "model": "gpt2",
        "tokens": [t.encode() for t in tokens],
        "types": [NORMAL] * (256 + len(words)) + [CONTROL, USER_DEFINED, USER_DEFINED],
        "merges": ["Ġ a".encode(), "Ġa b".encode(), b"a b", b"' s", b"1 2"],
        "pre": "gpt-2",
    }
    return Tokenizer(**(arguments | changes))


@settings(max_examples=500, deadline=None)
@given(data=st.binary(max_size=200), pre=st.sampled_from(["gpt-2", "smollm", "llama-bpe"]))
def test_any_bytes_come_back(data: bytes, pre: str) -> None:
    tokenizer = small(pre=pre)
    assert tokenizer.decode(tokenizer.encode(data, False, False), False) == data


def test_the_longest_special_token_wins() -> None:
    tokenizer = small()
    rest = tokenizer.encode(b"<u", False, False)
    assert tokenizer.encode(b"<u>!<u><u", False, False) == [263, 262, *rest]
    assert tokenizer.encode(b"<|end|>", False, True) == [261]
    assert tokenizer.ends_generation(261)


def splitter(pattern: str, digits: bool) -> Callable[[str], list[str]]:
    steps = [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")]
    if digits:
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    sequence = pre_tokenizers.Sequence(steps)
    return lambda text: [word for word, _ in sequence.pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("name", "pattern", "digits"),
    [("gpt-2", GPT2, False), ("smollm", GPT2, True), ("llama-bpe", LLAMA3, False)],
)
def test_words(name: str, pattern: str, digits: bool) -> None:
    """The scanners against their patterns, run by the regular expressions of tokenizers.

    In this vocabulary any two letters of a small alphabet merge, so that a word that ends elsewhere
    gives other tokens.
    """
    split = splitter(pattern, digits)
    letters = ["a", "S", "s", "'", " ", "\n", "1", "!", "l"]
    spell = {c: ALPHABET[ord(c)] for c in letters}
    pairs = [(x, y) for x in letters for y in letters]
    tokens = ALPHABET + [spell[x] + spell[y] for x, y in pairs]
    tokenizer = Tokenizer(
        model="gpt2",
        tokens=[t.encode() for t in tokens],
        types=[NORMAL] * len(tokens),
        merges=[f"{spell[x]} {spell[y]}".encode() for x, y in pairs],
        pre=name,
    )
    reference = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={t: i for i, t in enumerate(tokens)},
            merges=[(spell[x], spell[y]) for x, y in pairs],
        )
    )

    @settings(max_examples=1500, deadline=None)
    @given(
        st.text(st.sampled_from([*letters, "\r", "\t", "é", "\u017f", "٣", "天", "\u3000", "👍"]))
    )
    def compare(text: str) -> None:
        expected = []
        for word in split(text):
            spelled = "".join(ALPHABET[b] for b in word.encode())
            expected += reference.encode(spelled, add_special_tokens=False).ids
        assert tokenizer.encode(text.encode(), False, False) == expected

    compare()
