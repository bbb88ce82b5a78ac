"""One engine in a process of its own, driven by compare.py: JSON requests in, answers out, by line.

Runs under this project's Python for `pyllamacpp` and under a peer's for that, so it needs numpy and
the engine it is asked for, nothing else. Idle between requests.

"Engine" requests are the bare decode calls with a greedy choice in numpy; "api" requests go through
the high-level `Llama`, sampling and detokenizing included.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
N_CTX = 2048
N_BATCH = 512
# A deep cache is made of copies of so many tokens: what lies in it changes no time.
N_FILL = 512


class Engine:
    """What an engine must do; `can` says which requests it serves.

    A context is made by `open` and empty then. Sequence 0 is meant where none is named.
    """

    can: tuple[str, ...] = ("engine",)

    def describe(self) -> dict[str, Any]:
        raise NotImplementedError

    def tokenize(self, text: bytes) -> list[int]:
        raise NotImplementedError

    def open(self, n_ctx: int, kv: str, n_seq: int) -> None:
        """A context of n_ctx tokens in n_seq sequences in place of the last."""
        raise NotImplementedError

    def trim(self, n: int) -> None:
        """Forgets all but the first n tokens; those of other sequences too if n is 0."""
        raise NotImplementedError

    def fill(self, n: int) -> None:
        """Puts n tokens, a multiple of N_FILL, into an empty cache."""
        raise NotImplementedError

    def decode(self, pieces: list[tuple[int, list[int]]], n_logits: int) -> Logits:
        """Appends tokens to sequences: logits [n_logits, n_vocab] of the last of all their tokens.

        They are valid until the next call.
        """
        raise NotImplementedError

    def complete(self, tokens: list[int], n: int) -> int:
        """Greedy completion through the high-level API; the number of tokens it made."""
        raise NotImplementedError

    def forget(self) -> None:
        """Empties the high-level API's cache."""
        raise NotImplementedError

    def go_on(self, prompts: list[list[int]], n: int) -> float:
        """Seconds in which texts, evaluated before, go on together by n tokens each.

        Decoding alone, of any tokens, as llama.cpp's own bench of batches does it.
        """
        self.open(N_CTX, "f16", len(prompts))
        for sequence, prompt in enumerate(prompts):
            self.decode([(sequence, prompt)], 1)
        step = [(sequence, prompt[-1:]) for sequence, prompt in enumerate(prompts)]
        start = time.perf_counter()
        for _ in range(n):
            self.decode(step, len(prompts))
        return time.perf_counter() - start


