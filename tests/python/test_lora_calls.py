"""LoRA adapters through `Llama`: by constructor, between calls, per call and side by side."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from pyllamacpp import Llama
from pyllamacpp.errors import InvalidArgumentError

PROMPT = "The capital of France is"
OPTIONS = {"max_tokens": 12, "temperature": 0.0}


@pytest.fixture(scope="module")
def adapter_files(default_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two random adapters of the default model, large enough to change its texts."""
    with Llama(str(default_model), vocab_only=True, verbose=False) as llm:
        keys = ("block_count", "embedding_length", "feed_forward_length")
        shape = [int(llm.metadata[f"llama.{key}"]) for key in keys]
    files = []
    for seed in (1, 2):
        n_layers, dim, n_ff = shape
        rng = np.random.default_rng(seed)
        path = tmp_path_factory.mktemp("lora") / f"adapter{seed}.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", 4.0)
        for i in range(n_layers):
            name = f"blk.{i}.ffn_down.weight"
            writer.add_tensor(f"{name}.lora_a", rng.standard_normal((4, n_ff), np.float32) / 40)
            writer.add_tensor(f"{name}.lora_b", rng.standard_normal((dim, 4), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        files.append(path)
    return files


def text_of(llm: Llama, **options: object) -> str:
    return llm(PROMPT, **{**OPTIONS, **options})["choices"][0]["text"]


def test_adapters_are_swapped_and_mixed(default_model: Path, adapter_files: list[Path]) -> None:
    with Llama(str(default_model), n_ctx=256, verbose=False) as llm:
        plain = text_of(llm)
        one, two = (llm.load_lora(path) for path in adapter_files)
        alone = [text_of(llm, lora=[(adapter, 1.0)]) for adapter in (one, two)]
        assert len({plain, *alone}) == 3
        assert text_of(llm) == plain
        assert text_of(llm, lora=[(one, 0.0)]) == plain
        # The same prompt with three sets of adapters, all running at once.
        streams = [
            llm(PROMPT, stream=True, lora=lora, **OPTIONS)
            for lora in ([], [(one, 1.0)], [(two, 1)])
        ]
        texts = ["", "", ""]
        for chunks in zip(*streams, strict=False):
            for i, chunk in enumerate(chunks):
                texts[i] += chunk["choices"][0]["text"]
        assert all(
            whole.startswith(text) for text, whole in zip(texts, [plain, *alone], strict=True)
        )
        assert all(texts)
        llm.set_lora([(one, 1.0)])
        assert text_of(llm) == alone[0]
        assert text_of(llm, lora=[]) == plain
        other = llm.new_context(n_ctx=64)
        assert text_of(other) == alone[0]
        llm.reset()
        llm.eval(llm.tokenize(PROMPT.encode()))
        adapted = llm.scores[llm.n_tokens - 1].copy()
        llm.set_lora([])
        llm.reset()
        llm.eval(llm.tokenize(PROMPT.encode()))
        assert not np.array_equal(llm.scores[llm.n_tokens - 1], adapted)
        for wrong in ([one], [(one, float("nan"))], [("a", 1.0)]):
            with pytest.raises(InvalidArgumentError, match="load_lora"):
                text_of(llm, lora=wrong)


def test_the_constructor_takes_an_adapter(default_model: Path, adapter_files: list[Path]) -> None:
    path = str(adapter_files[0])
    with Llama(str(default_model), n_ctx=64, verbose=False) as llm:
        expected = text_of(llm, lora=[(llm.load_lora(path), 0.5)])
    with Llama(
        str(default_model), n_ctx=64, verbose=False, lora_path=path, lora_scale=0.5
    ) as adapted:
        assert text_of(adapted) == expected
        assert text_of(adapted.new_context(lora_path=None, lora_scale=1.0)) != expected
    with pytest.raises(OSError, match="missing"):
        Llama(str(default_model), verbose=False, lora_path="missing.gguf")
