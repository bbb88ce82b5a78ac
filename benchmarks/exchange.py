"""Files of every type go both ways: ours load in llama-cpp-python, its load here, with one text.

    python benchmarks/exchange.py [--peer-venv DIR] [--threads N]

The default model is quantized by both engines into each file type, and both engines continue some
prompts greedily with each file. Both round activations to 8 bits, in different orders, so near ties
may fall either way: where texts part, the logits here of the two tokens must be near each other.
Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from compare import PEER, PEER_VERSION, peer_python
from pyllamacpp_convert import quantize_gguf
from pyllamacpp_convert.mixture import FILE_TYPES

from pyllamacpp import Llama
from pyllamacpp.models import resolve_model

HERE = Path(__file__).resolve().parent
PROMPTS = ["The capital of France is", "Once upon a time", "def add(a, b):", "1, 2, 3,"]
N_TOKENS = 16
NEAR = 0.75  # of logits whose rms is 3 to 8; rounding moves them by some 0.3

GENERATE = """
import itertools, json, sys
import llama_cpp

llm = llama_cpp.Llama(sys.argv[1], n_ctx=128, verbose=False, n_threads=int(sys.argv[2]))
prompts, n = json.loads(sys.argv[3]), int(sys.argv[4])
tokens = [list(itertools.islice(llm.generate(p, top_k=1, temp=0.0), n)) for p in prompts]
print(json.dumps(tokens))
"""
QUANTIZE = """
import sys
import llama_cpp

params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.allow_requantize = int(sys.argv[3]), True
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), params))
"""


def peer(python: str, code: str, *arguments: object) -> str:
    command = [python, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{PEER} failed: {done.stderr[-500:]}")
    return done.stdout


def part(
    model: Path, prompts: list[list[int]], theirs: list[list[int]], threads: int
) -> list[float]:
    """Where our greedy text leaves theirs: how far apart the two tokens' logits are, else 0."""
    gaps = []
    with Llama(str(model), n_ctx=128, verbose=False, n_threads=threads) as llm:
        for prompt, answer in zip(prompts, theirs, strict=True):
            gap = 0.0
            for i, token in enumerate(answer):
                llm.reset()
                llm.eval([*prompt, *answer[:i]])
                logits = np.asarray(llm.eval_logits[-1])
                if int(np.argmax(logits)) != token:
                    gap = float(logits.max() - logits[token])
                    break
            gaps.append(gap)
    return gaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--peer-venv", type=Path, default=HERE / ".peer-venv")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    python, source = peer_python(arguments.peer_venv), resolve_model(None)
    with Llama(str(source), n_ctx=64, verbose=False) as llm:
        prompts = [llm.tokenize(text.encode()) for text in PROMPTS]
    far = False
    print(f"| file type | written here | written by {PEER} {PEER_VERSION} |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for kind, file_type in FILE_TYPES.items():
            files = [Path(name) / f"{kind}.gguf", Path(name) / f"{kind}-peer.gguf"]
            quantize_gguf(source, files[0], kind, allow_requantize=True)
            peer(python, QUANTIZE, source, files[1], file_type.number)
            cells = []
            for file in files:
                said = peer(
                    python, GENERATE, file, arguments.threads, json.dumps(prompts), N_TOKENS
                )
                gaps = part(file, prompts, json.loads(said), arguments.threads)
                same = sum(gap == 0 for gap in gaps)
                cells.append(f"{same} of {len(gaps)} the same, others within {max(gaps):.2f}")
                far |= max(gaps) > NEAR
                file.unlink()
            print(f"| {kind} | {' | '.join(cells)} |", flush=True)
    sys.exit(far)


if __name__ == "__main__":
    main()
