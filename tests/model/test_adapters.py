"""LoRA adapters at run time, against float64 with the changes added to the weights."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
from pyllamacpp_convert.quantize import quantize_gguf

from pyllamacpp import _core
from pyllamacpp.errors import FormatError, InvalidArgumentError, PyllamacppError, UnsupportedError

sys.path.append(str(Path(__file__).resolve().parents[1] / "oracle"))
from llama_numpy import LlamaNumpy
from tiny_model import TinyModel

MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
TOKENS = [1, *(int(t) for t in 3 + np.random.default_rng(5).integers(0, 256, 70))]
MODEL = TinyModel(n_embd=256, n_ff=512, n_heads=4, n_kv_heads=2)
FLOATS = {"type_k": "f32", "type_v": "f32"}
Pairs = dict[str, tuple[np.ndarray, np.ndarray]]


def make_pairs(
    model: TinyModel, rank: int, seed: int, matrices: tuple[str, ...] = MATRICES
) -> Pairs:
    """A random pair for each matrix of every layer; the change is about 0.4 of the matrix."""
    rng = np.random.default_rng(seed)
    pairs = {}
    for name, weight in model.weights().items():
        if name.split(".")[-2] in matrices:
            rows, cols = weight.shape
            a = rng.standard_normal((rank, cols)) / cols**0.5
            b = 0.4 * rng.standard_normal((rows, rank)) / rank**0.5
            pairs[name] = (a.astype(np.float32), b.astype(np.float32))
    return pairs


def write_adapter(
    path: Path, tensors: Mapping[str, np.ndarray], alpha: float | None = 16.0, **text: str
) -> Path:
    writer = gguf.GGUFWriter(path, text.get("architecture", "llama"))
    writer.add_string("general.type", text.get("general", "adapter"))
    writer.add_string("adapter.type", text.get("kind", "lora"))
    if alpha is not None:
        writer.add_float32("adapter.lora.alpha", alpha)
    for name, tensor in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors_of(pairs: Pairs) -> dict[str, np.ndarray]:
    return {
        f"{name}.lora_{side}": tensor
        for name, pair in pairs.items()
        for side, tensor in zip("ab", pair, strict=True)
    }


def oracle_logits(path: Path, changes: list[tuple[Pairs, float]]) -> np.ndarray:
    """changes: (pairs, factor of each product)."""
    oracle = LlamaNumpy.from_gguf(path)
    weights = {name: w.astype(np.float64) for name, w in oracle.weights.items()}
    for pairs, factor in changes:
        for name, (a, b) in pairs.items():
            weights[name] = weights[name] + factor * (b.astype(np.float64) @ a.astype(np.float64))
    return LlamaNumpy(oracle.shape, weights).forward(TOKENS)


def run(
    model: _core.Model, adapters: list[tuple[_core.Adapter, float]], **options: object
) -> np.ndarray:
    context = _core.Context(model, n_ctx=128, **(FLOATS | options))
    context.set_adapters(0, adapters)
    context.decode([(0, TOKENS, "all")])
    return context.logits()


def relative_rms(ours: np.ndarray, oracle: np.ndarray) -> float:
    return float(np.sqrt(np.mean((ours - oracle) ** 2) / np.mean(oracle**2)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODEL.write(tmp_path_factory.mktemp("adapters") / "model.gguf")


@pytest.mark.parametrize("rank", [1, 2, 7, 8, 16, 17])
def test_ranks(rank: int, base: Path, tmp_path: Path) -> None:
    pairs = make_pairs(MODEL, rank, rank)
    path = write_adapter(tmp_path / "a.gguf", tensors_of(pairs), alpha=rank * 1.5)
    model = _core.Model(str(base))
    adapter = _core.Adapter(model, str(path))
    assert adapter.rank == rank
    ours = run(model, [(adapter, 0.5)])
    assert relative_rms(ours, oracle_logits(base, [(pairs, 0.75)])) < 1e-5
    assert relative_rms(ours, oracle_logits(base, [])) > 1e-2


@pytest.mark.parametrize("matrix", MATRICES)
def test_each_matrix(matrix: str, base: Path, tmp_path: Path) -> None:
    pairs = make_pairs(MODEL, 4, 3, (matrix,))
    path = write_adapter(tmp_path / "a.gguf", tensors_of(pairs), alpha=4.0)
    model = _core.Model(str(base))
    ours = run(model, [(_core.Adapter(model, str(path)), 1.0)])
    assert relative_rms(ours, oracle_logits(base, [(pairs, 1.0)])) < 1e-5
    assert relative_rms(ours, oracle_logits(base, [])) > 1e-3


# Activations are 8 bits here: what they cost the plain model is what they may cost this one.
@pytest.mark.parametrize("dtype", ["f16", "q8_0", "q4_0", "q4_k_s"])
def test_weight_types(dtype: str, base: Path, tmp_path: Path) -> None:
    path = tmp_path / "quantized.gguf"
    quantize_gguf(base, path, dtype, n_threads=2)
    pairs = make_pairs(MODEL, 8, 1)
    model = _core.Model(str(path))
    adapter = _core.Adapter(
        model, str(write_adapter(tmp_path / "a.gguf", tensors_of(pairs), alpha=8.0))
    )
    plain = relative_rms(run(model, []), oracle_logits(path, []))
    changed = relative_rms(run(model, [(adapter, 1.0)]), oracle_logits(path, [(pairs, 1.0)]))
    assert changed < 2 * plain + 1e-5
    assert relative_rms(run(model, [(adapter, 1.0)]), oracle_logits(path, [])) > 4 * changed


def test_two_adapters_add(base: Path) -> None:
    first, second = make_pairs(MODEL, 3, 1), make_pairs(MODEL, 11, 2, ("attn_q", "ffn_down"))
    model = _core.Model(str(base))
    adapters = [
        _core.Adapter.from_arrays(model, "x", {k: (*v, 1.0) for k, v in pairs.items()})
        for pairs in (first, second)
    ]
    ours = run(model, [(adapters[0], 0.5), (adapters[1], -1.25)])
    assert relative_rms(ours, oracle_logits(base, [(first, 0.5), (second, -1.25)])) < 1e-5


@pytest.fixture(scope="module", params=["f32", "q4_0", "q4_k_s"])
def model(
    request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> _core.Model:
    path = tmp_path_factory.mktemp("types") / "model.gguf"
    quantize_gguf(base, path, request.param, n_threads=2)
    return _core.Model(str(path))


def adapter_of(model: _core.Model, rank: int, seed: int) -> _core.Adapter:
    pairs = make_pairs(MODEL, rank, seed)
    return _core.Adapter.from_arrays(model, "a", {k: (*v, 1.0) for k, v in pairs.items()})


def test_each_sequence_has_its_own(model: _core.Model) -> None:
    """In one batch, at any split, on any number of threads: the bits of each alone."""
    one, two = adapter_of(model, 5, 1), adapter_of(model, 16, 2)
    sets = [[], [(one, 1.0)], [(two, 0.5)], [(one, 0.25), (two, 1.0)]]
    alone = [run(model, uses, n_threads=1) for uses in sets]
    for i in range(len(sets)):
        assert not any(np.array_equal(alone[i], alone[j]) for j in range(i))
    for n_threads in (1, 3):
        for n_batch in (128, 37):
            context = _core.Context(
                model, n_ctx=128, n_batch=n_batch, n_threads=n_threads, max_sequences=4,
                n_parallel=4, **FLOATS,
            )  # fmt: skip
            for i, uses in enumerate(sets):
                context.set_adapters(i, uses)
            context.decode([(i, TOKENS[:-3], "all") for i in range(4)])
            rows = context.logits().reshape(4, len(TOKENS) - 3, -1)
            for i in range(4):
                assert np.array_equal(rows[i], alone[i][:-3])
            for at in range(len(TOKENS) - 3, len(TOKENS)):
                context.decode([(i, [TOKENS[at]], "last") for i in (2, 0, 3, 1)])
                for row, i in zip(context.logits(), (2, 0, 3, 1), strict=True):
                    assert np.array_equal(row, alone[i][at])


def test_swapped_between_calls(model: _core.Model) -> None:
    adapter = adapter_of(model, 9, 1)
    context = _core.Context(model, n_ctx=128, **FLOATS)

    def logits() -> np.ndarray:
        context.decode([(0, TOKENS, "all")])
        return context.logits()

    plain = logits()
    assert np.array_equal(plain, run(model, []))
    context.set_adapters(0, [(adapter, 1.0)])
    assert context.length(0) == 0
    changed = logits()
    assert np.array_equal(changed, run(model, [(adapter, 1.0)]))
    context.set_adapters(0, [(adapter, 1.0)])
    assert context.length(0) == len(TOKENS)
    context.set_adapters(0, [(adapter, 0.0)])
    assert context.length(0) == 0
    assert np.array_equal(logits(), plain)


def test_prefixes_are_those_of_the_same_adapters(model: _core.Model) -> None:
    adapter = adapter_of(model, 2, 1)
    context = _core.Context(model, n_ctx=128, max_sequences=3)
    context.set_adapters(1, [(adapter, 1.0)])
    context.decode([(0, TOKENS[:5], "none"), (1, TOKENS[:9], "none")])
    assert context.best_match(TOKENS) == (0, 5)
    assert context.best_match(TOKENS, [(adapter, 1.0)]) == (1, 9)
    assert context.best_match(TOKENS, [(adapter, 2.0)]) == (0, 0)
    context.fork(1, 2)
    context.decode([(1, TOKENS[9:12], "last")])
    first = context.logits()
    context.decode([(2, TOKENS[9:12], "last")])
    assert np.array_equal(context.logits(), first)


def test_default_model_changes_and_comes_back(default_model: Path) -> None:
    model = _core.Model(str(default_model))
    config = model.config
    rng = np.random.default_rng(0)
    adapter = _core.Adapter.from_arrays(
        model,
        "small",
        {
            f"blk.{i}.ffn_down.weight": (
                rng.standard_normal((4, config.n_ff), np.float32),
                rng.standard_normal((config.n_embd, 4), np.float32),
                1.0,
            )
            for i in range(config.n_layers)
        },
    )
    context = _core.Context(model, n_ctx=64)

    def text() -> tuple[bytes, bytes]:
        tokens, bits = model.tokenizer.encode(b"The capital of France is", True, False), b""
        for _ in range(8):
            context.decode([(0, tokens[context.length(0) :], "last")])
            bits += context.logits().tobytes()
            tokens.append(int(context.logits()[0].argmax()))
        return model.tokenizer.decode(tokens, True), bits

    plain = text()
    context.set_adapters(0, [(adapter, 1.0)])
    changed = text()
    assert changed[0] != plain[0]
    context.set_adapters(0, [])
    assert text() == plain


def change(**tensors: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """Good tensors of one matrix, those named (lora_a, lora_b) changed."""
    good = tensors_of(make_pairs(MODEL, 4, 1, ("attn_k",)))
    prefix = "blk.0.attn_k.weight."
    return {n: good[n] for n in good} | {
        prefix + n: f(good[prefix + n]) for n, f in tensors.items()
    }


@pytest.mark.parametrize(
    ("tensors", "options", "error", "sentence"),
    [
        (change(lora_a=lambda a: a[:, :-1]), {}, FormatError, "attn_k.weight.lora_a.*255.*256"),
        (change(lora_b=lambda b: b[:-1]), {}, FormatError, "attn_k.weight.lora_b.*127.*128 rows"),
        (change(lora_b=lambda b: b[:, :3]), {}, FormatError, "lora_b.*rows of 3.*expected 4"),
        (change(lora_b=lambda b: b.T), {}, FormatError, "lora_b"),
        (change(lora_a=lambda a: a * np.float32(np.nan)), {}, FormatError, "lora_a.*not finite"),
        (change(lora_b=lambda b: b * np.float32(np.inf)), {}, FormatError, "lora_b.*not finite"),
        (change(), {"alpha": math.nan}, FormatError, "alpha is nan"),
        (change(), {"alpha": math.inf}, FormatError, "alpha is inf"),
        (change(), {"alpha": 0.0}, FormatError, "alpha is 0"),
        (change(), {"alpha": None}, FormatError, "adapter.lora.alpha"),
        (change(), {"general": "model"}, FormatError, "general.type"),
        (change(), {"kind": "control_vector"}, FormatError, "adapter.type"),
        (change(), {"architecture": "qwen2"}, FormatError, "general.architecture"),
        ({}, {}, FormatError, "no tensors"),
        (
            {k: v for k, v in change().items() if k != "blk.1.attn_k.weight.lora_b"},
            {},
            FormatError,
            "blk.1.attn_k.weight.lora_b' is missing",
        ),
        (
            change() | {"blk.0.attn_norm.weight": np.ones(256, np.float32)},
            {},
            UnsupportedError,
            "blk.0.attn_norm.weight",
        ),
        *(
            (
                {
                    f"{name}.lora_a": np.ones((1, 256), np.float32),
                    f"{name}.lora_b": np.ones((256, 1), np.float32),
                },
                {},
                UnsupportedError,
                name,
            )
            for name in ("token_embd.weight", "output.weight", "blk.2.attn_q.weight", "blk.-1.x")
        ),
    ],
)
def test_hostile_adapters(
    tensors: dict[str, np.ndarray],
    options: dict[str, object],
    error: type[PyllamacppError],
    sentence: str,
    base: Path,
    tmp_path: Path,
) -> None:
    path = write_adapter(tmp_path / "a.gguf", tensors, **options)
    with pytest.raises(error, match=sentence):
        _core.Adapter(_core.Model(str(base)), str(path))


def test_cut_files(base: Path, tmp_path: Path) -> None:
    whole = write_adapter(tmp_path / "a.gguf", change()).read_bytes()
    model = _core.Model(str(base))
    for n in (0, 3, 40, 200, len(whole) // 2, len(whole) - 64):
        (tmp_path / "cut.gguf").write_bytes(whole[:n])
        with pytest.raises(PyllamacppError, match=r"cut\.gguf"):
            _core.Adapter(model, str(tmp_path / "cut.gguf"))


def test_wrong_use(base: Path) -> None:
    model, other = _core.Model(str(base)), _core.Model(str(base))
    adapter = adapter_of(model, 1, 1)
    with pytest.raises(InvalidArgumentError, match="another model"):
        run(other, [(adapter, 1.0)])
    with pytest.raises(InvalidArgumentError, match="scale is nan"):
        run(model, [(adapter, math.nan)])
    with pytest.raises(InvalidArgumentError):
        _core.Context(model, n_ctx=32).set_adapters(1, [])
    pair = (np.ones(256, np.float32), np.ones((256, 1), np.float32), 1.0)
    with pytest.raises(InvalidArgumentError, match="1 dimensions, expected 2"):
        _core.Adapter.from_arrays(model, "x", {"blk.0.attn_q.weight": pair})
