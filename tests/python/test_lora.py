"""Adapters as PEFT saves them: read, reordered as the model's file is, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pyllamacpp import _core
from pyllamacpp.errors import FileError, FormatError, PyllamacppError, UnsupportedError
from pyllamacpp.lora import adapter_bytes, load_adapter

sys.path.append(str(Path(__file__).resolve().parents[1] / "oracle"))
from tiny_model import TinyModel

MODULES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONFIG = {"peft_type": "LORA", "r": 6, "lora_alpha": 9, "bias": "none", "use_dora": False}
MODEL = TinyModel()  # 4 heads of 16 and 2 of keys, 2 layers
TOKENS = [1, *range(40, 70)]


def safetensors_bytes(tensors: dict[str, np.ndarray]) -> bytes:
    header, data = {}, b""
    for name, tensor in tensors.items():
        end = len(data) + tensor.nbytes
        kind = {"float32": "F32", "float16": "F16"}[tensor.dtype.name]
        header[name] = {
            "dtype": kind,
            "shape": list(tensor.shape),
            "data_offsets": [len(data), end],
        }
        data += tensor.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def halves_apart(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """GGUF's rows of queries or keys in Hugging Face's order: even ones of a head first."""
    heads = rows.reshape(n_heads, -1, rows.shape[1])
    return np.concatenate([heads[:, 0::2], heads[:, 1::2]], axis=1).reshape(rows.shape)


def make_changes(model: TinyModel, rank: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By GGUF names, in GGUF's order; exact in half precision."""
    rng = np.random.default_rng(3)
    return {
        name: (
            rng.integers(-8, 9, (rank, w.shape[1])).astype(np.float16) / np.float16(64),
            rng.integers(-8, 9, (w.shape[0], rank)).astype(np.float16) / np.float16(64),
        )
        for name, w in model.weights().items()
        if name.split(".")[-2] in MODULES and w.ndim == 2
    }


def write_peft(
    folder: Path, model: TinyModel, rank: int = 6, dtype: type = np.float32, **config: object
) -> Path:
    folder.mkdir()
    tensors = {}
    for name, (a, b) in make_changes(model, rank).items():
        _, layer, matrix, _ = name.split(".")
        rows = b
        n_heads = {"attn_q": model.n_heads, "attn_k": model.n_kv_heads}.get(matrix)
        if n_heads and model.architecture == "llama":
            rows = halves_apart(b, n_heads)
        prefix = f"base_model.model.model.layers.{layer}.{MODULES[matrix]}."
        tensors[prefix + "lora_A.weight"] = a.astype(dtype)
        tensors[prefix + "lora_B.weight"] = rows.astype(dtype)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    return folder


def logits(model: _core.Model, adapter: _core.Adapter) -> np.ndarray:
    context = _core.Context(model, n_ctx=64)
    context.set_adapters(0, [(adapter, 1.0)])
    context.decode([(0, TOKENS, "all")])
    return context.logits()


def expected(model: _core.Model, tiny: TinyModel, rank: int, scale: float) -> np.ndarray:
    changes = {
        name: (a.astype(np.float32), b.astype(np.float32), scale)
        for name, (a, b) in make_changes(tiny, rank).items()
    }
    return logits(model, _core.Adapter.from_arrays(model, "expected", changes))


