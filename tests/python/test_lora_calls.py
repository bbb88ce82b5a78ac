"""LoRA adapters through `Llama`: by constructor, between calls, per call and side by side."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from pyllamacpp import Llama, _core
from pyllamacpp.errors import InvalidArgumentError, OutOfMemoryError
from pyllamacpp.lora import adapter_bytes

Run = Callable[..., "subprocess.CompletedProcess[str]"]

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


def test_the_plan_counts_adapters(
    default_model: Path, adapter_files: list[Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(adapter_files[0])
    n_bytes = adapter_bytes(path)
    with Llama(str(default_model), n_ctx=64, verbose=False) as llm:
        assert llm.load_lora(path).n_bytes == n_bytes
    without = _core.plan_memory(str(default_model), n_ctx=64, repack="never")
    shape = {"n_ctx": 64, "repack": "never", "available": without.own}
    plan = _core.plan_memory(str(default_model), adapters=n_bytes, **shape)
    assert (plan.adapters, plan.own, plan.fits) == (n_bytes, without.own + n_bytes, False)
    assert plan.most_ctx < _core.plan_memory(str(default_model), **shape).most_ctx
    with pytest.raises(OutOfMemoryError, match=r"LoRA adapters 0\.\d\d GiB"):
        _core.require_fit(str(default_model), plan)

    done = run("plan", str(default_model), "--lora", path, "--lora", path, "--json")
    assert json.loads(done.stdout)["adapters"] == 2 * n_bytes
    assert "LoRA adapters" in run("plan", str(default_model), "--lora", path).stdout
    failed = run("plan", str(default_model), "--lora", "missing.gguf")
    assert failed.returncode == 1
    assert "missing.gguf does not exist" in failed.stderr

    # The constructor asks for a plan with its adapter.
    asked = []
    real = _core.plan_memory

    def plan_memory(*args: object, **options: object) -> _core.MemoryPlan:
        asked.append(options.get("adapters"))
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(_core, "plan_memory", plan_memory)
    Llama(str(default_model), n_ctx=64, verbose=False, lora_path=path).close()
    assert asked == [n_bytes]


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
