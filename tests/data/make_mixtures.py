"""Makes mixtures.json: the type that llama.cpp's quantizer gives to each tensor of small models.

Made with Python 3.11, llama-cpp-python==0.3.36, gguf==0.19.0, numpy==2.4.6; these are needed only
to make the file anew, never to run tests:

    python tests/data/make_mixtures.py

Random models of the shapes below are quantized to every file type with llama_model_quantize, and
the types of their tensors are read back: "3*q6_k 2*q4_k" are those of layers 0, 1 and 2, then 3, 4;
matrices that are not named have type "*".
"""

from __future__ import annotations

import ctypes
import itertools
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "oracle"))
from tiny_model import TinyModel  # noqa: E402

SHAPES = [
    {"n_layers": 22, "n_heads": 8, "n_kv_heads": 1, "n_embd": 256, "n_ff": 512, "tied": False},
    {"n_layers": 32, "n_heads": 8, "n_kv_heads": 8, "n_embd": 256, "n_ff": 256, "tied": False},
    {"n_layers": 32, "n_heads": 8, "n_kv_heads": 2, "n_embd": 256, "n_ff": 256, "tied": True},
    {"n_layers": 40, "n_heads": 8, "n_kv_heads": 8, "n_embd": 256, "n_ff": 256, "tied": False},
    {"n_layers": 80, "n_heads": 8, "n_kv_heads": 8, "n_embd": 256, "n_ff": 256, "tied": False},
    {"n_layers": 80, "n_heads": 8, "n_kv_heads": 1, "n_embd": 256, "n_ff": 256, "tied": False},
    # The default model's, halved: rows of 288 weights.
    {"n_layers": 30, "n_heads": 9, "n_kv_heads": 3, "n_embd": 288, "n_ff": 768, "tied": True},
    {"n_layers": 5, "n_heads": 4, "n_kv_heads": 4, "n_embd": 256, "n_ff": 288, "tied": False},
]
FILE_TYPES = {
    "f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2, "q4_1": 3, "q5_0": 8, "q5_1": 9,
    "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12, "q3_k_l": 13, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16,
    "q5_k_m": 17, "q6_k": 18, "iq4_nl": 25, "iq4_xs": 30,
}  # fmt: skip
# The file types whose choices an importance matrix changes, and one for which it does not.
WITH_IMPORTANCE = ("q4_0", "q5_0", "iq4_nl", "iq4_xs", "q4_k_m")


def importance_of(tensors: dict[str, np.ndarray]) -> tuple[Any, list[Any]]:
    """The peer's array of importances, all one, and what must stay alive with it."""
    entries, kept = [], []
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            ones = (ctypes.c_float * tensor.shape[1])(*[1.0] * tensor.shape[1])
            kept.append(ones)
            entries.append((name.encode(), ctypes.cast(ones, ctypes.POINTER(ctypes.c_float))))
    kind = llama_cpp.llama_model_imatrix_data
    array = (kind * (len(entries) + 1))()
    for i, (name, data) in enumerate(entries):
        array[i] = kind(name, data, len(kept[i]))
    return array, kept


def types_of(path: Path) -> dict[str, str]:
    """Types by the parts of a layer or a tensor's name, and what is of type "*" left out."""
    tensors = {t.name: t.tensor_type.name.lower() for t in gguf.GGUFReader(path).tensors}
    found: dict[str, list[str]] = {}
    for name in sorted(tensors, key=lambda n: [int(d) for d in re.findall(r"\d+", n)]):
        if not name.endswith("norm.weight"):
            found.setdefault(re.sub(r"blk\.\d+\.", "", name), []).append(tensors[name])
    usual = found["ffn_up.weight"][0]
    runs = {
        part: [(dtype, len(list(same))) for dtype, same in itertools.groupby(dtypes)]
        for part, dtypes in found.items()
    }
    return {"*": usual} | {
        part: " ".join(f"{n}*{dtype}" for dtype, n in run)
        for part, run in runs.items()
        if [dtype for dtype, _ in run] != [usual]
    }


def main() -> None:
    @llama_cpp.llama_log_callback
    def quiet(_level: int, _text: bytes, _data: object) -> None:
        pass

    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.gguf", Path(folder) / "out.gguf"
        for shape in SHAPES:
            model = TinyModel(**shape)
            model.write(source)
            array, _kept = importance_of(model.weights())
            for with_importance in (False, True):
                types = {}
                for name, number in FILE_TYPES.items():
                    if with_importance and name not in WITH_IMPORTANCE:
                        continue
                    params = llama_cpp.llama_model_quantize_default_params()
                    params.ftype, params.nthread = number, 2
                    if with_importance:
                        params.imatrix = array
                    code = llama_cpp.llama_model_quantize(
                        str(source).encode(), str(target).encode(), ctypes.byref(params)
                    )
                    if code:
                        sys.exit(f"llama_model_quantize to {name} failed")
                    types[name] = types_of(target)
                cases.append({"shape": shape, "importance": with_importance, "types": types})
                print(len(cases), shape, file=sys.stderr)
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "mixtures.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
