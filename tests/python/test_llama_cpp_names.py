"""What programs for llama-cpp-python use: helpers, module names, the alias `llama_cpp`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pyllamacpp
from pyllamacpp import (
    Llama,
    LlamaTokenizer,
    LogitsProcessorList,
    MinTokensLogitsProcessor,
    StoppingCriteriaList,
)
from pyllamacpp.errors import FileError, InvalidArgumentError
from pyllamacpp.llama_speculative import LlamaDraftModel, LlamaPromptLookupDecoding
from pyllamacpp.llama_tokenizer import LlamaHFTokenizer

PROMPT = "The capital of France is"


def text_of(completion) -> str:
    return completion["choices"][0]["text"]


def test_processors_are_called_in_order() -> None:
    processors = LogitsProcessorList([lambda _, s: s + 1, lambda _, s: s * 2])
    assert processors(np.zeros(1, np.intc), np.ones(2, np.single)).tolist() == [4, 4]


def test_any_criterion_stops() -> None:
    criteria = StoppingCriteriaList([lambda ids, _: len(ids) > 2, lambda ids, _: 7 in ids])
    none = np.zeros(1, np.single)
    assert not criteria(np.array([1, 2], np.intc), none)
    assert criteria(np.array([1, 2, 3], np.intc), none)
    assert criteria(np.array([7], np.intc), none)
    assert not StoppingCriteriaList()(np.array([1], np.intc), none)


def test_bias_and_processors_both_count(llm: Llama) -> None:
    # Each alone leads elsewhere: the processor bars the best token, the bias the second best.
    first = llm(PROMPT, max_tokens=1, temperature=0)
    (best,) = llm.tokenize(text_of(first).encode(), add_bos=False)

    def bar(_ids, scores):
        scores[best] = -np.inf
        return scores

    options = {"max_tokens": 1, "temperature": 0, "logits_processor": LogitsProcessorList([bar])}
    second = text_of(llm(PROMPT, **options))
    (second_id,) = llm.tokenize(second.encode(), add_bos=False)
    assert second != text_of(first)
    third = text_of(llm(PROMPT, logit_bias={second_id: -100.0}, **options))
    assert third not in (second, text_of(first))


def test_min_tokens_processor(llm: Llama) -> None:
    eos = llm.token_eos()
    bias = {eos: 100.0}
    assert llm(PROMPT, max_tokens=9, logit_bias=bias)["usage"]["completion_tokens"] == 0
    processor = MinTokensLogitsProcessor(3, eos)
    found = llm(PROMPT, max_tokens=9, logit_bias=bias, logits_processor=[processor])
    assert found["usage"]["completion_tokens"] == 3
    with pytest.raises(InvalidArgumentError, match="min_tokens"):
        MinTokensLogitsProcessor(-1, eos)


def test_tokenizer_objects(llm: Llama, default_model: Path) -> None:
    for tokenizer in (llm.tokenizer(), LlamaTokenizer.from_ggml_file(str(default_model))):
        ids = tokenizer.encode("Grüße<|im_end|>")
        assert ids == llm.tokenize("Grüße<|im_end|>".encode(), add_bos=True, special=True)
        assert ids[-1] == llm.token_eos()
        assert tokenizer.decode(ids[:-1]) == "Grüße"


def test_tokenizer_of_hugging_face(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    other = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    other.save(str(tmp_path / "tokenizer.json"))
    tokenizer = LlamaHFTokenizer.from_pretrained(str(tmp_path))
    assert tokenizer.tokenize(b"b a c") == [1, 0, 2]
    assert tokenizer.detokenize([0, 1], prev_tokens=[1]) == b" a b"
    with pytest.raises(FileError, match="no tokenizer"):
        LlamaHFTokenizer.from_pretrained(str(tmp_path.parent / "nothing"))


def test_draft_models() -> None:
    assert issubclass(LlamaPromptLookupDecoding, LlamaDraftModel)
    with pytest.raises(TypeError):
        LlamaDraftModel()
    ids = np.array([1, 2, 3, 4, 1, 2], np.intc)
    found = LlamaPromptLookupDecoding.find_candidate_pred_tokens(ids, 2, 2)
    assert found.tolist() == [3, 4]


def test_functions_of_the_class() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 800.0]], np.float32)
    found = Llama.logits_to_logprobs(logits)
    assert (found.shape, found.dtype) == ((2, 3), np.float32)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.diff(found[0]), 1, rtol=1e-6)
    assert found[1].tolist() == [-800.0, -800.0, 0.0]
    columns = Llama.logits_to_logprobs(logits.T.tolist(), axis=0)
    np.testing.assert_array_equal(columns, found.T)
    pairs = (([1, 2, 3], [1, 2, 4, 5], 2), ([1, 2], [1, 2, 3], 2), ([], [1], 0), ([3], [1], 0))
    for a, b, n in pairs:
        assert Llama.longest_token_prefix(a, b) == Llama.longest_token_prefix(b, a) == n


def test_every_public_name_is_there() -> None:
    for name in pyllamacpp.__all__:
        assert getattr(pyllamacpp, name) is not None, name
    assert pyllamacpp.llama_print_system_info().startswith(b"pyllamacpp")
    assert not pyllamacpp.llama_supports_gpu_offload()


def test_cache_types_by_name(default_model: Path) -> None:
    with Llama(str(default_model), type_k=pyllamacpp.GGML_TYPE_Q8_0, n_ctx=64, verbose=False) as q:
        assert text_of(q(PROMPT, max_tokens=1, temperature=0)) == " Paris"


# -- the alias ---------------------------------------------------------------------------------

PROGRAM = f"""
import sys
import llama_cpp
from llama_cpp import Llama, LlamaGrammar, LogitsProcessorList
from llama_cpp.llama import StoppingCriteriaList
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding
import llama_cpp.llama_chat_format as formats
import pyllamacpp

