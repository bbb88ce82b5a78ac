"""Every kind of vocabulary against its reference library, on PYLLAMACPP_TEXT_CASES random texts."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import sentencepiece
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from text_cases import (
    ALPHABET,
    CASES,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    english,
    fields,
    file_of_package,
    random_texts,
    tokenizer_of_ranks,
    usable,
)
from tokenizers import AddedToken, Regex, pre_tokenizers

from pyllamacpp._core import Tokenizer

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = CL100K % "{1,3}"
QWEN2 = CL100K % ""
# From the tokenizer.json of deepseek-llm-7b-base, by code points.
DEEPSEEK_LETTERS = """
41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D 37F 386 388-38A
38C 38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD 1C90-1CBA 1CBD-1CBF
1D00-1D2B 1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D
1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4
1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126 2128 212A-212D 212F-2134 2139 213C-213F
2145-2149 214E 2183 2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D A680-A69B A722-A76F
A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3
104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943
"""


def deepseek_letters() -> str:
    ends = ([chr(int(code, 16)) for code in one.split("-")] for one in DEEPSEEK_LETTERS.split())
    return "".join("-".join(end) for end in ends)


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


STEPS: dict[str, list[pre_tokenizers.PreTokenizer]] = {
    "gpt-2": [split(GPT2)],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), split(GPT2)],
    "llama-bpe": [split(LLAMA3)],
    "qwen2": [split(QWEN2)],
    "deepseek-llm": [
        split("[\r\n]"),
        split(rf"\s?[{deepseek_letters()}]+"),
        split("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"),
        split(r"\s+$"),
        split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"),
        pre_tokenizers.Digits(individual_digits=True),
    ],
}


def byte_level(steps: list[pre_tokenizers.PreTokenizer]) -> pre_tokenizers.PreTokenizer:
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*steps, last])


Both = tuple[Tokenizer, tokenizers.Tokenizer]


def both(pre: str, vocab: list[str], merges: list[tuple[str, str]], special: list[str]) -> Both:
    ours = Tokenizer(
        model="gpt2",
        tokens=[token.encode() for token in vocab + special],
        types=[NORMAL] * len(vocab) + [CONTROL] * len(special),
        merges=[f"{a} {b}".encode() for a, b in merges],
        pre=pre,
    )
    theirs = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={token: i for i, token in enumerate(vocab)},
            merges=merges,
            ignore_merges=pre == "llama-bpe",
        )
    )
    theirs.pre_tokenizer = byte_level(STEPS[pre])
    theirs.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    return ours, theirs


@cache
def pairs(pre: str) -> Both:
    """Any two bytes merge, so that a word which ends elsewhere mostly gives other tokens."""
    merges = [(a, b) for a in ALPHABET for b in ALPHABET]
    merges.sort(key=lambda pair: hash((ord(pair[0]) * 7919, ord(pair[1]))))
    return both(pre, ALPHABET + [a + b for a, b in merges], merges, [])


@cache
def trained(pre: str) -> Both:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = byte_level(STEPS[pre])
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=3000, show_progress=False, initial_alphabet=ALPHABET
    )
    made.train_from_iterator([english(), *random_texts(0, 1000)], trainer)
    model = json.loads(made.to_str())["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return both(pre, vocab, [tuple(pair) for pair in model["merges"]], ["<|end|>", "<|x|>y", "<|"])


def compare(ours: Tokenizer, encode: Callable[[str], list[int]], texts: Iterator[str]) -> None:
    for text in texts:
        ids = ours.encode(text.encode(), False, True)
        assert ids == encode(text), ascii(text)
        assert ours.decode(ids, True) == text.encode(), ascii(text)


@pytest.mark.parametrize("pre", STEPS)
@pytest.mark.parametrize("make", [pairs, trained])
def test_pretokenizers(pre: str, make: Callable[[str], Both]) -> None:
    ours, theirs = make(pre)
    texts = random_texts(1, special=["<|end|>", "<|x|>y", "<|"])
    compare(ours, lambda text: theirs.encode(text, add_special_tokens=False).ids, texts)


@pytest.mark.parametrize("pre", STEPS)
def test_small_alphabet(pre: str) -> None:
    ours, theirs = pairs(pre)
    letters = "aSs' \n\r\t1!lé\u017f٣天\u3000👍\uff2b\u212a\u2018ἀ"

    @settings(max_examples=max(1000, CASES // 10), deadline=None)
    @given(st.text(st.sampled_from(letters), max_size=30))
    def same(text: str) -> None:
        assert ours.encode(text.encode(), False, False) == theirs.encode(text).ids

    same()


@pytest.mark.parametrize("pre", STEPS)
def test_every_code_point(pre: str) -> None:
    # Alone, so that its class shows; and in rows, which mix scripts in the order of the planes.
    ours, theirs = pairs(pre)
    codes = [chr(code) for code in range(0x110000)]
    for start in range(0, len(codes), 4096):
        part = [
            c for c in codes[start : start + 4096] if usable(c) and not "\ue000" <= c < "\uf900"
        ]
        for text in ("".join(part), " ".join(part), "".join(f"1 {c} a{c}a" for c in part)):
            assert ours.encode(text.encode(), False, False) == theirs.encode(text).ids


@pytest.mark.parametrize("pre", STEPS)
@pytest.mark.parametrize("unit", ["a", "天", " ", "  é", "\n", "7", "!", "'", "\u3000", "\xff"])
def test_a_megabyte(pre: str, unit: str) -> None:
    # Linear time: a quadratic scan or merge would take hours.
    ours, _ = trained(pre)
    text = (unit * (1_000_000 // len(unit.encode()))).encode()
    if unit == "\xff":
        text = b"\xff\xe5" * 500_000
    for whole in (text, b"x" + text + b"x"):
        assert ours.decode(ours.encode(whole, False, False), False) == whole


def llama3_ranks() -> dict[bytes, int]:
    path = file_of_package("llama-models", "llama3/tokenizer.model")
    assert path is not None
    lines = (line.split() for line in path.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def tekken_ranks() -> dict[bytes, int]:
    path = file_of_package("mistral-common", "tekken_240911.json")
    assert path is not None
    entries = json.loads(path.read_text(encoding="utf-8"))["vocab"]
    return {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in entries}


@pytest.mark.parametrize(
    ("ranks", "pre", "pattern"),
    [
        pytest.param(llama3_ranks, "llama-bpe", LLAMA3, id="llama3"),
        pytest.param(tekken_ranks, "qwen2", QWEN2, id="tekken-vocabulary"),
    ],
)
def test_tiktoken(ranks: Callable[[], dict[bytes, int]], pre: str, pattern: str) -> None:
    table = ranks()
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|python_tag|>"]
    special = {name: len(table) + i for i, name in enumerate(names)}
    reference = tiktoken.Encoding(
        "x", pat_str=pattern, mergeable_ranks=table, special_tokens=special
    )
    ours = tokenizer_of_ranks(table, special, pre)
    assert ours.ends_generation(special["<|eot_id|>"])
    compare(
        ours,
        lambda text: reference.encode(text, allowed_special="all"),
        random_texts(2, special=names),
    )


@settings(max_examples=max(300, CASES // 10), deadline=None)
@given(pre=st.sampled_from(list(STEPS)), data=st.binary(max_size=100), special=st.booleans())
def test_any_bytes_come_back(pre: str, data: bytes, special: bool) -> None:
    ours, _ = trained(pre)
    assert ours.decode(ours.encode(data, False, special), True) == data


def spm_of(model: bytes, **changes: object) -> Tokenizer:
    """A tokenizer of a sentencepiece model file (its sentencepiece_model.proto)."""
    tokens: list[bytes] = []
    scores: list[float] = []
    types: list[int] = []
    prefix = True
    for number, value in fields(model):
        assert isinstance(value, bytes)
        if number == 1:
            piece = dict(fields(value))
            text, kind = piece[1], piece.get(3, NORMAL)
            assert isinstance(text, bytes)
            assert isinstance(kind, int)
            tokens.append(text)
            score = piece.get(2, 0)
            assert isinstance(score, int)
            scores.append(struct.unpack("<f", score.to_bytes(4, "little"))[0])
            types.append(kind)
        elif number == 3:  # normalizer_spec: 3 is add_dummy_prefix
            prefix = bool(dict(fields(value)).get(3, 1))
    arguments = {
        "model": "llama",
        "tokens": tokens,
        "scores": scores,
        "types": types,
        "unknown": types.index(UNKNOWN),
        "add_space_prefix": prefix,
    }
    return Tokenizer(**(arguments | changes))


def train(**options: object) -> bytes:
    out = io.BytesIO()
    lines = [line for line in english().splitlines() if line][:500]
    lines += [text[:200] for text in random_texts(3, 500) if "\x00" not in text]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in lines for line in text.split("\n")]),
        model_writer=out,
        model_type="bpe",
        vocab_size=2500,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        character_coverage=0.98,
        minloglevel=2,
        **options,
    )
    return out.getvalue()


SYMBOLS = ["<tok>", "<tokx>", "[a]", "天地", "\u2581\u2581", "\u2581\u2581\u2581\u2581"]


def compare_spm(model: bytes, seed: int) -> None:
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    ours = spm_of(model)
    for text in random_texts(seed, special=["<tok>", "<tokx>", "[a]", "天地", "    ", "</s>"]):
        ids = ours.encode(text.encode(), False, False)
        assert ids == reference.encode(text), ascii(text)


@pytest.mark.parametrize("prefix", [True, False])
@pytest.mark.parametrize("fallback", [True, False])
@pytest.mark.parametrize("symbols", [[], SYMBOLS])
def test_sentencepiece(prefix: bool, fallback: bool, symbols: list[str]) -> None:
    model = train(add_dummy_prefix=prefix, byte_fallback=fallback, user_defined_symbols=symbols)
    compare_spm(model, 4)


@pytest.mark.parametrize("name", ["tokenizer.model.v1", ".model.v2", ".model.v3", ".model.v7"])
def test_mistral(name: str) -> None:
    path = file_of_package("mistral-common", name)
    assert path is not None
    compare_spm(path.read_bytes(), 5)


def field(number: int, value: bytes) -> bytes:
    size = bytes([len(value) & 0x7F | 0x80, len(value) >> 7 & 0x7F | 0x80, len(value) >> 14])
    return bytes([number << 3 | 2]) + size + value


def with_unused(model: bytes) -> bytes:
    """Every third piece of more than one character made unused: of two types the last counts."""
    out = b""
    for i, (number, value) in enumerate(fields(model)):
        assert isinstance(value, bytes)
        if number == 1 and i % 3 == 0:
            piece = dict(fields(value))
            text = piece[1]
            assert isinstance(text, bytes)
            if piece.get(3, NORMAL) == NORMAL and len(text.decode()) > 1:
                out += field(number, value + b"\x18" + bytes([UNUSED]))
                continue
        out += field(number, value)
    return out


def test_unused_pieces() -> None:
    model = with_unused(train(byte_fallback=True))
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert sum(map(reference.is_unused, range(reference.get_piece_size()))) > 100
    compare_spm(model, 6)
