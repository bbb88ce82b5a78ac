"""Vocabularies that no sane file holds: a sentence, or a tokenizer that works."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyllamacpp._core import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def spm(**changes: Any) -> Tokenizer:
    arguments: dict[str, Any] = {
        "model": "llama",
        "tokens": [b"<unk>", b"a", b"b"],
        "scores": [0.0, -1.0, -2.0],
        "types": [UNKNOWN, NORMAL, NORMAL],
        "unknown": 0,
    }
    return Tokenizer(**(arguments | changes))


def bpe(**changes: Any) -> Tokenizer:
    arguments: dict[str, Any] = {
        "model": "gpt2",
        "tokens": [b"a", b"b", b"ab"],
        "types": [NORMAL] * 3,
        "merges": [b"a b"],
        "pre": "smollm",
    }
    return Tokenizer(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tokens": [], "scores": [], "types": []}, "has no tokens"),
        ({"scores": [0.0]}, "3 tokens but 1 scores"),
        ({"types": [NORMAL]}, "3 tokens but 1 token types"),
        ({"types": [NORMAL, NORMAL, 77]}, "token 2 .* unknown type 77"),
        ({"types": [NORMAL, NORMAL, -1]}, "token 2 .* unknown type -1"),
        ({"scores": [0.0, float("nan"), 0.0]}, "score of token 1"),
        ({"types": [UNKNOWN, NORMAL, BYTE]}, "token 2 .* not written as"),
        ({"unknown": None}, "neither a token for each byte nor an unknown token"),
        ({"unknown": 3}, "unknown token is 3, but it has 3 tokens"),
        ({"bos": -1}, "bos token is -1"),
        ({"eos": 2**31 - 1}, "eos token is 2147483647"),
        ({"model": "wordpiece"}, "model 'wordpiece' .* supported are llama, gpt2"),
    ],
)
def test_refused_spm(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Exception, match=sentence):
        spm(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tokens": [], "types": []}, "has no tokens"),
        ({"merges": [b"ab"]}, "merge 0 .* not two tokens"),
        ({"merges": [b"a b", b"a c"]}, "merge 1 .*'a c'.* not a token"),
        ({"merges": [b"b a"]}, "merge 0 .*'b a'.* not a token"),
        ({"merges": [b"a \xff"]}, "merge 0 .* not a token"),
        ({"merges": [b" "]}, "merge 0 .* not a token"),
        ({"pre": "qwen9"}, "pre-tokenizer 'qwen9' .* supported are .*gpt-2.*smollm.*llama-bpe"),
    ],
)
def test_refused_bpe(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Exception, match=sentence):
        bpe(**changes)


def test_the_first_of_equal_tokens_counts() -> None:
    assert spm(tokens=[b"<unk>", b"a", b"a"], add_space_prefix=False).encode(
        b"a", False, False
    ) == [1]
    twice = bpe(tokens=[b"a", b"b", b"ab", b"ab"], types=[NORMAL] * 4, merges=[b"a b"] * 3)
    assert twice.encode(b"ab", False, False) == [2]


@pytest.mark.parametrize("token", [-1, 3, 2**31 - 1])
def test_ids_out_of_range(token: int) -> None:
    for tokenizer in (spm(), bpe()):
        with pytest.raises(Exception, match=f"token {token} is not in the vocabulary of 3 tokens"):
            tokenizer.piece(token, False)
        with pytest.raises(Exception, match=f"token {token} is not in the vocabulary of 3 tokens"):
            tokenizer.decode([0, token], False)
        assert not tokenizer.ends_generation(token)


def test_empty_tokens() -> None:
    tokenizer = spm(tokens=[b"<unk>", b"", b""], types=[UNKNOWN, USER_DEFINED, NORMAL])
    assert tokenizer.encode(b"xy", False, True) == [0]
    assert tokenizer.piece(1, True) == b""


WORDS = st.sampled_from([b"", b"a", b"b", b"ab", b"<0x41>", b"\xe2\x96\x81", b"\xff", b" ", b"a b"])


@settings(max_examples=500, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.one_of(WORDS, st.binary(max_size=5)), st.integers(0, 6), st.floats(width=32))
    ),
    merges=st.lists(st.one_of(st.sampled_from([b"a b", b" ", b"a a"]), st.binary(max_size=5))),
    model=st.sampled_from(["llama", "gpt2"]),
    unknown=st.one_of(st.none(), st.integers(-2, 5)),
    text=st.one_of(st.binary(), st.lists(WORDS).map(b"".join)),
)
def test_any_vocabulary(
    rows: list[tuple[bytes, int, float]],
    merges: list[bytes],
    model: str,
    unknown: int | None,
    text: bytes,
) -> None:
    try:
        tokenizer = Tokenizer(
            model=model,
            tokens=[row[0] for row in rows],
            types=[row[1] for row in rows],
            scores=[row[2] for row in rows],
            merges=merges,
            pre="llama-bpe",
            unknown=unknown,
        )
    except Exception as error:
        if "vocabulary" in str(error):
            return
        raise
    for special in (False, True):
        ids = tokenizer.encode(text, True, special)
        assert all(0 <= i < len(rows) for i in ids)
        tokenizer.decode(ids, special)
