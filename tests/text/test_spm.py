"""SentencePiece-style BPE against the sentencepiece package."""

from __future__ import annotations

import importlib.metadata
import io

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from pyllamacpp._core import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "\t\n  \n",
    "Hello world",
    " Hello  world ",
    "hello\nworld\r\n",
    "The quick brown fox jumps over 13 lazy dogs, doesn't it?",
    "нещо на Български",
    "កាន់តែពិសេសអាចខលចេញ",
    "我想在apple工作1314151天\uff5e",
    "🚀 (normal) 😶‍🌫️ (joined) ✅",
    "\x00\x01\x7f",
    "\ufeff\u200b\u2028\u00a0x",
    "def f(x):\n    return x  # \u2581 is a space here",
    "\U0010ffff\ue000\ufffd",
    "<s> </s> <unk> <0x41>",
    "a" * 5000,
    " " * 5000,
    "=-" * 2000,
]


def build(model: sentencepiece.SentencePieceProcessor, **changes: object) -> Tokenizer:
    types = []
    for i in range(model.get_piece_size()):
        if model.is_unknown(i):
            types.append(UNKNOWN)
        elif model.is_control(i):
            types.append(CONTROL)
        elif model.is_byte(i):
            types.append(BYTE)
        elif model.is_unused(i):
            types.append(UNUSED)
        else:
            types.append(NORMAL)
    arguments = {
        "model": "llama",
        "tokens": [model.id_to_piece(i).encode() for i in range(len(types))],
        "scores": [model.get_score(i) for i in range(len(types))],
        "types": types,
        "bos": model.bos_id(),
        "eos": model.eos_id(),
        "unknown": model.unk_id(),
        "add_bos": True,
        "add_space_prefix": True,
    }
    return Tokenizer(**(arguments | changes))


@pytest.fixture(scope="module")
def reference() -> sentencepiece.SentencePieceProcessor:
    # A LLaMA-family vocabulary of 32000 pieces that the package index carries.
    for file in importlib.metadata.files("mistral-common") or []:
        if file.name == "tokenizer.model.v1":
            return sentencepiece.SentencePieceProcessor(model_file=str(file.locate()))
    raise AssertionError("mistral-common no longer holds tokenizer.model.v1")


@pytest.fixture(scope="module")
def tokenizer(reference: sentencepiece.SentencePieceProcessor) -> Tokenizer:
    return build(reference)


def train(**options: object) -> sentencepiece.SentencePieceProcessor:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["hello world abc abc <tok> hello yellow  fellow"] * 50),
        model_writer=out,
        model_type="bpe",
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


@pytest.mark.parametrize("text", TEXTS)
def test_fixed_texts(
    text: str, reference: sentencepiece.SentencePieceProcessor, tokenizer: Tokenizer
) -> None:
    ids = tokenizer.encode(text.encode(), False, False)
    assert ids == reference.encode(text)
    assert tokenizer.decode(ids, False) == text.replace("\u2581", " ").encode()


def test_random_text(reference: sentencepiece.SentencePieceProcessor, tokenizer: Tokenizer) -> None:
    words = st.sampled_from([" ", "  ", "\n", "the", "ing", "é", "天", "\u0301", "\u2581", "👍🏽"])

    @settings(max_examples=500, deadline=None)
    @given(st.one_of(st.text(), st.lists(st.one_of(words, st.characters())).map("".join)))
    def compare(text: str) -> None:
        # sentencepiece drops nothing but the surrogates, which are not text.
        if any("\ud800" <= c <= "\udfff" for c in text):
            return
        ids = tokenizer.encode(text.encode(), False, False)
        assert ids == reference.encode(text)
        assert tokenizer.decode(ids, False).decode() == reference.decode(ids)

    compare()


