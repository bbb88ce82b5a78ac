"""Measures our tokenizers beside sentencepiece, tokenizers and tiktoken on one text, in turn.

    python benchmarks/tokenizers.py [TEXT] [--repetitions N] [--model FILE.gguf]

All sides hold the same vocabulary and get one text in one call on one thread, from Python, and must
give the same ids or the row says so. Prints a Markdown table: MB/s as medians, and the ratio within
each pair of turns as median (least-most), above 1 where we are faster. The speeds of a shared
machine mean little; the ratios mean something where nothing else runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# This file has the name of a package that it needs, and its folder comes first.
HERE = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]
sys.path.append(str(HERE.parent / "tests" / "text"))

import sentencepiece  # noqa: E402
import test_equality as shared  # noqa: E402
import tiktoken  # noqa: E402
import tokenizers  # noqa: E402
from text_cases import file_of_package, merges_of_ranks, random_texts, spelled  # noqa: E402

Encode = Callable[[str], list[int]]


@dataclass
class Row:
    vocabulary: str
    reference: str
    ours: Encode
    theirs: Encode


def encoder(tokenizer: object) -> Encode:
    return lambda text: tokenizer.encode(text.encode(), False, False)  # type: ignore[attr-defined]


def rows() -> list[Row]:
    model = file_of_package("mistral-common", "tokenizer.model.v1")
    if model is None:
        raise SystemExit("mistral-common is not installed: pip install '.[test]'")
    piece = sentencepiece.SentencePieceProcessor(model_file=str(model))
    ours = encoder(shared.spm_of(model.read_bytes()))
    found = [Row("Mistral v1, 32000", "sentencepiece", ours, piece.encode)]

    ranks = shared.llama3_ranks()
    openai = tiktoken.Encoding("x", pat_str=shared.LLAMA3, mergeable_ranks=ranks, special_tokens={})
    vocab = [spelled(token) for token in sorted(ranks, key=ranks.__getitem__)]
    own, other = shared.both("llama-bpe", vocab, merges_of_ranks(ranks), [])
    found.append(Row("Llama 3, 128000", "tiktoken", encoder(own), openai.encode_ordinary))
    found.append(Row("Llama 3, 128000", "tokenizers", encoder(own), hugging_face(other)))
    for pre in shared.STEPS:
        own, other = shared.trained(pre)
        found.append(Row(f"trained, 3000, {pre}", "tokenizers", encoder(own), hugging_face(other)))
    return found


def hugging_face(tokenizer: tokenizers.Tokenizer) -> Encode:
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def seconds(encode: Encode, text: str) -> float:
    start = time.perf_counter()
    encode(text)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="?", type=Path, help="a UTF-8 file; default: two of our own")
    parser.add_argument("-r", "--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.text is not None:
        texts = {arguments.text.name: arguments.text.read_text(encoding="utf-8")}
    else:
        texts = {"english": shared.english() * 5, "mixed": "".join(random_texts(9, 4000))}
    print("| text | vocabulary | peer | ours MB/s | peer MB/s | ratio | ids |")
    print("|---|---|---|---|---|---|---|")
    for row in rows():
        for name, text in texts.items():
            equal = "equal" if row.ours(text) == row.theirs(text) else "DIFFERENT"
            turns = [
                (seconds(row.ours, text), seconds(row.theirs, text))
                for _ in range(arguments.repetitions)
            ]
            size = len(text.encode()) / 1e6
            own, peer = (size / statistics.median(turn[i] for turn in turns) for i in (0, 1))
            ratios = [theirs / ours for ours, theirs in turns]
            print(
                f"| {name} | {row.vocabulary} | {row.reference} | {own:.1f} | {peer:.1f} "
                f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) "
                f"| {equal} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
