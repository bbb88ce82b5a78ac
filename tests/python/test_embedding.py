"""Embeddings: against the float64 oracle; the same bits in any company; what is refused."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pyllamacpp
from pyllamacpp import Llama, _core
from pyllamacpp.embedding import Embedder
from pyllamacpp.errors import (
    ContextFullError,
    FormatError,
    InvalidArgumentError,
    NotEnabledError,
    OutOfMemoryError,
    PyllamacppError,
    UnsupportedError,
)

sys.path.append(str(Path(__file__).resolve().parents[1] / "oracle"))
from llama_numpy import LlamaNumpy
from tiny_model import TinyModel

NONE, MEAN, CLS, LAST = range(4)
POOLINGS = {"none": NONE, "mean": MEAN, "cls": CLS, "last": LAST}
VARIANTS = {
    "llama": TinyModel(),
    "llama, tied": TinyModel(tied=True),
    "mistral": TinyModel(metadata={"attention.sliding_window": 37}),
    "qwen3": TinyModel(architecture="qwen3", qk_norm=True, head_dim=32, rope_theta=1e6),
}
N_CTX = 256


def ids(n: int, seed: int = 5) -> list[int]:
    return [1, *map(int, 3 + np.random.default_rng(seed).integers(0, 256, n - 1))]


def pooled(hidden: np.ndarray, pooling: int) -> np.ndarray:
    return {NONE: hidden, MEAN: hidden.mean(axis=0), CLS: hidden[0], LAST: hidden[-1]}[pooling]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> _core.Model:
    return _core.Model(str(TinyModel().write(tmp_path_factory.mktemp("tiny") / "model.gguf")))


@pytest.fixture(scope="module")
def alone(tiny: _core.Model):
    """The vector of ids(n) by itself, on one thread."""
    embedders = {
        pooling: Embedder(tiny, n_ctx=N_CTX, n_threads=1, pooling_type=pooling)
        for pooling in POOLINGS.values()
    }
    known: dict[tuple[int, int], object] = {}

    def vector(n: int, pooling: int) -> object:
        if (n, pooling) not in known:
            known[n, pooling] = embedders[pooling].embed(ids(n))
        return known[n, pooling]

    return vector


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_against_the_oracle(variant: str, tmp_path: Path) -> None:
    path = VARIANTS[variant].write(tmp_path / "model.gguf")
    model, oracle = _core.Model(str(path)), LlamaNumpy.from_gguf(path, n_ctx=N_CTX)
    texts = [ids(n, seed=n) for n in (3, 40, 150, 1)]
    head = "output.weight" if "output.weight" in oracle.weights else "token_embd.weight"
    hidden = []
    for text in texts:
        inputs: dict[str, np.ndarray] = {}
        oracle.forward(text, inputs=inputs)
        hidden.append(inputs[head])
    for pooling in POOLINGS.values():
        embedder = Embedder(
            model, N_CTX, n_batch=64, pooling_type=pooling, type_k="f32", type_v="f32"
        )
        for found, expected in zip(embedder.embed(texts), hidden, strict=True):
            wanted = pooled(expected, pooling)
            assert np.shape(found) == wanted.shape
            error = np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2))
            assert error < 1e-5  # float32's rounding, some 100 operations deep


def test_normalize_and_dimensions(tiny: _core.Model) -> None:
    embedder = Embedder(tiny, N_CTX, pooling_type=MEAN)
    texts = [ids(5), ids(90)]
    for plain, unit, cut in zip(
        embedder.embed(texts),
        embedder.embed(texts, normalize=True),
        embedder.embed(texts, normalize=True, dimensions=10),
        strict=True,
    ):
        assert len(unit) == embedder.n_embd == 64
        assert math.hypot(*unit) == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(unit, np.divide(plain, math.hypot(*plain)), rtol=1e-6)
        assert len(cut) == 10
        np.testing.assert_allclose(cut, np.divide(plain[:10], math.hypot(*plain[:10])), rtol=1e-6)
    tokens = Embedder(tiny, N_CTX, pooling_type=NONE).embed(ids(7), normalize=True)
    assert [math.hypot(*row) for row in tokens] == pytest.approx([1] * 7, abs=1e-6)


def test_zeros_stay_zeros(tmp_path: Path) -> None:
    dead = TinyModel(tensors={"output_norm.weight": np.zeros(64, np.float32)})
    model = _core.Model(str(dead.write(tmp_path / "model.gguf")))
    assert Embedder(model, N_CTX, pooling_type=MEAN).embed("x", normalize=True) == [0.0] * 64


def test_texts_are_tokenized_as_the_vocabulary_asks(tiny: _core.Model) -> None:
    embedder = Embedder(tiny, N_CTX, pooling_type=LAST)
    tokens = tiny.tokenizer.encode(b"a </s> b", True, False)
    assert 2 not in tokens  # special tokens in a text are text
    assert embedder.embed("a </s> b", return_count=True) == (embedder.embed(tokens), len(tokens))
    bad = "\udcff".encode("utf-8", "surrogateescape")  # a byte that is no UTF-8
    assert embedder.embed("\udcff") == embedder.embed(tiny.tokenizer.encode(bad, True, False))


def test_sentences_that_mean_the_same_are_closer(default_model: Path) -> None:
    pairs = [
        ("A cat is sleeping on the sofa.", "The kitten naps on the couch."),
        ("The stock market fell sharply on Monday.", "Shares dropped steeply at the week's start."),
        ("How do I bake bread at home?", "What is the recipe for homemade bread?"),
    ]
    embedder = Embedder(_core.Model(str(default_model)), 64, pooling_type=MEAN)
    first = np.array(embedder.embed([a for a, _ in pairs], normalize=True))
    second = np.array(embedder.embed([b for _, b in pairs], normalize=True))
    similarity = first @ second.T
    assert (similarity.argmax(axis=1) == range(3)).all()
    assert (similarity.argmax(axis=0) == range(3)).all()


# -- the same bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", POOLINGS.values(), ids=list(POOLINGS))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, N_CTX), min_size=1, max_size=12)
    | st.lists(st.integers(1, 5), min_size=60, max_size=140),
    n_batch=st.sampled_from([1, 7, 32, 100, 512]),
    n_threads=st.integers(1, 2),
)
def test_a_vector_does_not_depend_on_its_batch(
    tiny: _core.Model, alone, pooling: int, lengths: list[int], n_batch: int, n_threads: int
) -> None:
    if n_batch < 32:  # nearly token by token: that many passes take long on a busy machine
        lengths = [min(n, 40) for n in lengths[:3]]
    embedder = Embedder(tiny, N_CTX, n_batch, n_threads, pooling)
    vectors = embedder.embed([ids(n) for n in lengths])
    assert vectors == [alone(n, pooling) for n in lengths]


def test_the_default_models_bits(default_model: Path) -> None:
    """Quantized weights and activations: prompts of one token, a few and many, both ways round."""
    model = _core.Model(str(default_model))
    english = (Path(__file__).parents[1] / "data" / "english.txt").read_text("utf-8")
    texts = ["Hi", english[:900], "The quick brown fox", english[300:420]]
    for pooling in (MEAN, LAST, CLS):
        one = Embedder(model, 512, 512, 1, pooling)
        expected = [one.embed(text) for text in texts]
        together = Embedder(model, 512, 48, 2, pooling)
        assert together.embed(texts) == expected
        assert together.embed(texts[::-1]) == expected[::-1]


def test_threads_share_an_embedder(tiny: _core.Model, alone) -> None:
    embedder = Embedder(tiny, N_CTX, 64, 2, MEAN)
    lengths = [1 + 37 * i % 200 for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        vectors = list(pool.map(lambda n: embedder.embed([ids(n), ids(3)]), lengths))
    assert vectors == [[alone(n, MEAN), alone(3, MEAN)] for n in lengths]


def test_closing_meanwhile(tiny: _core.Model, alone) -> None:
    embedder = Embedder(tiny, N_CTX, 32, 1, MEAN)
    lengths = [1 + 37 * i % 200 for i in range(60)]
    found: list[object] = []
    thread = threading.Thread(
        target=lambda: found.extend(embedder.embed([ids(n) for n in lengths]))
    )
    thread.start()
    while thread.is_alive():
        embedder.close()
    thread.join()
    assert found == [alone(n, MEAN) for n in lengths]


# -- forms -----------------------------------------------------------------------------------------


def test_forms_of_input(tiny: _core.Model) -> None:
    embedder = Embedder(tiny, N_CTX, pooling_type=MEAN)
    tokens = tiny.tokenizer.encode(b"one", True, False)
    vector = embedder.embed("one")
    assert all(type(value) is float for value in vector)
    assert embedder.embed(tokens) == embedder.embed(np.array(tokens)) == vector
    assert embedder.embed(["one"]) == embedder.embed([tokens]) == [vector]
    assert embedder.embed(("one", tokens)) == [vector, vector]
    assert embedder.embed(text for text in ("one", "two"))[0] == vector
    assert embedder.embed([], return_count=True) == ([], 0)
    each = Embedder(tiny, N_CTX, pooling_type=NONE)
    assert np.shape(each.embed("one")) == (len(tokens), 64)
    assert np.shape(each.embed(["one"])) == (1, len(tokens), 64)


def test_openai_layout(tiny: _core.Model) -> None:
    embedder = Embedder(tiny, N_CTX, pooling_type=MEAN)
    texts = ["one", "another text"]
    vectors, n_tokens = embedder.embed(texts, return_count=True)
    response = embedder.create_embedding(texts)
    assert response == {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": vector, "index": i}
            for i, vector in enumerate(vectors)
        ],
        "model": tiny.path,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
    }
    assert json.loads(json.dumps(response)) == response
    assert embedder.create_embedding("one", model="name")["model"] == "name"
    assert len(embedder.create_embedding([3, 4, 5])["data"]) == 1
    assert embedder.create_embedding([])["data"] == []
    cut = embedder.create_embedding(texts, dimensions=3, normalize=True)["data"][1]["embedding"]
    assert cut == embedder.embed(texts[1], normalize=True, dimensions=3)


def test_base64(tiny: _core.Model) -> None:
    for pooling, shape in ((MEAN, (64,)), (NONE, (4, 64))):
        embedder = Embedder(tiny, N_CTX, pooling_type=pooling)
        (entry,) = embedder.create_embedding(ids(4), encoding_format="base64")["data"]
        packed = entry["embedding"]
        parts = [packed] if isinstance(packed, str) else packed
        values = np.array([np.frombuffer(base64.b64decode(part), "<f4") for part in parts])
        assert values.reshape(shape).tolist() == embedder.embed(ids(4))


def test_truncation(tiny: _core.Model, caplog: pytest.LogCaptureFixture) -> None:
    embedder = Embedder(tiny, 16, pooling_type=MEAN)
    texts = [ids(20), ids(3), ids(16), ids(17)]
    with caplog.at_level(logging.WARNING, logger="pyllamacpp"):
        vectors, n_tokens = embedder.embed(texts, return_count=True)
    (record,) = caplog.records
    assert record.getMessage() == (
        "2 of 4 inputs are longer than the context of 16 tokens: 5 tokens were dropped at their "
        "ends"
    )
    assert n_tokens == 16 + 3 + 16 + 16
    assert vectors == embedder.embed([text[:16] for text in texts])
    with pytest.raises(ContextFullError, match=r"Requested tokens \(20\) exceed .* of 16: input 0"):
        embedder.embed(texts, truncate=False)
    assert embedder.embed(texts[1:3], truncate=False) == vectors[1:3]


def test_pooling_of_the_file(tmp_path: Path) -> None:
    def pooling(**metadata: object) -> int:
        path = TinyModel(metadata=metadata).write(tmp_path / "model.gguf")
        return Embedder(_core.Model(str(path)), N_CTX).pooling_type

    assert pooling() == NONE
    assert pooling(pooling_type=LAST) == LAST
    with pytest.raises(UnsupportedError, match=r"llama\.pooling_type is 4; supported are none"):
        pooling(pooling_type=4)
    with pytest.raises(FormatError, match=r"llama\.pooling_type is 'mean', expected a number"):
        pooling(pooling_type="mean")


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ([[]], "input 0 is empty"),
        (["x", []], "input 1 is empty"),
        (None, "found None"),
        (5, "found 5"),
        (b"bytes", "found b'bytes'"),
        ({"a": 1}, "found {'a': 1}"),
        ([b"bytes"], "input 0 must be a string or a list of token ids, found b'bytes'"),
        (["x", None], "input 1 must be"),
        ([3, "x"], "input 0 must be"),
        (["x", 3], "input 1 must be"),
        ([[3.5]], "input 0 must be"),
        ([[[3]]], "input 0 must be"),
        ([3, -1], "token -1 of input 0 is outside the vocabulary of 259"),
        (["x", [259]], "token 259 of input 1 is outside"),
        ([1 << 70], "token 1180591620717411303424 of input 0 is outside"),
    ],
)
def test_bad_input_is_a_sentence(tiny: _core.Model, bad: object, sentence: str) -> None:
    embedder = Embedder(tiny, N_CTX, pooling_type=MEAN)
    vector = embedder.embed("x")
    with pytest.raises(InvalidArgumentError) as caught:
        embedder.embed(bad)
    assert sentence in str(caught.value)
    assert embedder.embed("x") == vector


def test_an_empty_text_is_its_special_tokens_or_an_error(
    tiny: _core.Model, default_model: Path
) -> None:
    assert tiny.tokenizer.encode(b"", True, False) == [1]
    embedder = Embedder(tiny, N_CTX, pooling_type=MEAN)
    assert embedder.embed("") == embedder.embed([1])
    other = Embedder(_core.Model(str(default_model)), 64, pooling_type=MEAN)
    with pytest.raises(InvalidArgumentError, match="input 1 is empty"):
        other.embed(["x", ""])


@pytest.mark.parametrize("arguments", [{"dimensions": 0}, {"dimensions": 65}])
def test_bad_arguments(tiny: _core.Model, arguments: dict[str, int]) -> None:
    embedder = Embedder(tiny, N_CTX, pooling_type=MEAN)
    with pytest.raises(InvalidArgumentError, match=r"dimensions must lie in 1 \.\. 64"):
        embedder.embed("x", **arguments)
    with pytest.raises(InvalidArgumentError, match=r"encoding_format must be .*, found 'int8'"):
        embedder.create_embedding("x", encoding_format="int8")


@pytest.mark.parametrize("pooling", [4, 5, -2, "mean", None])
def test_other_poolings(tiny: _core.Model, pooling: object) -> None:
    with pytest.raises(UnsupportedError, match=f"pooling_type is {pooling!r}; supported are none"):
        Embedder(tiny, N_CTX, pooling_type=pooling)


def test_damaged_weights(tmp_path: Path) -> None:
    table = TinyModel().weights()["token_embd.weight"]
    table[100] = np.nan
    damaged = TinyModel(tensors={"token_embd.weight": table})
    model = _core.Model(str(damaged.write(tmp_path / "model.gguf")))
    embedder = Embedder(model, N_CTX, pooling_type=MEAN)
    vector = embedder.embed([3, 4])
    with pytest.raises(FormatError, match=r"model\.gguf: .*not finite"):
        embedder.embed([[3, 4], [3, 100, 5]])
    assert embedder.embed([3, 4]) == vector


def test_no_memory_for_a_text(tiny: _core.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Embedder(tiny, 4096, pooling_type=MEAN)
    plan_context = _core.plan_context
    available = plan_context(tiny, n_ctx=200).own

    def tight(model: _core.Model, **shape: Any) -> SimpleNamespace:
        return SimpleNamespace(
            own=plan_context(model, **shape).own, available=available, gpu=0, gpu_available=0
        )

    monkeypatch.setattr(_core, "plan_context", tight)
    vector = embedder.embed(ids(200))
    with pytest.raises(OutOfMemoryError, match=r"2000 tokens of texts need .* are available"):
        embedder.embed(ids(2000))
    assert embedder.embed(ids(200)) == vector


def test_the_cores_embed(tiny: _core.Model) -> None:
    context = _core.Context(tiny, n_ctx=64, n_batch=8, max_sequences=2)
    rows = context.embed([(0, ids(20), "all"), (1, ids(3), "last")])
    assert rows.shape == (21, 64)
    assert rows.dtype == np.float32
    assert len(context.logits()) == 0
    assert context.length(0) == 20
    context.trim(0, 5)
    assert np.array_equal(context.embed([(0, ids(20)[5:], "all")]), rows[5:20])
    assert context.embed([(1, ids(2), "none")]).shape == (0, 64)
    context.decode([(0, [7], "last")])
    assert context.logits().shape == (1, 259)
    with pytest.raises(ContextFullError):
        context.embed([(1, ids(62), "all")])
    assert context.length(1) == 5


# -- Llama -----------------------------------------------------------------------------------------


def test_llama(default_model: Path) -> None:
    with Llama(
        str(default_model), n_ctx=64, embedding=True, pooling_type=MEAN, verbose=False
    ) as llm:
        assert llm.pooling_type() == pyllamacpp.LLAMA_POOLING_TYPE_MEAN == MEAN
        text = llm("The capital of France is", max_tokens=4, temperature=0)["choices"][0]["text"]
        vector, n_tokens = llm.embed("Hello", return_count=True)
        assert (len(vector), n_tokens) == (llm.n_embd(), len(llm.tokenize(b"Hello")))
        assert llm.embed(["Hello", "you"])[0] == vector
        unit = llm.embed("Hello", True)
        np.testing.assert_allclose(unit, np.divide(vector, math.hypot(*vector)), rtol=1e-6)
        response = llm.create_embedding("Hello")
        assert response["model"] == llm.model_path
        assert response["data"][0]["embedding"] == vector
        again = llm("The capital of France is", max_tokens=4, temperature=0)
        assert again["choices"][0]["text"] == text
        with llm.new_context(n_ctx=32, n_batch=8, pooling_type=LAST) as other:
            assert other.pooling_type() == LAST
            assert other.embed("Hello") == vector  # one token
            assert other.embed("Hello you") != llm.embed("Hello you")
        assert llm.embed("Hello") == vector
    for use in (lambda: llm.embed("Hello"), llm.pooling_type):
        with pytest.raises(PyllamacppError, match="closed"):
            use()


def test_asyncio(default_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"n_ctx": 64, "embedding": True, "pooling_type": MEAN, "verbose": False}
    with Llama(str(default_model), **shape) as llm:
        texts = ["Hello", "The quick brown fox"]
        groups: list[int] = []
        evaluate = llm.embedder._evaluate

        def counted(group: list[list[int]], *rest: Any) -> Any:
            groups.append(len(group))
            return evaluate(group, *rest)

        monkeypatch.setattr(llm.embedder, "_evaluate", counted)

        async def together() -> None:
            one, two, response = await asyncio.gather(
                llm.aembed(texts), llm.aembed("Hello", True), llm.acreate_embedding(texts)
            )
            assert one == llm.embed(texts)
            assert two == llm.embed("Hello", True)
            assert response == llm.create_embedding(texts)
            groups.clear()
            task = asyncio.ensure_future(llm.aembed(texts * 500))
            while not groups:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(together())
        assert llm.embed(texts)  # waits for the batch that was being evaluated
        assert sum(groups) < 1000
    with pytest.raises(PyllamacppError, match="closed"):
        asyncio.run(llm.aembed("Hello"))


def test_llama_without_pooling(default_model: Path) -> None:
    with Llama(str(default_model), n_ctx=64, embedding=True, verbose=False) as llm:
        assert llm.pooling_type() == NONE
        assert np.shape(llm.embed("Hello you")) == (2, llm.n_embd())


def test_llama_made_without_embedding(llm: Llama) -> None:
    assert llm.pooling_type() == NONE
    with pytest.raises(NotEnabledError, match="embedding=True") as caught:
        llm.embed("Hello")
    assert isinstance(caught.value, RuntimeError)
    with pytest.raises(NotEnabledError):
        llm.create_embedding("Hello")


def test_llama_refuses_other_poolings(default_model: Path) -> None:
    with pytest.raises(UnsupportedError, match="pooling_type is 4"):
        Llama(str(default_model), embedding=True, pooling_type=4, verbose=False)


# -- the command -----------------------------------------------------------------------------------


def test_command(run, default_model: Path, tmp_path: Path) -> None:
    args = ("embed", "-m", str(default_model))
    result = run(*args, "--json", "A cat sleeps.", "Hello")
    assert result.returncode == 0
    response = json.loads(result.stdout)
    embedder = Embedder(_core.Model(str(default_model)), 64, pooling_type=MEAN)
    assert response == embedder.create_embedding(["A cat sleeps.", "Hello"], normalize=True)
    file = tmp_path / "lines.txt"
    file.write_text("A cat sleeps.\n\nHello\n")
    for other in (run(*args, "-f", str(file)), run(*args, stdin="A cat sleeps.\r\nHello")):
        assert other.returncode == 0
        rows = [[float(value) for value in line.split()] for line in other.stdout.splitlines()]
        assert np.array_equal(
            np.float32(rows), np.float32([entry["embedding"] for entry in response["data"]])
        )


def test_command_options(run, default_model: Path) -> None:
    args = ("embed", "-m", str(default_model), "-c", "4")
    result = run(*args, "--pooling", "none", "--no-normalize", "one two three four five six")
    assert result.returncode == 0
    assert len(result.stdout.splitlines()) == 4
    assert "1 of 1 inputs are longer than the context of 4 tokens" in result.stderr
    last = run(*args, "--pooling", "last", "--no-normalize", "one two three four")
    assert last.stdout.splitlines() == result.stdout.splitlines()[-1:]


def test_command_without_text(run, default_model: Path) -> None:
    for args in (("-f", "x", "text"), ()):
        result = run("embed", "-m", str(default_model), *args)
        assert (result.returncode, result.stdout) == (2, "")
        assert "Usage: pyllamacpp embed" in result.stderr