@settings(max_examples=500, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_come_back(data: bytes) -> None:
    # U+2581 is how this kind of vocabulary spells a space: the one text that changes.
    if b"\xe2\x96\x81" in data:
        return
    tokenizer = bytes_only()
    assert tokenizer.decode(tokenizer.encode(data, False, False), False) == data


def bytes_only(**changes: object) -> Tokenizer:
    words = [b"<unk>", b"<s>", b"</s>", b"\xe2\x96\x81", b"ab", b"a", b"b", "é".encode()]
    arguments = {
        "model": "llama",
        "tokens": words + [b"<0x%02X>" % i for i in range(256)],
        "scores": [0.0, 0.0, 0.0, -3.0, -1.0, -3.0, -3.0, -3.0] + [0.0] * 256,
        "types": [UNKNOWN, CONTROL, CONTROL] + [NORMAL] * 5 + [BYTE] * 256,
        "bos": 1,
        "eos": 2,
        "unknown": 0,
        "add_bos": True,
        "add_space_prefix": True,
    }
    return Tokenizer(**(arguments | changes))


def test_byte_fallback_and_pieces() -> None:
    tokenizer = bytes_only()
    assert tokenizer.size == 264
    assert tokenizer.encode("ab~é".encode(), False, False) == [3, 4, 8 + 0x7E, 7]
    assert tokenizer.encode(b"\xff", False, False) == [3, 8 + 0xFF]
    assert tokenizer.encode("天".encode(), False, False) == [3, 8 + 0xE5, 8 + 0xA4, 8 + 0xA9]
    assert tokenizer.piece(3, False) == b" "
    assert tokenizer.piece(8 + 0xE5, False) == b"\xe5"
    assert tokenizer.piece(1, False) == b""
    assert tokenizer.piece(1, True) == b"<s>"
    assert tokenizer.ends_generation(2)
    assert not tokenizer.ends_generation(1)


def test_space_prefix() -> None:
    with_prefix, without = bytes_only(), bytes_only(add_space_prefix=False)
    assert with_prefix.encode(b"", True, False) == [1]
    assert with_prefix.encode(b"ab", True, False) == [1, 3, 4]
    assert without.encode(b"ab", True, False) == [1, 4]
    assert with_prefix.encode(b"ab</s>ab", False, True) == [3, 4, 2, 3, 4]
    assert with_prefix.encode(b"</s>", False, True) == [2]
    # One space is taken off, at the start only, past control tokens.
    assert with_prefix.decode([1, 3, 3, 4, 3, 4], False) == b" ab ab"
    assert without.decode([3, 4], False) == b" ab"
    assert with_prefix.decode([1, 3, 4, 2], True) == b"<s>ab</s>"


def test_special_text_is_text_unless_asked_for(tokenizer: Tokenizer) -> None:
    assert 2 not in tokenizer.encode(b"a</s>b", False, False)
    assert 2 in tokenizer.encode(b"a</s>b", False, True)


def test_runs_of_unknown_characters_are_one_token() -> None:
    reference = train(vocab_size=60, character_coverage=1.0)
    tokenizer = build(reference)
    for text in ["天", "天地", "hello 天地 world", "天 地", "~hello~~~"]:
        assert tokenizer.encode(text.encode(), False, False) == reference.encode(text)


def test_user_defined_tokens_are_matched_always() -> None:
    reference = train(
        vocab_size=320, byte_fallback=True, user_defined_symbols=["<tok>", "<tokx>", "[a]"]
    )
    types = [
        USER_DEFINED if reference.id_to_piece(i) in ("<tok>", "<tokx>", "[a]") else NORMAL
        for i in range(reference.get_piece_size())
    ]
    types[:3] = [UNKNOWN, CONTROL, CONTROL]
    types = [BYTE if reference.is_byte(i) else kind for i, kind in enumerate(types)]
    tokenizer = build(reference, types=types)
    symbols = st.sampled_from(["<tok>", "<tokx>", "[a]", "<to", "hello", " ", "a", "<", "~"])

    @settings(max_examples=300, deadline=None)
    @given(st.lists(symbols).map("".join))
    def compare(text: str) -> None:
        ids = tokenizer.encode(text.encode(), False, False)
        assert ids == reference.encode(text)
        assert tokenizer.decode(ids, False) == text.encode()

    compare()


def phi3(**changes: object) -> Tokenizer:
    """The special tokens of Phi-3, all but the first of which take the white space after them."""
    words = [b"<unk>", b"<s>", b"</s>", b"\xe2\x96\x81", b"ab"]
    names = [b"<|endoftext|>", b"<|assistant|>", b"<|placeholder1|>", b"<|system|>", b"<|end|>"]
    special = [*names, b"<|user|>"]
    arguments = {
        "model": "llama",
        "tokens": words + special + [b"<0x%02X>" % i for i in range(256)],
        "scores": [0.0] * (len(words) + len(special) + 256),
        "types": [UNKNOWN, CONTROL, CONTROL, NORMAL, NORMAL]
        + [CONTROL] * len(special)
        + [BYTE] * 256,
        "bos": 1,
        "eos": 2,
        "unknown": 0,
    }
    return Tokenizer(**(arguments | changes))


def test_white_space_after_the_special_tokens_of_phi3() -> None:
    tokenizer = phi3(add_space_prefix=False)
    b, newline = (11 + c for c in b"b\n")
    text = "<|user|>\n ab<|end|> \u3000\r\n<|assistant|>\n".encode()
    assert tokenizer.encode(text, False, True) == [10, 4, 9, 6]
    for kept in (b"<s>", b"<|endoftext|>"):
        assert tokenizer.encode(kept + b"\nb", False, True)[1:] == [newline, b]
    assert tokenizer.encode(b"</s>\nb", False, True) == [2, b]
    assert newline in tokenizer.encode(text, False, False)
    # The prefix is put before what is left.
    assert phi3().encode(b"<|user|>\nb", False, True) == [10, 3, b]
    # The names alone do not make a vocabulary Phi-3's.
    others = [b"<|x|>" if i == 7 else phi3().piece(i, True) for i in range(11)]
    others += [b"<0x%02X>" % i for i in range(256)]
    others[3] = b"\xe2\x96\x81"
    assert newline in phi3(tokens=others).encode(b"<|user|>\nb", False, True)


def test_the_prefix_can_be_part_of_a_user_defined_token() -> None:
    tokens = [b"<unk>", b"<s>", b"\xe2\x96\x81", b"\xe2\x96\x81\xe2\x96\x81", b"a"]
    tokenizer = Tokenizer(
        model="llama",
        tokens=tokens,
        scores=[0.0] * 5,
        types=[UNKNOWN, CONTROL, NORMAL, USER_DEFINED, NORMAL],
        unknown=0,
    )
    assert tokenizer.encode(b" a", False, False) == [3, 4]
    assert tokenizer.encode(b"  a", False, False) == [3, 2, 4]
    assert tokenizer.encode("\u2581a \u2581a".encode(), False, False) == [3, 4, 3, 4]
    assert tokenizer.encode(b"<s> a<s>a", False, True) == [1, 3, 4, 1, 2, 4]
    assert tokenizer.decode([3, 4], False) == b" a"


def test_equal_scores_merge_from_the_left() -> None:
    tokens = [b"<unk>", b"a", b"aa", b"ab", b"b"]
    tokenizer = Tokenizer(
        model="llama",
        tokens=tokens,
        scores=[0.0, -9.0, -1.0, -1.0, -9.0],
        types=[UNKNOWN] + [NORMAL] * 4,
        unknown=0,
        add_space_prefix=False,
    )
    assert tokenizer.encode(b"aaa", False, False) == [2, 1]
    assert tokenizer.encode(b"aab", False, False) == [2, 4]
    assert tokenizer.encode(b"aaab", False, False) == [2, 3]


def test_a_word_of_a_megabyte(tokenizer: Tokenizer) -> None:
    for unit in [b"a", b"ab", "天".encode(), b"\xff"]:
        text = unit * (1_000_000 // len(unit))
        assert tokenizer.decode(tokenizer.encode(text, False, False), False) == text