class Pyllamacpp(Engine):
    can = ("engine", "api", "depth", "sequences")

    def __init__(self, model: str, threads: int, repack: str) -> None:
        from pyllamacpp import _core

        self.core = _core
        self.threads = threads
        self.model = _core.Model(model, n_threads=threads, repack=repack)
        self.context: Any = None
        self.llama: Any = None
        self.probe: Any = None

    def describe(self) -> dict[str, Any]:
        return {
            "engine": f"pyllamacpp {version('pyllamacpp')}",
            "isa": self.core.isa(),
            "repack": self.model.repack,
            "can": self.can,
        }

    def tokenize(self, text: bytes) -> list[int]:
        ids: list[int] = self.model.tokenizer.encode(text, True, False)
        return ids

    def open(self, n_ctx: int, kv: str, n_seq: int) -> None:
        self.context = None
        self.context = self.core.Context(
            self.model,
            n_ctx=n_ctx,
            n_batch=N_BATCH,
            n_threads=self.threads,
            n_threads_batch=self.threads,
            max_sequences=n_seq,
            type_k=kv,
            type_v=kv,
        )

    def trim(self, n: int) -> None:
        for sequence in range(self.context.max_sequences if n == 0 else 1):
            self.context.trim(sequence, n)

    def fill(self, n: int) -> None:
        tokens = list(range(1000, 1000 + N_FILL))
        self.context.decode([(0, tokens, "none")])
        pages = b"".join(
            self.context.save_page(0, i, N_FILL) for i in range(N_FILL // self.context.page_tokens)
        )
        self.context.load(0, tokens * (n // N_FILL), pages * (n // N_FILL))

    def decode(self, pieces: list[tuple[int, list[int]]], n_logits: int) -> Logits:
        *before, (sequence, tokens) = pieces
        batch: list[tuple[int, list[int], str]]
        if n_logits == 1:
            batch = [*((s, ids, "none") for s, ids in before), (sequence, tokens, "last")]
        elif len(pieces) == n_logits:
            batch = [(s, ids, "last") for s, ids in pieces]
        else:  # one piece
            first = len(tokens) - n_logits
            if first:
                self.context.decode([(sequence, tokens[:first], "none")])
            batch = [(sequence, tokens[first:], "all")]
        self.context.decode(batch)
        logits: Logits = self.context.logits()
        return logits

    def high_level(self) -> Any:
        """Made when first needed: it holds the weights once more."""
        if self.llama is None:
            from pyllamacpp import Llama

            self.llama = Llama(
                model_path=self.model.path,
                n_ctx=N_CTX,
                n_batch=N_BATCH,
                n_threads=self.threads,
                n_threads_batch=self.threads,
                verbose=False,
            )
        return self.llama

    def complete(self, tokens: list[int], n: int) -> int:
        answer = self.high_level().create_completion(tokens, max_tokens=n, temperature=0.0)
        return int(answer["usage"]["completion_tokens"])

    def forget(self) -> None:
        self.high_level().reset()

    def go_on(self, prompts: list[list[int]], n: int) -> float:
        """Through the high-level API, sampling and detokenizing included."""
        llama, options = self.high_level(), {"temperature": 0.0, "ignore_eos": True}
        llama.create_completion(prompts, max_tokens=1, **options)
        start = time.perf_counter()
        answer = llama.create_completion(prompts, max_tokens=n, **options)
        seconds = time.perf_counter() - start
        if answer["usage"]["completion_tokens"] != n * len(prompts):
            raise RuntimeError("a completion stopped early")
        return seconds

    def limits(self) -> dict[str, float]:
        """What the machine can do now, as `pyllamacpp bench` measures it."""
        from pyllamacpp.eval import bench

        if self.probe is None:
            self.probe = self.core.CpuLimitProbe(self.threads)
        return vars(bench.measure_limits(self.probe))

    def allowed(self, limits: dict[str, float], test: str, n: int, depth: int, kv: str) -> float:
        """Tokens per second that these limits allow, as `pyllamacpp bench` counts it."""
        from pyllamacpp.eval import bench

        at_most = bench.Limits(**limits)
        work = bench.work_of(self.model, kv, kv)
        if test == "pp":
            return n / at_most.prompt_seconds(work, n, depth)
        return at_most.read_bytes / work.token_bytes(n, depth)


class LlamaCppPython(Engine):
    can = ("engine", "api", "depth", "sequences")

    def __init__(self, model: str, threads: int, _repack: str) -> None:
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
        self.n_vocab = self.llama.n_vocab()
        self.ctx: Any = None
        self.lengths: dict[int, int] = {}

    def describe(self) -> dict[str, Any]:
        info = self.lib.llama_print_system_info().decode()
        name = f"llama-cpp-python {version('llama-cpp-python')}"
        return {"engine": name, "isa": info, "can": self.can}

    def tokenize(self, text: bytes) -> list[int]:
        ids: list[int] = self.llama.tokenize(text, add_bos=True, special=False)
        return ids

    def open(self, n_ctx: int, kv: str, n_seq: int) -> None:
        lib = self.lib
        if self.ctx is not None:
            lib.llama_free(self.ctx)
        params = type(self.llama.context_params).from_buffer_copy(self.llama.context_params)
        params.n_ctx = n_ctx
        params.type_k = params.type_v = getattr(lib, f"GGML_TYPE_{kv.upper()}")
        # fill() needs a sequence for each piece.
        params.n_seq_max = max(n_seq, n_ctx // N_FILL + 1 if n_ctx > N_CTX else 1)
        params.kv_unified = True
        if kv != "f16" or n_ctx > N_CTX:
            # Quantized values need it; deep caches have it for both types.
            params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.ctx = lib.llama_init_from_model(self.llama.model, params)
        if not self.ctx:
            raise RuntimeError("llama_init_from_model failed")
        self.memory = lib.llama_get_memory(self.ctx)
        self.lengths = {}

    def trim(self, n: int) -> None:
        if n == 0:
            self.lib.llama_memory_clear(self.memory, True)
            self.lengths = {}
        else:
            # All pieces of fill() count from 0.
            self.lib.llama_memory_seq_rm(self.memory, 0, N_FILL, -1)
            self.lengths[0] = N_FILL

    def fill(self, n: int) -> None:
        """Pieces of N_FILL tokens, each with positions from 0, all of them in sequence 0.

        A step then attends to n keys, as after a prompt of n tokens, which would take minutes.
        """
        lib = self.lib
        self.decode([(0, list(range(1000, 1000 + N_FILL)))], 1)
        size = lib.llama_state_seq_get_size(self.ctx, 0)
        state = (ctypes.c_uint8 * size)()
        lib.llama_state_seq_get_data(self.ctx, state, size, 0)
        for piece in range(1, n // N_FILL):
            if not lib.llama_state_seq_set_data(self.ctx, state, size, piece):
                raise RuntimeError("llama_state_seq_set_data failed")
        for piece in range(1, n // N_FILL):
            lib.llama_memory_seq_cp(self.memory, piece, 0, -1, -1)

    def decode(self, pieces: list[tuple[int, list[int]]], n_logits: int) -> Logits:
        n = sum(len(tokens) for _, tokens in pieces)
        batch = self.lib.llama_batch_init(n, 0, 1)
        batch.n_tokens = n
        i = 0
        for sequence, tokens in pieces:
            start = self.lengths.get(sequence, 0)
            self.lengths[sequence] = start + len(tokens)
            for position, token in enumerate(tokens, start):
                batch.token[i], batch.pos[i] = token, position
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
                batch.logits[i] = i >= n - n_logits
                i += 1
        check(self.lib.llama_decode(self.ctx, batch))
        self.lib.llama_batch_free(batch)
        if n_logits == 1:
            return self.row(-1)[None]
        return np.stack([self.row(i) for i in range(n - n_logits, n)])

    def complete(self, tokens: list[int], n: int) -> int:
        answer = self.llama.create_completion(tokens, max_tokens=n, temperature=0.0)
        return int(answer["usage"]["completion_tokens"])

    def forget(self) -> None:
        lib = self.lib
        lib.llama_memory_clear(lib.llama_get_memory(self.llama.ctx), True)
        self.llama.reset()  # the high-level object must not believe in a prefix that is gone

    def row(self, output: int) -> Logits:
        """A view of the engine's own buffer."""
        pointer = self.lib.llama_get_logits_ith(self.ctx, output)
        return np.ctypeslib.as_array(pointer, shape=(self.n_vocab,))


class IkLlamaCppPython(Engine):
    """Through its C API: the high-level class evaluates no batch and keeps no cache."""

    def __init__(self, model: str, threads: int, _repack: str) -> None:
        from ik_llama_cpp import IkLlama, _ctypes_api

        self.lib = _ctypes_api
        # It writes a page about each model otherwise; kept, as the library calls it.
        self.log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(
            lambda *_: None
        )
        self.lib._lib.llama_log_set(self.log, None)
        self.llama = IkLlama(model, n_ctx=N_CTX, n_threads=threads, verbose=False)
        self.ctx = self.llama.ctx
        self.n_vocab = self.llama._model.n_vocab
        self.length = 0

    def describe(self) -> dict[str, Any]:
        name = f"ik-llama-cpp-python {version('ik-llama-cpp-python')}"
        return {"engine": name, "isa": "the wheel's", "can": self.can}

    def tokenize(self, text: bytes) -> list[int]:
        ids: list[int] = self.llama.tokenize(text.decode(), add_bos=True, special=False)
        return ids

    def open(self, n_ctx: int, kv: str, n_seq: int) -> None:
        if (n_ctx, kv, n_seq) != (N_CTX, "f16", 1):
            raise RuntimeError("the wheel's class makes no other context")
        self.trim(0)

    def trim(self, n: int) -> None:
        if n:
            raise RuntimeError("the wheel's bindings have no call that forgets a part")
        self.lib.llama_kv_cache_clear(self.ctx)
        self.length = 0

    def decode(self, pieces: list[tuple[int, list[int]]], n_logits: int) -> Logits:
        ((_, tokens),) = pieces
        n = len(tokens)
        batch = self.lib.llama_batch_init(n, 0, 1)
        batch.n_tokens = n
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, self.length + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = i >= n - n_logits
        check(self.lib.llama_decode(self.ctx, batch))
        self.lib.llama_batch_free(batch)
        self.length += n
        rows = [self.lib.llama_get_logits_ith(self.ctx, i) for i in range(n - n_logits, n)]
        return np.stack([np.ctypeslib.as_array(row, shape=(self.n_vocab,)) for row in rows])


ENGINES: dict[str, Callable[[str, int, str], Engine]] = {
    "pyllamacpp": Pyllamacpp,
    "llama-cpp-python": LlamaCppPython,
    "ik-llama-cpp-python": IkLlamaCppPython,
}


def check(code: int) -> None:
    if code != 0:
        raise RuntimeError(f"llama_decode returned {code}")


def prompt(engine: Engine, tokens: list[int], depth: int = 0) -> float:
    """Tokens per second of a prompt after `depth` others, to its last logits."""
    engine.trim(depth)
    start = time.perf_counter()
    # Touched, so that a lazy engine has to finish.
    engine.decode([(0, tokens)], 1)[0, 0].item()
    return len(tokens) / (time.perf_counter() - start)


def greedy(engine: Engine, tokens: list[int], n: int, depth: int = 0) -> float:
    """Tokens per second of n steps of one token each, after `depth` others and then `tokens`."""
    engine.trim(depth)
    token = int(engine.decode([(0, tokens)], 1)[0].argmax())
    start = time.perf_counter()
    for _ in range(n):
        token = int(engine.decode([(0, [token])], 1)[0].argmax())
    return n / (time.perf_counter() - start)


def api_prompt(engine: Engine, tokens: list[int]) -> float:
    """Tokens per second of a prompt, to the text of its first token."""
    engine.forget()
    start = time.perf_counter()
    engine.complete(tokens, 1)
    return len(tokens) / (time.perf_counter() - start)


def api_greedy(engine: Engine, tokens: list[int], n: int) -> float:
    """Tokens per second of a completion whose prompt the engine has just evaluated."""
    engine.forget()
    engine.complete(tokens, 1)
    start = time.perf_counter()
    made = engine.complete(tokens, n)
    seconds = time.perf_counter() - start
    if made < n:
        raise RuntimeError(f"the completion stopped after {made} of {n} tokens")
    return made / seconds


def rows(engine: Engine, tokens: list[int], sequences: bool, seconds: float) -> float:
    """Tokens per second of one batch, from an empty cache: the median of what `seconds` allow.

    The batch is a prompt with its last logits or, with `sequences`, one token of each of as many
    sequences, all logits wanted.
    """
    pieces = [(i, [token]) for i, token in enumerate(tokens)] if sequences else [(0, tokens)]
    n_logits = len(pieces)
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < seconds:
        engine.trim(0)
        start = time.perf_counter()
        engine.decode(pieces, n_logits)[0, 0].item()
        taken.append(time.perf_counter() - start)
    return len(tokens) / statistics.median(taken)


def together(engine: Engine, prompts: list[list[int]], n: int) -> float:
    """Tokens per second of all texts, continued together."""
    return n * len(prompts) / engine.go_on(prompts, n)


def in_turn(engine: Engine, prompts: list[list[int]], n: int) -> float:
    """The same of texts that are continued one after another."""
    return n * len(prompts) / sum(engine.go_on([prompt], n) for prompt in prompts)


def window_logits(engine: Engine, tokens: list[int]) -> Logits:
    """Logits of the second half of a window, each predicting the next token."""
    engine.trim(0)
    return engine.decode([(0, tokens[:-1])], len(tokens) - 1 - len(tokens) // 2)


def window_nll(engine: Engine, tokens: list[int]) -> float:
    """Mean negative log-likelihood of the second half of a window, by llama.cpp's rule."""
    logits = window_logits(engine, tokens).astype(np.float64)
    top = logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=-1)) + top[:, 0]
    targets = np.array(tokens[len(tokens) // 2 + 1 :])
    return float((log_sum - logits[np.arange(targets.size), targets]).mean())


def answer(engine: Engine, do: str, arguments: dict[str, Any]) -> Any:
    match do:
        case "tokenize":
            return engine.tokenize(arguments["text"].encode("utf-8"))
        case "window_logits":
            np.save(arguments["path"], window_logits(engine, arguments["tokens"]))
            return None
        case "describe" | "open" | "fill" | "limits" | "allowed":
            return getattr(engine, do)(**arguments)
        case "prompt" | "greedy" | "api_prompt" | "api_greedy" | "rows" | "window_nll":
            return globals()[do](engine, **arguments)
        case "together" | "in_turn":
            return globals()[do](engine, **arguments)
    raise ValueError(f"unknown request {do!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=sorted(ENGINES))
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repack", default="auto", help="of pyllamacpp")
    args = parser.parse_args()
    engine = ENGINES[args.engine](args.model, args.threads, args.repack)
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(answer(engine, request.pop("do"), request)), flush=True)


if __name__ == "__main__":
    main()
