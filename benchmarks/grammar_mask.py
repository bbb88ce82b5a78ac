"""What following a grammar costs per token, with LLaMA 3's vocabulary of 128256 tokens.

    python benchmarks/grammar_mask.py

Allowed tokens are drawn at random by seed; prints the median, 99th percentile and most of the times
of one mask (`fill`) and of noting a token (`accept`), and the time to read the vocabulary.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from pathlib import Path

import numpy as np

# A neighbour of this file has the name of a package that the tests need.
HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
sys.path.append(str(HERE.parent / "tests" / "text"))

import test_equality as shared  # noqa: E402
from text_cases import merges_of_ranks, spelled  # noqa: E402

from pyllamacpp.grammar import GrammarFilter, LlamaGrammar  # noqa: E402

SCHEMA = """{"type": "array", "items": {"type": "object", "properties": {
  "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
  "email": {"type": "string", "format": "email"}, "tags": {"type": "array", "items":
  {"type": "string", "maxLength": 20}}, "kind": {"enum": ["red", "green", "blue"]}},
  "required": ["name", "age", "email", "tags", "kind"], "additionalProperties": false}}"""


class Model:
    """As much of a model as a filter needs."""

    def __init__(self, tokenizer: object) -> None:
        self.tokenizer = tokenizer


def main() -> None:
    ranks = shared.llama3_ranks()
    vocab = [spelled(token) for token in sorted(ranks, key=ranks.__getitem__)]
    specials = [f"<|special_{i}|>" for i in range(256)]
    tokenizer, _ = shared.both("llama-bpe", vocab, merges_of_ranks(ranks), specials)
    model = Model(tokenizer)
    started = time.perf_counter()
    grammar = LlamaGrammar.from_json_schema(SCHEMA).source
    GrammarFilter(grammar, model)  # type: ignore[arg-type]
    print(f"{tokenizer.size} tokens read in {time.perf_counter() - started:.2f} s")
    fills, accepts = [], []
    for seed in range(20):
        rng = random.Random(seed)
        token_filter = GrammarFilter(grammar, model)  # type: ignore[arg-type]
        for _ in range(200):
            mask = np.zeros((tokenizer.size + 31) // 32, dtype=np.uint32)
            start = time.perf_counter()
            token_filter.fill(mask)
            fills.append(time.perf_counter() - start)
            allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))
            if len(allowed) == 0:  # the text is complete, and these tokens have no end of text
                break
            token = int(allowed[rng.randrange(len(allowed))])
            start = time.perf_counter()
            token_filter.accept(token)
            accepts.append(time.perf_counter() - start)
    for name, times in (("fill", fills), ("accept", accepts)):
        times.sort()
        print(
            f"{name}: median {statistics.median(times) * 1e6:.0f} us, 99% below "
            f"{times[len(times) * 99 // 100] * 1e6:.0f} us, most {times[-1] * 1e6:.0f} us "
            f"({len(times)} times)"
        )


if __name__ == "__main__":
    main()
