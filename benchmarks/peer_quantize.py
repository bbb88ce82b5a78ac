"""Writes a GGUF in another weight type with llama-cpp-python; type_perplexity.py runs it.

    PEER/bin/python benchmarks/peer_quantize.py SOURCE.gguf OUT.gguf q4_k

Every matrix gets the type ("pure": no mixture of types), without an importance matrix.
"""

from __future__ import annotations

import argparse
import ctypes

import llama_cpp

# The file types whose pure form is the type; K types have several, which differ in their mixtures.
FILE_TYPES = {"q3_k": "Q3_K_S", "q4_k": "Q4_K_S", "q5_k": "Q5_K_S"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("dtype")
    args = parser.parse_args()
    name = FILE_TYPES.get(args.dtype, args.dtype.upper())
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
    params.pure = True
    quiet = llama_cpp.llama_log_callback(lambda _level, _text, _data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    code = llama_cpp.llama_model_quantize(
        args.source.encode(), args.out.encode(), ctypes.byref(params)
    )
    if code != 0:
        raise SystemExit(f"llama_model_quantize returned {code} for {name}")


if __name__ == "__main__":
    main()
