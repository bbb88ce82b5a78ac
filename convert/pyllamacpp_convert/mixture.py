"""Which tensor gets which type: the mixtures that users of `q4_k_m` and its kin expect.

A file type has a base type for its matrices; a few rules give those that suffer most from few bits
more of them. The choices are those of llama.cpp's llama-quantize for LLaMA-like models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pyllamacpp.errors import InvalidArgumentError
from pyllamacpp.kernels import TYPE_IDS, bytes_of

EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"


@dataclass(frozen=True)
class Place:
    """A matrix's layer (0 first), and what its model and the request are like."""

    layer: int
    n_layers: int
    queries_per_key: int
    has_importance: bool

    def before(self, share: int) -> bool:
        """In the first n_layers / share layers."""
        return self.layer < self.n_layers // share


def _spread(p: Place) -> bool:
    eighth = p.n_layers // 8
    return p.before(8) or p.layer >= 7 * p.n_layers // 8 or (p.layer - eighth) % 3 == 2


# Conditions of the rules, as docs/quantization.md calls them.
CONDITIONS: dict[str, Callable[[Place], bool]] = {
    "": lambda _: True,
    "in layers 0 and 1": lambda p: p.layer < 2,
    "in layers 0 to 3": lambda p: p.layer < 4,
    "in the first sixteenth": lambda p: p.before(16),
    "in the first eighth": lambda p: p.before(8),
    "in the first eighth, with importance": lambda p: p.before(8) and p.has_importance,
    "in the first eighth, without importance": lambda p: p.before(8) and not p.has_importance,
    "in the first and last eighth and every third layer between": _spread,
    "where 4 heads or more share a key": lambda p: p.queries_per_key >= 4,
}


class Rule(NamedTuple):
    """Matrices named blk.N.`part`.weight become `dtype` where the condition holds."""

    part: str
    dtype: str
    when: str = ""


@dataclass(frozen=True)
class FileType:
    """number: GGUF's general.file_type. The first rule of a part that holds counts."""

    number: int
    base: str
    description: str
    rules: tuple[Rule, ...] = ()


_SPREAD = "in the first and last eighth and every third layer between"
_GROUPED = "where 4 heads or more share a key"
_EIGHTH = "in the first eighth"

# By the names users type, from the largest to the smallest.
FILE_TYPES: dict[str, FileType] = {
    "f32": FileType(0, "f32", "every weight as a float32"),
    "f16": FileType(1, "f16", "half precision"),
    "bf16": FileType(32, "bf16", "half the bits of a float32, all of its range"),
    "q8_0": FileType(7, "q8_0", "8 bits; hardly to be told from f16"),
    "q6_k": FileType(18, "q6_k", "6 bits; very close to f16"),
    "q5_1": FileType(9, "q5_1", "5 bits with an offset per 32 weights"),
    "q5_k_m": FileType(
        17,
        "q5_k",
        "5 bits, more where it matters; close to f16",
        (Rule("attn_v", "q6_k", _SPREAD), Rule("ffn_down", "q6_k", _SPREAD)),
    ),
    "q5_k_s": FileType(16, "q5_k", "5 bits"),
    "q5_0": FileType(
        8,
        "q5_0",
        "5 bits with a scale per 32 weights",
        (Rule("ffn_down", "q5_1", f"{_EIGHTH}, with importance"),),
    ),
    "q4_1": FileType(3, "q4_1", "4 bits with an offset per 32 weights"),
    "q4_k_m": FileType(
        15,
        "q4_k",
        "4 bits, more where it matters; the usual choice",
        (Rule("attn_v", "q6_k", _SPREAD), Rule("ffn_down", "q6_k", _SPREAD)),
    ),
    "q4_k_s": FileType(
        14,
        "q4_k",
        "4 bits, a little more in the first layers",
        (Rule("attn_v", "q5_k", "in layers 0 to 3"), Rule("ffn_down", "q5_k", _EIGHTH)),
    ),
    "q4_0": FileType(
        2,
        "q4_0",
        "4 bits with a scale per 32 weights; fast",
        (Rule("ffn_down", "q4_1", f"{_EIGHTH}, with importance"),),
    ),
    "iq4_nl": FileType(
        25,
        "iq4_nl",
        "4 bits of uneven steps, per 32 weights",
        (
            Rule("attn_v", "q5_k", _GROUPED),
            Rule("ffn_down", "q5_k", f"{_EIGHTH}, without importance"),
        ),
    ),
    "iq4_xs": FileType(
        30,
        "iq4_xs",
        "4 bits of uneven steps, per 256 weights",
        (
            Rule("attn_v", "q5_k", _GROUPED),
            Rule("ffn_down", "q5_k", f"{_EIGHTH}, without importance"),
        ),
    ),
    "q3_k_l": FileType(
        13,
        "q3_k",
        "3 bits, 5 where it matters",
        (Rule("attn_v", "q5_k"), Rule("attn_output", "q5_k"), Rule("ffn_down", "q5_k")),
    ),
    "q3_k_m": FileType(
        12,
        "q3_k",
        "3 bits, 4 where it matters; a visible loss",
        (
            Rule("attn_v", "q5_k", "in layers 0 and 1"),
            Rule("attn_v", "q4_k"),
            Rule("attn_output", "q4_k"),
            Rule("ffn_down", "q5_k", "in the first sixteenth"),
            Rule("ffn_down", "q4_k"),
        ),
    ),
    "q3_k_s": FileType(11, "q3_k", "3 bits; a large loss"),
    "q2_k": FileType(
        10,
        "q2_k",
        "2 bits, 3 where it matters; a very large loss",
        (
            Rule("attn_v", "q4_k", _GROUPED),
            Rule("attn_v", "q3_k"),
            Rule("attn_output", "q3_k"),
            Rule("ffn_down", "q3_k"),
        ),
    ),
}

