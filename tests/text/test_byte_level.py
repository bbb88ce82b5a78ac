"""Byte-level BPE against the tokenizers package, with the vocabulary of the default model."""

from __future__ import annotations

import random
from pathlib import Path

import gguf
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from text_cases import ALPHABET, CASES, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, random_texts, usable
from tokenizers import AddedToken, pre_tokenizers

from pyllamacpp._core import Tokenizer

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


def test_mixed_text(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    names = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    theirs = tokenizers.Tokenizer.from_str(theirs.to_str())
    theirs.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    for text in random_texts(7, CASES, names):
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text.encode(), False, True) == expected, ascii(text)


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


def test_an_absent_pretokenizer_is_told_by_the_vocabulary() -> None:
    def numbers(size: int, name: str, pre: str) -> list[int]:
        spelled = [*ALPHABET, "12", "123", "1234"]
        tokens = [*spelled, name, *(f"[PAD{i}]" for i in range(size - len(spelled) - 1))]
        tokenizer = Tokenizer(
            model="gpt2",
            tokens=[token.encode() for token in tokens],
            types=[NORMAL] * len(spelled) + [CONTROL] * (size - len(spelled)),
            merges=[b"1 2", b"12 3", b"123 4"],
            pre=pre,
        )
        return tokenizer.encode(b"1234", False, False)

    digits = [ALPHABET.index(c) for c in "1234"]
    for pre in ("", "default"):
        assert numbers(128256, "<|begin_of_text|>", pre) == [257, digits[3]]
        assert numbers(151936, "<|im_start|>", pre) == digits
        assert numbers(102400, "<\uff5cbegin▁of▁sentence\uff5c>", pre) == digits
        assert numbers(102400, "<|begin_of_text|>", pre) == [258]
        assert numbers(300, "<|im_start|>", pre) == [258]
    assert numbers(151936, "<|im_start|>", "gpt-2") == [258]


END_NAMES = [
    "</s>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>", "<|end|>",
    "<end_of_turn>", "<|end_of_turn|>", "<EOT>", "<\uff5cend▁of▁sentence\uff5c>",
]  # fmt: skip


@pytest.mark.parametrize("name", END_NAMES)
def test_tokens_that_end_a_generation(name: str) -> None:
    def ends(kind: int) -> bool:
        tokens = [*ALPHABET, name, "<|other|>"]
        tokenizer = small(
            tokens=[t.encode() for t in tokens], types=[NORMAL] * 256 + [kind, kind], merges=[]
        )
        assert not tokenizer.ends_generation(257)
        return tokenizer.ends_generation(256)

    assert ends(CONTROL)
    assert ends(USER_DEFINED)
    assert not ends(NORMAL)
    spm = Tokenizer(
        model="llama",
        tokens=[b"<unk>", name.encode(), b"x"],
        scores=[0.0] * 3,
        types=[UNKNOWN, CONTROL, NORMAL],
        unknown=0,
    )
    assert [spm.ends_generation(i) for i in range(-1, 4)] == [False, False, True, False, False]


def test_the_stated_end_ends_whatever_its_name() -> None:
    assert small(eos=5).ends_generation(5)
    assert not small(eos=5).ends_generation(6)
