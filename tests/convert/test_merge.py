"""LoRA adapters merged into files, against float64 and against the same adapters at run time."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyllamacpp_convert import merge_lora, plan_merge, quantize_gguf
from pyllamacpp_convert.gguf_file import read_gguf

from pyllamacpp import Llama, _core
from pyllamacpp.errors import (
    FileError,
    FormatError,
    InvalidArgumentError,
    PyllamacppError,
    UnsupportedError,
)
from pyllamacpp.kernels import dequantize, quantize
from pyllamacpp.lora import load_adapter

TESTS = Path(__file__).resolve().parents[1]


def helpers(path: str):
    """Another test module, for what it writes."""
    spec = importlib.util.spec_from_file_location(Path(path).stem + "_helpers", TESTS / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


run_time = helpers("model/test_adapters.py")
peft = helpers("python/test_lora.py")
MODEL = run_time.MODEL
LlamaNumpy = run_time.LlamaNumpy
HALF = 2.0**-24  # a float32 is rounded by at most this part of itself


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODEL.write(tmp_path_factory.mktemp("merge") / "model.gguf")


def make_adapter(folder: Path, seed: int, rank: int = 5, **options: object) -> tuple[Path, dict]:
    """alpha is the rank: the pairs' products count as they are."""
    pairs = run_time.make_pairs(MODEL, rank, seed, **options)
    path = folder / f"adapter{seed}.gguf"
    return run_time.write_adapter(path, run_time.tensors_of(pairs), alpha=float(rank)), pairs


