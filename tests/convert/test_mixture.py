"""Which tensor gets which type."""

import json
import re
from pathlib import Path
from typing import Any

import gguf
import pytest
from pyllamacpp_convert.mixture import (
    ALIASES,
    CONDITIONS,
    FALLBACKS,
    FILE_TYPES,
    choose_types,
    file_type_named,
)

from pyllamacpp.errors import InvalidArgumentError
from pyllamacpp.kernels import TYPE_IDS, bytes_of

ROOT = Path(__file__).resolve().parents[2]
CASES = json.loads((ROOT / "tests" / "data" / "mixtures.json").read_text("utf-8"))


def tensors_of(
    n_layers: int, n_heads: int, n_kv_heads: int, n_embd: int, n_ff: int, tied: bool
) -> list[tuple[str, tuple[int, ...]]]:
    kv = n_embd // n_heads * n_kv_heads
    tensors: list[tuple[str, tuple[int, ...]]] = [("token_embd.weight", (259, n_embd))]
    for i in range(n_layers):
        p = f"blk.{i}."
        tensors += [
            (p + "attn_norm.weight", (n_embd,)),
            (p + "attn_q.weight", (n_embd, n_embd)),
            (p + "attn_q.bias", (n_embd,)),
            (p + "attn_k.weight", (kv, n_embd)),
            (p + "attn_v.weight", (kv, n_embd)),
            (p + "attn_output.weight", (n_embd, n_embd)),
            (p + "ffn_gate.weight", (n_ff, n_embd)),
            (p + "ffn_up.weight", (n_ff, n_embd)),
            (p + "ffn_down.weight", (n_embd, n_ff)),
        ]
    if not tied:
        tensors.append(("output.weight", (259, n_embd)))
    return tensors


def layers_of(runs: str) -> list[str]:
    """ "2*q6_k 1*q4_k" as ["q6_k", "q6_k", "q4_k"]."""
    pairs = [run.split("*") for run in runs.split()]
    return [dtype for n, dtype in pairs for _ in range(int(n))]


def choose(file_type: str, shape: dict[str, Any], **options: Any) -> tuple[dict[str, str], list]:
    counts = {key: shape[key] for key in ("n_layers", "n_heads", "n_kv_heads")}
    return choose_types(file_type, tensors_of(**shape), **counts, **options)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['shape']}, {c['importance']}")
def test_the_choices_are_the_peers(case: dict[str, Any]) -> None:
    assert case["importance"] or case["types"].keys() == FILE_TYPES.keys()
    for file_type, expected in case["types"].items():
        ours, _ = choose(file_type, case["shape"], has_importance=case["importance"])
        for name, dtype in ours.items():
            layer, part = re.fullmatch(r"(?:blk\.(\d+)\.)?(.+)", name).groups()
            theirs = (
                layers_of(expected[part])[int(layer or 0)] if part in expected else expected["*"]
            )
            if part.endswith(("norm.weight", "bias")):
                theirs = "f32"
            assert dtype == theirs, (file_type, name)


SMALL = {"n_layers": 8, "n_heads": 8, "n_kv_heads": 2, "n_embd": 512, "n_ff": 512, "tied": False}


def test_file_types_are_numbered_as_in_gguf() -> None:
    for name, file_type in FILE_TYPES.items():
        prefix = "ALL_" if name == "f32" else "MOSTLY_"
        assert gguf.LlamaFileType[prefix + name.upper()].value == file_type.number
    for alias, name in ALIASES.items():
        assert file_type_named(alias.upper()) == name
    with pytest.raises(InvalidArgumentError, match="unknown file type 'q4_2', expected one of f32"):
        file_type_named("q4_2")


def test_rules_name_what_there_is() -> None:
    parts = {name.split(".")[2] for name, _ in tensors_of(**SMALL) if name.startswith("blk.")}
    for file_type in FILE_TYPES.values():
        assert file_type.base in TYPE_IDS
        for rule in file_type.rules:
            assert rule.part in parts
            assert rule.dtype in TYPE_IDS
            assert rule.when in CONDITIONS


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_pure(file_type: str) -> None:
    types, fallbacks = choose(file_type, SMALL, pure=True)
    for name, shape in tensors_of(**SMALL):
        assert types[name] == ("f32" if len(shape) == 1 else FILE_TYPES[file_type].base)
    assert fallbacks == []