# Short names of the usual mixtures.
ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m"}

FLOAT_TYPES = ("f32", "f16", "bf16")

# What a row of other than a multiple of 256 weights is stored as instead.
FALLBACKS = {
    "q2_k": "q4_0",
    "q3_k": "q4_0",
    "q4_k": "q5_0",
    "q5_k": "q5_1",
    "q6_k": "q8_0",
    "iq4_xs": "iq4_nl",
}


class Fallback(NamedTuple):
    """A tensor whose rows of `n_columns` weights `wanted` cannot hold."""

    name: str
    n_columns: int
    wanted: str
    dtype: str


class Types(NamedTuple):
    """The type of each tensor by its name, and where it is not the one that was wanted."""

    dtypes: dict[str, str]
    fallbacks: list[Fallback]


def file_type_named(name: str) -> str:
    """The key of FILE_TYPES for a name in any case, or an alias.

    Raises InvalidArgumentError for any other name.
    """
    key = name.lower()
    key = ALIASES.get(key, key)
    if key not in FILE_TYPES:
        raise InvalidArgumentError(
            f"unknown file type {name!r}, expected one of {', '.join(FILE_TYPES)}"
        )
    return key


def is_quantizable(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is a matrix of weights; the others stay float32."""
    return (
        len(shape) >= 2
        and math.prod(shape[:-1]) > 1
        and name.endswith(".weight")
        and not name.endswith(("_norm.weight", "ffn_gate_inp.weight"))
    )


def choose_types(
    file_type: str,
    tensors: Sequence[tuple[str, Sequence[int]]],
    *,
    n_layers: int,
    n_heads: int,
    n_kv_heads: int,
    pure: bool = False,
    tensor_types: Sequence[tuple[str, str]] = (),
    output_type: str | None = None,
    embedding_type: str | None = None,
    has_importance: bool = False,
) -> Types:
    """The type of each of `tensors`, given by name and shape (rows first).

    Without an output.weight the embedding serves as the output matrix and is stored as such.

    Args:
        file_type: A key of FILE_TYPES.
        pure: Every matrix in the base type, no mixture.
        tensor_types: (regex, type): matrices whose name the regex matches somewhere get the type;
            the first that matches counts.
        output_type: Of the output matrix.
        embedding_type: Of the embedding.
        has_importance: Whether weights are chosen by importance, which changes a few choices.

    Raises:
        InvalidArgumentError: A name of a type or a regex is wrong, or a regex matches no matrix.
    """
    chosen = FILE_TYPES[file_type_named(file_type)]
    patterns = [(_compiled(regex), _dtype_named(dtype)) for regex, dtype in tensor_types]
    tied = OUTPUT not in {name for name, _ in tensors}
    place = Place(0, n_layers, n_heads // n_kv_heads, has_importance)
    dtypes: dict[str, str] = {}
    fallbacks: list[Fallback] = []
    used: set[int] = set()
    for name, shape in tensors:
        if not is_quantizable(name, shape):
            dtypes[name] = "f32"
            continue
        matching = [i for i, (regex, _) in enumerate(patterns) if regex.search(name)]
        used.update(matching)
        columns = shape[-1]
        if name == EMBEDDING and embedding_type:
            wanted = _dtype_named(embedding_type)
        elif (name == OUTPUT or (tied and name == EMBEDDING)) and output_type:
            wanted = _dtype_named(output_type)
        elif matching:
            wanted = patterns[matching[0]][1]
        elif pure or chosen.base in FLOAT_TYPES:
            wanted = chosen.base
        elif name == OUTPUT or (tied and name == EMBEDDING):
            wanted = "q8_0" if chosen.base == "q8_0" else "q6_k"
        else:
            wanted = _by_rules(chosen, name, place)
        dtypes[name] = _that_fits(wanted, columns)
        if dtypes[name] != wanted:
            fallbacks.append(Fallback(name, columns, wanted, dtypes[name]))
    for i, (regex, _) in enumerate(tensor_types):
        if i not in used:
            raise InvalidArgumentError(f"the tensor type pattern {regex!r} matches no matrix")
    return Types(dtypes, fallbacks)


def _by_rules(chosen: FileType, name: str, model: Place) -> str:
    parts = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if not parts:
        return chosen.base
    layer, part = int(parts[1]), parts[2]
    place = Place(layer, model.n_layers, model.queries_per_key, model.has_importance)
    for rule in chosen.rules:
        if rule.part == part and CONDITIONS[rule.when](place):
            wanted = rule.dtype
            break
    else:
        wanted = chosen.base
    # LLaMA 2 and 3 of 70B: 8 query heads use each value, which is small beside the rest.
    is_70b = model.n_layers == 80 and model.queries_per_key > 1
    return "q5_k" if is_70b and part == "attn_v" and wanted in ("q3_k", "q4_k") else wanted


def _that_fits(dtype: str, n_columns: int) -> str:
    for candidate in (dtype, FALLBACKS.get(dtype)):
        if candidate and _fits(candidate, n_columns):
            return candidate
    return "f16"


def _fits(dtype: str, n_columns: int) -> bool:
    try:
        bytes_of(dtype, n_columns)
    except InvalidArgumentError:
        return False
    return True


def _dtype_named(name: str) -> str:
    if name.lower() not in TYPE_IDS:
        raise InvalidArgumentError(
            f"unknown tensor type {name!r}, expected one of {', '.join(TYPE_IDS)}"
        )
    return name.lower()


def _compiled(regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except re.error as error:
        raise InvalidArgumentError(f"tensor type pattern {regex!r}: {error}") from error
