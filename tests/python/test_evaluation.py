"""tokenize, detokenize, eval, scores, generate and the small accessors."""

import itertools

import numpy as np
import pytest

from pyllamacpp import Llama
from pyllamacpp.errors import ContextFullError, InvalidArgumentError

FRANCE = b"The capital of France is"


def test_tokenize_and_back(llm: Llama) -> None:
    for text in (b"Hello, world!", "naïve ☺ 日本".encode(), b"cut \xc3 short", b""):
        assert llm.detokenize(llm.tokenize(text)) == text


def test_special_tokens_only_when_asked(llm: Llama) -> None:
    text = b"<|im_start|>"
    assert llm.tokenize(text, special=True) == [llm.token_bos()]
    plain = llm.tokenize(text)
    assert len(plain) > 1
    assert llm.detokenize(plain) == text
    assert llm.detokenize([llm.token_bos()]) == b""
    assert llm.detokenize([llm.token_bos()], special=True) == text


def test_detokenize_after_previous_tokens(llm: Llama) -> None:
    ids = llm.tokenize("Hello wörld ☺ again".encode())
    pieces = [llm.detokenize([token], prev_tokens=ids[:i]) for i, token in enumerate(ids)]
    assert b"".join(pieces) == llm.detokenize(ids)


def test_accessors(llm: Llama) -> None:
    assert llm.n_ctx() == 1024
    assert llm.n_vocab() == 49152
    assert llm.n_embd() == 576
    assert (llm.token_bos(), llm.token_eos()) == (1, 2)
    assert llm.detokenize([llm.token_nl()]) == b"\n"
    assert llm.metadata["general.architecture"] == "llama"
    assert llm.metadata["tokenizer.ggml.add_bos_token"] == "false"
    assert float(llm.metadata["llama.rope.freq_base"]) == 100000.0
    assert all(isinstance(value, str) for value in llm.metadata.values())
    assert "tokenizer.ggml.tokens" not in llm.metadata


def test_eval_keeps_the_last_row(llm: Llama) -> None:
    ids = llm.tokenize(FRANCE)
    llm.reset()
    assert llm.n_tokens == 0
    llm.eval(ids)
    assert llm.n_tokens == len(ids)
    assert list(llm.eval_tokens) == ids
    assert llm.input_ids.shape == (llm.n_ctx(),)
    assert llm.input_ids[: len(ids)].tolist() == ids
    assert llm.scores.shape == (llm.n_ctx(), llm.n_vocab())
    assert llm.scores.dtype == np.float32
    best = int(llm.scores[llm.n_tokens - 1].argmax())
    assert llm.detokenize([best]) == b" Paris"
    (row,) = llm.eval_logits
    assert int(np.argmax(row)) == best


def test_logits_all_keeps_every_row(keeping_llm: Llama, llm: Llama) -> None:
    ids = llm.tokenize(FRANCE)
    keeping_llm.reset()
    keeping_llm.eval(ids)
    assert len(keeping_llm.eval_logits) == len(ids)
    for end in range(1, len(ids) + 1):
        llm.reset()
        llm.eval(ids[:end])
        expected = llm.scores[end - 1]
        # One arithmetic, however the prompt was split.
        np.testing.assert_array_equal(keeping_llm.scores[end - 1], expected)


def test_logits_all_keeps_the_rows_of_a_completion(keeping_llm: Llama) -> None:
    ids = keeping_llm.tokenize(FRANCE)
    keeping_llm.reset()
    greedy = list(itertools.islice(keeping_llm.generate(ids, temp=0.0), 4))
    rows = keeping_llm.scores[len(ids) - 1 : len(ids) + 3]
    assert rows.argmax(axis=1).tolist() == greedy


def test_eval_in_pieces_is_eval_at_once(llm: Llama) -> None:
    ids = llm.tokenize(FRANCE)
    llm.reset()
    llm.eval(ids)
    whole = llm.scores[len(ids) - 1].copy()
    llm.reset()
    for token in ids:
        llm.eval([token])
    np.testing.assert_array_equal(llm.scores[len(ids) - 1], whole)


def test_eval_errors_leave_the_context_as_it_was(llm: Llama) -> None:
    ids = llm.tokenize(FRANCE)
    llm.reset()
    llm.eval(ids)
    with pytest.raises(ContextFullError, match="exceed context window"):
        llm.eval([1] * llm.n_ctx())
    with pytest.raises(InvalidArgumentError):
        llm.eval([llm.n_vocab()])
    assert list(llm.eval_tokens) == ids


def test_n_tokens_can_be_set_back(llm: Llama) -> None:
    ids = llm.tokenize(FRANCE)
    llm.reset()
    llm.eval(ids)
    llm.n_tokens = 2
    assert list(llm.eval_tokens) == ids[:2]
    with pytest.raises(InvalidArgumentError, match="n_tokens"):
        llm.n_tokens = 3


def test_generate_yields_what_a_completion_says(llm: Llama) -> None:
    ids = llm.tokenize(FRANCE)
    tokens = list(itertools.islice(llm.generate(ids, temp=0.0), 8))
    text = llm(FRANCE.decode(), max_tokens=8, temperature=0.0)["choices"][0]["text"]
    assert llm.detokenize(tokens).decode() == text


def test_generate_yields_the_end_of_text_token_and_goes_on(llm: Llama) -> None:
    prompt = b"<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    tokens = []
    for token in llm.generate(llm.tokenize(prompt, special=True), temp=0.0):
        tokens.append(token)
        if llm.token_eos() in tokens[:-1]:
            break
    assert tokens[-2] == llm.token_eos()


def test_generate_takes_sent_tokens(llm: Llama) -> None:
    ids = llm.tokenize(FRANCE)
    generator = llm.generate(ids, temp=0.0)
    first = next(generator)
    sent = llm.tokenize(b" and the capital of Italy is")
    following = generator.send(sent)
    assert llm.detokenize([following]) == b" Rome"
    assert list(llm.eval_tokens)[: len(ids) + 1 + len(sent)] == [*ids, first, *sent]


def test_generate_without_reset_continues(llm: Llama) -> None:
    ids = llm.tokenize(FRANCE)
    llm.reset()
    llm.eval(ids[:3])
    continued = next(llm.generate(ids[3:], temp=0.0, reset=False))
    assert continued == next(llm.generate(ids, temp=0.0))


def test_generate_says_when_the_context_is_full(keeping_llm: Llama) -> None:
    keeping_llm.reset()
    with pytest.raises(ContextFullError, match=r"\(65\) exceed context window of 64"):
        for _ in keeping_llm.generate(keeping_llm.tokenize(b"1 2 3 4"), temp=0.0):
            pass