def floats_of(path: Path) -> dict[str, np.ndarray]:
    weights = {}
    for name, tensor in read_gguf(path).tensors.items():
        n = math.prod(tensor.shape)
        raw = tensor.read(0, n // tensor.shape[-1])
        weights[name] = dequantize(tensor.dtype, raw, n).reshape(tensor.shape)
    return weights


def raw_of(path: Path) -> dict[str, bytes]:
    return {
        name: tensor.read(0, math.prod(tensor.shape[:-1])).tobytes()
        for name, tensor in read_gguf(path).tensors.items()
    }


def sums(path: Path, changes: list[tuple[dict, float]]) -> dict[str, np.ndarray]:
    """In float64, the weights of the file with `factor * b a` of each added."""
    weights = {name: w.astype(np.float64) for name, w in floats_of(path).items()}
    for pairs, factor in changes:
        for name, (a, b) in pairs.items():
            weights[name] = weights[name] + factor * (b.astype(np.float64) @ a.astype(np.float64))
    return weights


def test_floats_are_the_sum_rounded_once(base: Path, tmp_path: Path) -> None:
    one, first = make_adapter(tmp_path, 1)
    two, second = make_adapter(tmp_path, 2, rank=16, matrices=("attn_q", "ffn_down"))
    target = tmp_path / "out.gguf"
    plan = merge_lora(base, [(one, 0.5), (two, -1.25)], target, n_threads=2, verify=True)
    assert plan.n_merged == len(first)
    merged, expected = floats_of(target), sums(base, [(first, 0.5), (second, -1.25)])
    for name, weights in expected.items():
        # One rounding, and what float64 loses in sums of 21 products.
        assert np.all(np.abs(merged[name] - weights) <= 1.001 * HALF * np.abs(weights) + 1e-14)
    before, after = read_gguf(base), read_gguf(target)
    assert after.metadata == before.metadata
    assert list(after.tensors) == list(before.tensors)
    raw, written = raw_of(base), raw_of(target)
    assert {name for name in raw if raw[name] != written[name]} == set(first)


def test_logits_are_those_of_the_adapters_at_run_time(base: Path, tmp_path: Path) -> None:
    one, first = make_adapter(tmp_path, 1)
    two, second = make_adapter(tmp_path, 2, matrices=("attn_v", "ffn_up"))
    target = tmp_path / "out.gguf"
    merge_lora(base, [(one, 1.0), (two, 0.25)], target)
    merged = run_time.run(_core.Model(str(target)), [])
    model = _core.Model(str(base))
    pairs = [(load_adapter(model, one), 1.0), (load_adapter(model, two), 0.25)]
    applied = run_time.run(model, pairs)
    oracle = run_time.oracle_logits(base, [(first, 1.0), (second, 0.25)])
    plain = run_time.run(model, [])
    # Each matrix product sums at most 512 float32 products, some 15 of them one after the other.
    tolerance = 512**0.5 * 15 * HALF
    assert run_time.relative_rms(merged, oracle) < tolerance
    assert run_time.relative_rms(merged, applied.astype(np.float64)) < 2 * tolerance
    assert run_time.relative_rms(plain, oracle) > 100 * tolerance


@pytest.mark.parametrize("dtype", ["f16", "q8_0", "q4_0", "q4_k_m"])
def test_quantized_models_keep_their_types(dtype: str, base: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source.gguf", tmp_path / "out.gguf"
    quantize_gguf(base, source, dtype)
    adapter, pairs = make_adapter(tmp_path, 3, matrices=("attn_k", "ffn_gate"))
    plan = merge_lora(source, [(adapter, 1.0)], target, n_threads=2)
    assert any("quantized again" in note for note in plan.notes) == dtype.startswith("q")
    before, after = read_gguf(source), read_gguf(target)
    assert after.metadata == before.metadata
    assert {n: t.dtype for n, t in after.tensors.items()} == {
        n: t.dtype for n, t in before.tensors.items()
    }
    raw, written, expected = raw_of(source), raw_of(target), sums(source, [(pairs, 1.0)])
    for name, tensor in after.tensors.items():
        if name in pairs:
            stored = quantize(tensor.dtype, expected[name].astype(np.float32))
            assert written[name] == stored.tobytes(), name
            assert written[name] != raw[name]
        else:
            assert written[name] == raw[name], name


def test_another_type(base: Path, tmp_path: Path) -> None:
    adapter, pairs = make_adapter(tmp_path, 4)
    target, plain = tmp_path / "out.gguf", tmp_path / "plain.gguf"
    merge_lora(base, [(adapter, 2.0)], target, file_type="Q5_K_M")
    quantize_gguf(base, plain, "q5_k_m")
    assert read_gguf(target).metadata == read_gguf(plain).metadata
    expected, written = sums(base, [(pairs, 2.0)]), raw_of(target)
    for name, tensor in read_gguf(plain).tensors.items():
        rows = np.atleast_2d(expected[name]).astype(np.float32)
        assert written[name] == quantize(tensor.dtype, rows).tobytes(), name
    with pytest.raises(InvalidArgumentError, match="already and would become"):
        merge_lora(target, [(adapter, 1.0)], tmp_path / "no.gguf", file_type="q4_0")


def test_scale_zero_keeps_every_bit(base: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "q4.gguf", tmp_path / "out.gguf"
    quantize_gguf(base, source, "q4_0")
    adapter, _ = make_adapter(tmp_path, 5)
    assert merge_lora(source, [(adapter, 0.0)], target).n_merged == 0
    assert target.read_bytes() == source.read_bytes()


def test_peft_folder(tmp_path: Path) -> None:
    source = peft.MODEL.write(tmp_path / "model.gguf")
    folder, target = peft.write_peft(tmp_path / "peft", peft.MODEL), tmp_path / "out.gguf"
    merge_lora(source, [(folder, 1.0)], target)
    merged = floats_of(target)
    for name, weights in sums(source, [(peft.make_changes(peft.MODEL, 6), 9 / 6)]).items():
        assert np.all(np.abs(merged[name] - weights) <= 1.001 * HALF * np.abs(weights) + 1e-14)


class StopError(Exception):
    pass


def test_interrupted_runs_go_on(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyllamacpp_convert.pipeline._BAND", 1 << 12)
    monkeypatch.setattr("pyllamacpp_convert.pipeline._JOURNAL_SECONDS", 0.0)
    adapter, _ = make_adapter(tmp_path, 6)
    whole, target = tmp_path / "whole.gguf", tmp_path / "out.gguf"
    merge_lora(base, [(adapter, 0.5)], whole)

    def stop(progress) -> None:
        if progress.done > progress.total / 2:
            raise StopError

    with pytest.raises(StopError):
        merge_lora(base, [(adapter, 0.5)], target, progress=stop)
    assert not target.exists()
    with pytest.raises(FormatError, match="cannot resume: adapters"):
        merge_lora(base, [(adapter, 0.75)], target, resume=True)
    merge_lora(base, [(adapter, 0.5)], target, resume=True)
    assert target.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.glob("out*")) == ["out.gguf"]


def test_what_is_no_adapter_of_this_model(base: Path, tmp_path: Path) -> None:
    def refuses(error: type[PyllamacppError], sentence: str, path: Path) -> None:
        with pytest.raises(error, match=sentence):
            merge_lora(base, [(path, 1.0)], tmp_path / "out.gguf")
        assert not list(tmp_path.glob("out*"))

    refuses(FileError, "does not exist", tmp_path / "none")
    refuses(FormatError, "general.type is .*it is no LoRA adapter", base)
    refuses(FormatError, "no adapter_config.json", tmp_path)
    change = run_time.change
    cases = (
        (change(lora_a=lambda a: a[:, :-1]), {}, FormatError, "4 x 255.*for another model"),
        (change(lora_b=lambda b: b[:-1]), {}, FormatError, "127 x 4.*for another model"),
        (change(lora_b=lambda b: b[:, :3]), {}, FormatError, "128 x 3; expected"),
        (change(lora_a=lambda a: a * np.float32(np.nan)), {}, FormatError, "not finite"),
        (change(), {"alpha": math.nan}, FormatError, "alpha is nan"),
        (change(), {"alpha": 0.0}, FormatError, "alpha is 0"),
        (change(), {"architecture": "qwen2"}, FormatError, "for another model"),
        (change(), {"kind": "control_vector"}, FormatError, "no LoRA adapter"),
        ({}, {}, FormatError, "no tensors"),
        (
            {k: v for k, v in change().items() if k != "blk.1.attn_k.weight.lora_b"},
            {},
            FormatError,
            "blk.1.attn_k.weight.lora_b is missing",
        ),
        (
            {
                "blk.9.attn_q.weight.lora_a": np.ones((1, 256), np.float32),
                "blk.9.attn_q.weight.lora_b": np.ones((256, 1), np.float32),
            },
            {},
            UnsupportedError,
            "changes blk.9.attn_q.weight",
        ),
        (
            {"blk.0.attn_norm.weight": np.ones(256, np.float32)},
            {},
            UnsupportedError,
            "neither a .lora_a nor",
        ),
    )
    for i, (tensors, options, error, sentence) in enumerate(cases):
        path = run_time.write_adapter(tmp_path / f"{i}.gguf", tensors, **options)
        refuses(error, sentence, path)


def test_arguments(base: Path, tmp_path: Path) -> None:
    adapter, _ = make_adapter(tmp_path, 7)
    with pytest.raises(InvalidArgumentError, match="no adapter"):
        plan_merge(base, [])
    with pytest.raises(InvalidArgumentError, match="scale is nan, expected a finite number"):
        plan_merge(base, [(adapter, math.nan)])
    with pytest.raises(FormatError, match="not finite"):
        merge_lora(base, [(adapter, 1e300)], tmp_path / "out.gguf")
    assert not list(tmp_path.glob("out*"))
    with pytest.raises(InvalidArgumentError, match="is the file that is read"):
        merge_lora(base, [(adapter, 1.0)], adapter, force=True)


def test_the_alpaca_way(base: Path, tmp_path: Path) -> None:
    """docs/lora.md: a base model, an adapter and the prompt it was taught with."""
    adapter, pairs = make_adapter(tmp_path, 10)
    merged = tmp_path / "merged.gguf"
    merge_lora(base, [(adapter, 1.0)], merged)
    messages = [{"role": "user", "content": "Hi"}]
    options = {"n_ctx": 256, "chat_format": "alpaca", "type_k": 0, "type_v": 0, "verbose": False}

    def answer(path: Path, **more: object) -> tuple[list[int], int]:
        """The bytes of the first token, and how many the prompt has."""
        with Llama(str(path), **options, **more) as llm:
            result = llm.create_chat_completion(
                messages, temperature=0, max_tokens=1, logprobs=True
            )
        choice = result["choices"][0]
        return choice["logprobs"]["content"][0]["bytes"], result["usage"]["prompt_tokens"]

    prompt = (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nHi\n\n### Response:\n"
    )
    tokenizer = _core.Model(str(base)).tokenizer
    tokens = tokenizer.encode(prompt.encode(), True, False)
    oracle = LlamaNumpy.from_gguf(base)
    changed = LlamaNumpy(oracle.shape, sums(base, [(pairs, 1.0)]))
    best = int(changed.forward(tokens)[-1].argmax())
    expected = (list(tokenizer.decode([best], False)), len(tokens))
    assert answer(base, lora_path=str(adapter)) == expected
    assert answer(merged) == expected
    assert answer(base) != expected


def command(*args: object) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("pyllamacpp")
    return subprocess.run(
        [program, "merge-lora", *map(str, args)], capture_output=True, text=True, check=False
    )


def test_command(base: Path, tmp_path: Path) -> None:
    one, _ = make_adapter(tmp_path, 8)
    two = tmp_path / "a=b.gguf"
    two.write_bytes(make_adapter(tmp_path, 9)[0].read_bytes())
    target, expected = tmp_path / "out.gguf", tmp_path / "expected.gguf"
    merge_lora(base, [(one, 0.5), (two, 1.0)], expected)
    args = (base, f"{one}=0.5", two, "-o", target)
    dry = command(*args, "--dry-run")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert dry.stdout.startswith("2 adapters: 14 of 21 tensors change\n")
    assert not target.exists()
    result = command(*args)
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert target.read_bytes() == expected.read_bytes()
    again = command(*args)
    assert again.returncode == 1
    assert "out.gguf is there already; remove it, or use --force" in again.stderr
    assert len(again.stderr.splitlines()) == 1
    wrong = command(base, base, "-o", tmp_path / "x.gguf")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 1)
    assert "it is no LoRA adapter" in wrong.stderr
    assert command(base, f"{one}=half", "-o", target).returncode == 2
    assert command(base, "-o", target).returncode == 2
