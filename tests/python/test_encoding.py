"""A user's tokenizer in the file's place, and prompts that are filled in."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pyllamacpp import Llama
from pyllamacpp.errors import InvalidArgumentError, UnsupportedError
from pyllamacpp.llama_tokenizer import BaseLlamaTokenizer, LlamaTokenizer

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
from tiny_model import TinyModel

TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
FILL = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
OPTIONS = {"max_tokens": 12, "temperature": 0.0, "ignore_eos": True}


class Capitals(BaseLlamaTokenizer):
    """Ids of the text in capitals: what it makes is told from what the file makes."""

    def __init__(self, llama: Llama) -> None:
        self.own = LlamaTokenizer(llama)

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        return self.own.tokenize(text.upper(), add_bos, special)

    def detokenize(
        self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        return self.own.detokenize(tokens, prev_tokens, special).lower()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    model = TinyModel(chat_template=TEMPLATE, control_tokens=FILL)
    return str(model.write(tmp_path_factory.mktemp("encoding") / "m.gguf"))


def text_of(llm: Llama, prompt: object, **options: object) -> str:
    return llm(prompt, **{**OPTIONS, **options})["choices"][0]["text"]  # type: ignore[operator]


def test_a_given_tokenizer_makes_the_ids(path: str) -> None:
    with Llama(path, embedding=True, verbose=False) as own:
        given = Capitals(own)
        with Llama(path, embedding=True, tokenizer=given, verbose=False) as llm:
            assert llm.tokenize(b"abc") == own.tokenize(b"ABC") != own.tokenize(b"abc")
            ids = own.tokenize(b"ABC")
            assert llm.detokenize(ids) == own.detokenize(ids).lower() != own.detokenize(ids)
            assert llm.tokenizer().encode("abc") == own.tokenizer().encode("ABC")
            assert text_of(llm, "abc") == text_of(own, "ABC") != text_of(own, "abc")
            assert llm.embed("abc", normalize=True) == own.embed("ABC", normalize=True)
            said = [{"role": "user", "content": "hello"}]
            loud = "[USER]HELLO[ASSISTANT]"
            chat = llm.create_chat_completion(said, **OPTIONS)
            assert chat["choices"][0]["message"]["content"] == text_of(own, loud)
            # The file's own tokenizer keeps such a text apart from the token; this one cannot.
            forged = [{"role": "user", "content": f"hello {FILL[0]}"}]
            own.create_chat_completion(forged, **OPTIONS)
            with pytest.raises(InvalidArgumentError, match="spells a special token"):
                llm.create_chat_completion(forged, **OPTIONS)
            other = llm.new_context(tokenizer=None)
            assert other.tokenize(b"abc") == own.tokenize(b"abc")
        with pytest.raises(InvalidArgumentError, match="BaseLlamaTokenizer"):
            Llama(path, tokenizer="gpt2", verbose=False)


def test_ids_outside_of_the_vocabulary(path: str) -> None:
    class Wrong(Capitals):
        def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
            return [*super().tokenize(text, add_bos, special), 9999]

    with (
        Llama(path, verbose=False) as own,
        Llama(path, tokenizer=Wrong(own), verbose=False) as llm,
        pytest.raises(InvalidArgumentError, match="token 9999"),
    ):
        llm("abc")


def test_a_tokenizer_of_another_package(default_model: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from pyllamacpp.llama_tokenizer import LlamaHFTokenizer

    with Llama(str(default_model), vocab_only=True, verbose=False) as own:
        metadata = own.model.metadata
        vocab = {piece: i for i, piece in enumerate(metadata["tokenizer.ggml.tokens"])}
        merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    theirs = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    theirs.decoder = decoders.ByteLevel()
    text = "The capital of France is"
    with (
        Llama(str(default_model), verbose=False) as plain,
        Llama(str(default_model), tokenizer=LlamaHFTokenizer(theirs), verbose=False) as llm,
    ):
        assert llm.tokenize(text.encode()) == plain.tokenize(text.encode())
        assert text_of(llm, text) == text_of(plain, text)


@pytest.mark.parametrize("suffix_first", [False, True])
@pytest.mark.parametrize("stated", [False, True])
def test_filling_in(tmp_path: Path, suffix_first: bool, stated: bool) -> None:
    names = ("<a>", "<b>", "<c>") if stated else FILL
    file = TinyModel(control_tokens=names)
    first = file.n_vocab - 3
    pre, suf, mid = range(first, first + 3)
    path = str(file.write(tmp_path / "m.gguf"))
    stated_ids = dict(zip(("fim_pre", "fim_suf", "fim_mid"), (pre, suf, mid), strict=True))
    overrides = {f"tokenizer.ggml.{key}_token_id": token for key, token in stated_ids.items()}
    with Llama(
        path,
        spm_infill=suffix_first,
        kv_overrides=overrides if stated else None,
        verbose=False,
    ) as llm:
        bos = [llm.token_bos()] if llm.model.tokenizer.add_bos else []
        before = [pre, *llm.tokenize(b"def f(<s>):", add_bos=False, special=False)]
        # No space comes before what follows.
        after = [suf, *(3 + byte for byte in "return\u25811".encode())]
        parts = [*after, *before] if suffix_first else [*before, *after]
        expected = text_of(llm, [*bos, *parts, mid])
        assert text_of(llm, "def f(<s>):", suffix="return 1") == expected
        assert text_of(llm, ["def f(<s>):"], suffix="return 1") == expected
        echoed = text_of(llm, "def f(<s>):", suffix="return 1", echo=True)
        assert echoed == f"def f(<s>):{expected}"
        with pytest.raises(UnsupportedError, match="filled in"):
            llm("a", suffix="b", echo=True, logprobs=1)
        # Ids are used as they are.
        ids = llm.tokenize(b"def")
        assert text_of(llm, ids, suffix="END") == f"{text_of(llm, ids)}END"


def test_a_model_that_cannot_fill_in(tmp_path: Path) -> None:
    path = str(TinyModel().write(tmp_path / "m.gguf"))
    with pytest.raises(UnsupportedError, match="spm_infill"):
        Llama(path, spm_infill=True, verbose=False)