def test_types_by_name() -> None:
    rules = [(r"blk\.[01]\.ffn_down", "Q8_0"), ("ffn_down", "q2_k"), ("attn_q", "f16")]
    types, _ = choose(
        "q4_k_m", SMALL, tensor_types=rules, output_type="q5_1", embedding_type="BF16"
    )
    assert types["blk.1.ffn_down.weight"] == "q8_0"
    assert types["blk.2.ffn_down.weight"] == "q2_k"
    assert types["blk.0.attn_q.weight"] == "f16"
    assert types["blk.0.attn_q.bias"] == types["blk.0.attn_norm.weight"] == "f32"
    assert types["blk.0.attn_v.weight"] == "q6_k"
    assert (types["output.weight"], types["token_embd.weight"]) == ("q5_1", "bf16")
    # Also over a float type, and in a pure file.
    assert choose("f16", SMALL, tensor_types=[("_q", "q8_0")])[0]["blk.3.attn_q.weight"] == "q8_0"
    assert choose("q4_0", SMALL, pure=True, output_type="q6_k")[0]["output.weight"] == "q6_k"
    # A tied embedding is the output matrix, unless it is named as the embedding.
    tied = SMALL | {"tied": True}
    assert choose("q4_k_m", tied)[0]["token_embd.weight"] == "q6_k"
    assert choose("q4_k_m", tied, output_type="f16")[0]["token_embd.weight"] == "f16"
    both = choose("q4_k_m", tied, output_type="f16", embedding_type="q8_0")[0]
    assert both["token_embd.weight"] == "q8_0"


def test_rows_that_do_not_fit() -> None:
    odd = SMALL | {"n_embd": 288, "n_ff": 40, "n_heads": 9, "n_kv_heads": 9}
    for dtype, instead in FALLBACKS.items():
        types, fallbacks = choose("q4_0", odd, pure=True, tensor_types=[("attn_q", dtype)])
        assert types["blk.0.attn_q.weight"] == instead
        assert ("blk.0.attn_q.weight", 288, dtype, instead) in fallbacks
        # Rows of 40 weights are not even blocks of 32.
        assert types["blk.0.ffn_down.weight"] == "f16"
        assert ("blk.0.ffn_down.weight", 40, "q4_0", "f16") in fallbacks
        # As near in size as a type of 32 can be.
        assert 1 <= bytes_of(instead, 256) / bytes_of(dtype, 256) < 1.75
    assert set(FALLBACKS) == {
        dtype for dtype, n in TYPE_IDS.items() if gguf.GGML_QUANT_SIZES[n][0] == 256
    }


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tensor_types": [("ffn_dwn", "q8_0")]}, "pattern 'ffn_dwn' matches no matrix"),
        ({"tensor_types": [("attn_norm", "q8_0")]}, "pattern 'attn_norm' matches no matrix"),
        ({"tensor_types": [("(", "q8_0")]}, r"pattern '\(': missing \)"),
        (
            {"tensor_types": [("attn", "q4_k_m")]},
            "unknown tensor type 'q4_k_m', expected one of f32",
        ),
        ({"output_type": "q9"}, "unknown tensor type 'q9'"),
        ({"embedding_type": "i8"}, "unknown tensor type 'i8'"),
    ],
)
def test_bad_requests(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidArgumentError, match=sentence):
        choose("q4_k_m", SMALL, **options)


def table() -> list[str]:
    """The rows of docs/quantization.md."""
    rows = []
    for name, file_type in FILE_TYPES.items():
        parts: dict[str, list[str]] = {}
        for rule in file_type.rules:
            parts.setdefault(rule.part, []).append(f"{rule.dtype} {rule.when}".strip())
        rules = "; ".join(f"`{part}`: {', else '.join(whens)}" for part, whens in parts.items())
        bits = bytes_of(file_type.base, 256) * 8 / 256
        rows.append(
            f"| `{name}` | {file_type.description} | {bits:g} | {file_type.base} | {rules} |"
        )
    return rows


def test_the_page_has_this_table() -> None:
    page = (ROOT / "docs" / "quantization.md").read_text("utf-8").splitlines()
    found = [line for line in page if line.startswith("| `") and line.count("|") == 6]
    assert found == table()
    fallbacks = [f"`{dtype}` by `{instead}`" for dtype, instead in FALLBACKS.items()]
    assert ", ".join(fallbacks) in " ".join(page)