@pytest.mark.parametrize(
    "tiny",
    [MODEL, TinyModel(architecture="qwen2", qkv_bias=True)],
    ids=lambda tiny: str(tiny.architecture),
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_folder(tiny: TinyModel, dtype: type, tmp_path: Path) -> None:
    model = _core.Model(str(tiny.write(tmp_path / "model.gguf")))
    folder = write_peft(tmp_path / "peft", tiny, dtype=dtype)
    adapter = load_adapter(model, folder)
    assert adapter.rank == 6
    assert adapter.n_bytes == adapter_bytes(folder)
    assert np.array_equal(logits(model, adapter), expected(model, tiny, 6, 9 / 6))


def test_rank_stabilized(tmp_path: Path) -> None:
    model = _core.Model(str(MODEL.write(tmp_path / "model.gguf")))
    folder = write_peft(tmp_path / "peft", MODEL, rank=4, use_rslora=True)
    assert np.array_equal(
        logits(model, load_adapter(model, folder)), expected(model, MODEL, 4, 9 / 2)
    )


def test_alpha_pattern(tmp_path: Path) -> None:
    model = _core.Model(str(MODEL.write(tmp_path / "model.gguf")))
    pattern = {"self_attn.q_proj": 3, "layers.1.mlp.up_proj": 12}
    folder = write_peft(tmp_path / "peft", MODEL, alpha_pattern=pattern)
    changes = {}
    for name, (a, b) in make_changes(MODEL, 6).items():
        alpha = 3 if "attn_q" in name else 12 if name == "blk.1.ffn_up.weight" else 9
        changes[name] = (a.astype(np.float32), b.astype(np.float32), alpha / 6)
    right = _core.Adapter.from_arrays(model, "expected", changes)
    assert np.array_equal(logits(model, load_adapter(model, folder)), logits(model, right))


@pytest.mark.parametrize(
    ("config", "error", "sentence"),
    [
        ({"use_dora": True}, UnsupportedError, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, UnsupportedError, "modules_to_save.*lm_head"),
        ({"bias": "all"}, UnsupportedError, "bias"),
        ({"fan_in_fan_out": True}, UnsupportedError, "fan_in_fan_out"),
        ({"peft_type": "IA3"}, UnsupportedError, "peft_type is 'IA3'"),
        ({"lora_alpha": None}, FormatError, "lora_alpha is None"),
        ({"lora_alpha": float("nan")}, FormatError, "lora_alpha is nan"),
        ({"alpha_pattern": {"(a+)+b": 1}}, UnsupportedError, "alpha_pattern"),
        ({"alpha_pattern": 3}, FormatError, "alpha_pattern"),
    ],
)
def test_configurations_refused(
    config: dict[str, object], error: type[PyllamacppError], sentence: str, tmp_path: Path
) -> None:
    model = _core.Model(str(MODEL.write(tmp_path / "model.gguf")))
    with pytest.raises(error, match=sentence):
        load_adapter(model, write_peft(tmp_path / "peft", MODEL, **config))


PREFIX = "base_model.model.model.layers.0.self_attn.q_proj."
ONES = np.ones((64, 2), np.float32)


@pytest.mark.parametrize(
    ("tensors", "error", "sentence"),
    [
        ({}, FormatError, "no tensors"),
        ({PREFIX + "lora_A.weight": ONES.T}, FormatError, "lora_B of .*q_proj is missing"),
        (
            {PREFIX + "lora_A.weight": ONES.T, PREFIX + "lora_B.weight": ONES[:, :1].copy()},
            FormatError,
            "2 rows, but lora_B 1 columns",
        ),
        (
            {PREFIX + "lora_A.weight": ONES.T, PREFIX + "lora_B.weight": ONES[:60]},
            FormatError,
            "lora_B .*60 rows",
        ),
        (
            {PREFIX + "lora_A.weight": ONES.T[:, :60].copy(), PREFIX + "lora_B.weight": ONES},
            FormatError,
            "attn_q.weight.lora_a.*60",
        ),
        (
            {
                PREFIX.replace("layers.0", "layers.7") + "lora_A.weight": ONES.T,
                PREFIX.replace("layers.0", "layers.7") + "lora_B.weight": ONES,
            },
            UnsupportedError,
            r"blk\.7\.attn_q",
        ),
        ({PREFIX + "lora_magnitude_vector": ONES}, UnsupportedError, "lora_magnitude_vector"),
        ({"base_model.model.lm_head.weight": ONES}, UnsupportedError, "lm_head"),
        (
            {"base_model.model.model.embed_tokens.lora_embedding_A": ONES},
            UnsupportedError,
            "embed_tokens",
        ),
    ],
)
def test_weights_refused(
    tensors: dict[str, np.ndarray],
    error: type[PyllamacppError],
    sentence: str,
    tmp_path: Path,
) -> None:
    model = _core.Model(str(MODEL.write(tmp_path / "model.gguf")))
    folder = write_peft(tmp_path / "peft", MODEL)
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    with pytest.raises(error, match=sentence):
        load_adapter(model, folder)


def test_no_adapter(tmp_path: Path) -> None:
    path = MODEL.write(tmp_path / "model.gguf")
    model = _core.Model(str(path))
    with pytest.raises(FileError, match="does not exist"):
        load_adapter(model, tmp_path / "nothing")
    with pytest.raises(FormatError, match=r"general\.type"):
        load_adapter(model, path)
    with pytest.raises(FormatError, match=r"adapter_config\.json"):
        load_adapter(model, tmp_path)
    (tmp_path / "adapter_config.json").write_text("[")
    with pytest.raises(FormatError, match="not JSON"):
        load_adapter(model, tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(FormatError, match=r"neither adapter_model\.safetensors"):
        load_adapter(model, tmp_path)
