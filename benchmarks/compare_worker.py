"""One engine in a process of its own, driven by compare.py: JSON requests in, answers out, by line.

Runs under this project's Python for `pyllamacpp` and under the peer's for `llama-cpp-python`, so it
needs numpy and the engine it is asked for, nothing else. Idle between requests.

"Engine" requests are the bare decode calls with a greedy choice in numpy; "api" requests go through
the high-level `Llama`, sampling and detokenizing included.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
N_CTX = 2048
N_BATCH = 512


class Engine(Protocol):
    def describe(self) -> dict[str, str]: ...
    def tokenize(self, text: bytes) -> list[int]: ...
    def clear(self) -> None: ...
    def decode_one(self, tokens: list[int]) -> Logits:
        """Appends tokens, returns the last one's logits: (n_vocab,), valid until the next call."""

    def decode_all(self, tokens: list[int], first: int) -> Logits:
        """Appends tokens, returns the logits of those from `first` on: (n, n_vocab)."""

    def complete(self, tokens: list[int], n: int) -> int:
        """Greedy completion through the high-level API; the number of tokens it made."""


class Pyllamacpp:
    def __init__(self, model: str, threads: int) -> None:
        from pyllamacpp import Llama, _core

        self.core = _core
        self.model = _core.Model(model)
        self.context = _core.Context(
            self.model,
            n_ctx=N_CTX,
            n_batch=N_BATCH,
            n_threads=threads,
            n_threads_batch=threads,
        )
        self.llama = Llama(
            model_path=model,
            n_ctx=N_CTX,
            n_batch=N_BATCH,
            n_threads=threads,
            n_threads_batch=threads,
            verbose=False,
        )

    def describe(self) -> dict[str, str]:
        return {"engine": f"pyllamacpp {version('pyllamacpp')}", "isa": self.core.isa()}

    def tokenize(self, text: bytes) -> list[int]:
        ids: list[int] = self.model.tokenizer.encode(text, True, False)
        return ids

    def clear(self) -> None:
        self.context.trim(0, 0)
        self.llama.reset()

    def decode_one(self, tokens: list[int]) -> Logits:
        self.context.decode([(0, tokens, "last")])
        logits: Logits = self.context.logits()[0]
        return logits

    def decode_all(self, tokens: list[int], first: int) -> Logits:
        self.context.decode([(0, tokens[:first], "none")])
        self.context.decode([(0, tokens[first:], "all")])
        logits: Logits = self.context.logits()
        return logits

    def complete(self, tokens: list[int], n: int) -> int:
        answer: Any = self.llama.create_completion(tokens, max_tokens=n, temperature=0.0)
        return int(answer["usage"]["completion_tokens"])


class LlamaCppPython:
    def __init__(self, model: str, threads: int) -> None:
        import llama_cpp

        self.lib = llama_cpp
        self.llama = llama_cpp.Llama(
            model_path=model,
            n_ctx=N_CTX,
            n_batch=N_BATCH,
            n_threads=threads,
            n_threads_batch=threads,
            verbose=False,
        )
        self.ctx = self.llama.ctx
        self.n_vocab = self.llama.n_vocab()

    def describe(self) -> dict[str, str]:
        info = self.lib.llama_print_system_info().decode()
        return {"engine": f"llama-cpp-python {version('llama-cpp-python')}", "isa": info}

    def tokenize(self, text: bytes) -> list[int]:
        ids: list[int] = self.llama.tokenize(text, add_bos=True, special=False)
        return ids

    def clear(self) -> None:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.ctx), True)
        self.llama.reset()  # the high-level object must not believe in a prefix that is gone

    def decode_one(self, tokens: list[int]) -> Logits:
        ids = (self.lib.llama_token * len(tokens))(*tokens)
        self.check(self.lib.llama_decode(self.ctx, self.lib.llama_batch_get_one(ids, len(tokens))))
        return self.row(-1)

    def decode_all(self, tokens: list[int], first: int) -> Logits:
        batch = self.lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = i >= first
        self.check(self.lib.llama_decode(self.ctx, batch))
        logits = np.stack([self.row(i) for i in range(first, len(tokens))])
        self.lib.llama_batch_free(batch)
        return logits

    def complete(self, tokens: list[int], n: int) -> int:
        answer = self.llama.create_completion(tokens, max_tokens=n, temperature=0.0)
        return int(answer["usage"]["completion_tokens"])

    def row(self, output: int) -> Logits:
        """A view of the engine's own buffer."""
        pointer = self.lib.llama_get_logits_ith(self.ctx, output)
        return np.ctypeslib.as_array(pointer, shape=(self.n_vocab,))

    @staticmethod
    def check(code: int) -> None:
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")


ENGINES: dict[str, Callable[[str, int], Engine]] = {
    "pyllamacpp": Pyllamacpp,
    "llama-cpp-python": LlamaCppPython,
}


def engine_prompt(engine: Engine, tokens: list[int]) -> float:
    """Tokens per second of a prompt, to its last logits."""
    engine.clear()
    start = time.perf_counter()
    engine.decode_one(tokens)[0].item()  # touched, so that a lazy engine has to finish
    return len(tokens) / (time.perf_counter() - start)


def engine_decode(engine: Engine, tokens: list[int], n: int) -> float:
    """Tokens per second of n steps of one token each."""
    engine.clear()
    token = int(engine.decode_one(tokens).argmax())
    start = time.perf_counter()
    for _ in range(n):
        token = int(engine.decode_one([token]).argmax())
    return n / (time.perf_counter() - start)


def api_prompt(engine: Engine, tokens: list[int]) -> float:
    """Tokens per second of a prompt, to the text of its first token."""
    engine.clear()
    start = time.perf_counter()
    engine.complete(tokens, 1)
    return len(tokens) / (time.perf_counter() - start)


def api_decode(engine: Engine, tokens: list[int], n: int) -> float:
    """Tokens per second of a completion whose prompt the engine has just evaluated."""
    engine.clear()
    engine.complete(tokens, 1)
    start = time.perf_counter()
    made = engine.complete(tokens, n)
    seconds = time.perf_counter() - start
    if made < n:
        raise RuntimeError(f"the completion stopped after {made} of {n} tokens")
    return made / seconds


def window_nll(engine: Engine, tokens: list[int]) -> float:
    """Mean negative log-likelihood of the second half of a window, by llama.cpp's rule."""
    first = len(tokens) // 2
    engine.clear()
    logits = engine.decode_all(tokens[:-1], first).astype(np.float64)
    top = logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=-1)) + top[:, 0]
    targets = np.array(tokens[first + 1 :])
    return float((log_sum - logits[np.arange(targets.size), targets]).mean())


def answer(engine: Engine, request: dict[str, Any]) -> Any:
    match request["do"]:
        case "describe":
            return engine.describe()
        case "tokenize":
            return engine.tokenize(request["text"].encode("utf-8"))
        case "engine_prompt":
            return engine_prompt(engine, request["tokens"])
        case "engine_decode":
            return engine_decode(engine, request["tokens"], request["n"])
        case "api_prompt":
            return api_prompt(engine, request["tokens"])
        case "api_decode":
            return api_decode(engine, request["tokens"], request["n"])
        case "window_nll":
            return window_nll(engine, request["tokens"])
    raise ValueError(f"unknown request {request['do']!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=sorted(ENGINES))
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    engine = ENGINES[args.engine](args.model, args.threads)
    for line in sys.stdin:
        print(json.dumps(answer(engine, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