assert Llama is pyllamacpp.Llama and llama_cpp.Llama is Llama
assert formats is sys.modules["pyllamacpp.llama_chat_format"]
assert formats.__spec__.name == "pyllamacpp.llama_chat_format"
assert llama_cpp.ChatCompletionRequestUserMessage(role="user", content="")
assert llama_cpp.__version__ == pyllamacpp.__version__
llm = Llama(sys.argv[1], n_ctx=64, verbose=False, draft_model=LlamaPromptLookupDecoding())
print(llm({PROMPT!r}, max_tokens=1, temperature=0)["choices"][0]["text"])
"""


def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd="/"
    )


def test_a_program_unchanged(tmp_path: Path, default_model: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    done = python("-m", "pyllamacpp.as_llama_cpp", str(script), str(default_model))
    assert (done.stdout, done.stderr) == (" Paris\n", "")
    by_import = "import pyllamacpp.as_llama_cpp\n" + PROGRAM
    done = python("-c", by_import, str(default_model))
    assert (done.stdout, done.stderr) == (" Paris\n", "")


def test_without_the_alias_there_is_no_such_module() -> None:
    done = python("-c", "import pyllamacpp, llama_cpp")
    assert "ModuleNotFoundError: No module named 'llama_cpp'" in done.stderr


def test_the_real_package_is_not_replaced() -> None:
    code = "import sys, types\nsys.modules['llama_cpp'] = types.ModuleType('llama_cpp')\n"
    done = python("-c", code + "import pyllamacpp.as_llama_cpp")
    assert "ImportError: llama_cpp is imported already" in done.stderr


def test_what_the_alias_lacks() -> None:
    code = "import pyllamacpp.as_llama_cpp, llama_cpp\n"
    done = python("-c", code + "llama_cpp.llama_decode")
    assert "none of llama.cpp's C interface" in done.stderr
    done = python("-c", code + "import llama_cpp._internals")
    assert "No module named 'llama_cpp._internals'" in done.stderr
    done = python("-m", "pyllamacpp.as_llama_cpp")
    assert done.returncode == 1
    assert done.stderr.startswith("usage:")
    assert "there is no file" in python("-m", "pyllamacpp.as_llama_cpp", "/nowhere.py").stderr
