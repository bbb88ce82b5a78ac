"""Strings that may not come, against a search through the whole vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyllamacpp import Llama, _core
from pyllamacpp.banned import BannedStrings
from pyllamacpp.errors import InvalidArgumentError, UnsupportedError

PROMPT = "The capital of France is"
TEXTS = st.text(alphabet="ab é.", min_size=1, max_size=4)


def text(llm: Llama, **arguments: Any) -> str:
    options = {"max_tokens": 20, "temperature": 0.0, **arguments}
    return llm(PROMPT, **options)["choices"][0]["text"]


@pytest.fixture(scope="module")
def vocabulary(default_model: Path) -> _core.Model:
    return _core.Model(str(default_model), vocab_only=True)


@settings(max_examples=20, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3), st.text(alphabet="ab é.", max_size=6))
def test_those_that_would_complete_one(
    vocabulary: _core.Model, strings: list[str], before: str
) -> None:
    tail = before.encode()
    whole = [string.encode() for string in strings]
    banned = BannedStrings(strings, vocabulary)
    tail = tail[len(tail) - min(banned.n_kept, len(tail)) :]
    tokenizer = vocabulary.tokenizer
    there = {token for token in range(tokenizer.size) if tokenizer.piece(token, False)}
    expected = set()
    for token in there:
        joined = tail + tokenizer.piece(token, False)
        # Found where it ends inside the new piece.
        if any(joined.find(s, max(0, len(tail) - len(s) + 1)) >= 0 for s in whole):
            expected.add(token)
    assert set(banned.completing(tail)) == expected


def test_a_text_goes_on_without_them(llm: Llama) -> None:
    plain = text(llm)
    word, across = plain.split()[0], plain[3:9]
    assert len(llm.tokenize(across.encode(), add_bos=False)) > 1
    for strings in ([word], [across], [word, across, "never there"]):
        found = text(llm, banned_strings=strings)
        assert found
        assert not any(string in found for string in strings)
        pieces = llm(PROMPT, max_tokens=20, temperature=0, banned_strings=strings, stream=True)
        assert "".join(piece["choices"][0]["text"] for piece in pieces) == found
    assert text(llm, banned_strings=["never there"]) == plain
    assert text(llm, banned_strings=[]) == plain
    both = llm([PROMPT] * 2, n=2, max_tokens=20, banned_strings=["a"], temperature=1.0, seed=1)
    assert not any("a" in choice["text"] for choice in both["choices"])
    ids = llm.generate(llm.tokenize(PROMPT.encode()), temp=0.0, banned_strings=[word])
    assert word not in llm.detokenize([next(ids) for _ in range(8)]).decode()
    ids.close()
    said = [{"role": "user", "content": "Name the capital of France."}]
    answer = llm.create_chat_completion(
        said, banned_strings=["Paris"], temperature=0.0, max_tokens=16
    )
    assert "Paris" not in answer["choices"][0]["message"]["content"]


def test_beside_a_grammar(llm: Llama) -> None:
    for seed in range(3):
        options = {"regex": "[ab]{6}", "banned_strings": ["ab"], "temperature": 1.0, "seed": seed}
        found = text(llm, **options)
        assert found == "b" * found.count("b") + "a" * found.count("a")
        assert len(found) == 6
    with pytest.raises(InvalidArgumentError, match="no token"):
        text(llm, grammar='root ::= "yes" | "no"', banned_strings=["yes", "no"])


@pytest.mark.parametrize("wrong", ["word", [""], [3], ["a", None], 3])
def test_what_is_no_list_of_strings(llm: Llama, wrong: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="banned_strings must be a list"):
        text(llm, banned_strings=wrong)


def test_where_there_is_no_text(default_model: Path) -> None:
    with Llama(str(default_model), n_ctx=64, verbose=False) as llm:
        llm.eval(llm.tokenize(PROMPT.encode()))
        with pytest.raises(UnsupportedError, match=r"sample.. takes no banned_strings"):
            llm.sample(banned_strings=["a"])
        with pytest.raises(UnsupportedError, match=r"sample.. takes no n"):
            llm.sample(n=2)
        with pytest.raises(UnsupportedError, match=r"generate.. makes one text"):
            next(llm.generate([1], n=2))
        # A time limit ends it after a token; what a text must be ends it, too.
        assert len(list(llm.generate([1], time_limit=0))) == 1
        ids = list(llm.generate(llm.tokenize(PROMPT.encode()), regex="ab|cd"))
        assert llm.detokenize(ids) in (b"ab", b"cd")
