"""Saved states and prompt caches: the same bits with them and without; damage is one error."""

import hashlib
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyllamacpp import Llama, LlamaDiskCache, LlamaRAMCache, LlamaState
from pyllamacpp.errors import (
    ContextFullError,
    FormatError,
    InvalidArgumentError,
    PyllamacppError,
    UnsupportedError,
)
from pyllamacpp.llama_cache import BaseLlamaCache

PROMPT = (
    "Once upon a time there was a small dragon who lived on a hill far away from the town. " * 3
)
KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0")


def load(model: Path, **options: object) -> Llama:
    return Llama(str(model), **{"n_ctx": 256, "verbose": False, "seed": 3, **options})


def answer(llm: Llama, prompt: str = PROMPT, **options: object) -> tuple[str, list[float]]:
    arguments = {"max_tokens": 12, "seed": 5, "logprobs": 2, "temperature": 0.9, **options}
    choice = llm.create_completion(prompt, **arguments)["choices"][0]
    return choice["text"], choice["logprobs"]["token_logprobs"]


def evaluated(llm: Llama, prompt: str = PROMPT) -> tuple[int, int]:
    """(tokens reused of the prompt, tokens of the prompt) of a completion."""
    tokens = llm.tokenize(prompt.encode())
    stream = llm.engine.start(tokens, _params())
    list(stream)
    return stream.n_reused, len(tokens)


def _params():
    from pyllamacpp.params import GenerationParams, SamplingParams

    return GenerationParams(max_tokens=2, sampling=SamplingParams(temperature=0.0))


@pytest.fixture(scope="module")
def plain(default_model: Path) -> tuple[str, list[float]]:
    with load(default_model) as llm:
        return answer(llm)


@pytest.fixture(scope="module")
def state(default_model: Path) -> LlamaState:
    with load(default_model) as llm:
        llm.eval(llm.tokenize(PROMPT.encode()))
        return llm.save_state()


@pytest.mark.parametrize("kind", KV_TYPES)
def test_another_process_goes_on_to_the_same_bits(
    default_model: Path, tmp_path: Path, kind: str
) -> None:
    program = (
        "import sys; from pyllamacpp import Llama\n"
        "llm = Llama(sys.argv[1], n_ctx=256, verbose=False, seed=3, type_k=sys.argv[2], "
        "type_v=sys.argv[2])\n"
        "llm.eval(llm.tokenize(sys.argv[3].encode()))\n"
        "open(sys.argv[4], 'wb').write(llm.save_state().llama_state)\n"
    )
    path = tmp_path / "state"
    command = [sys.executable, "-c", program, default_model, kind, PROMPT, path]
    subprocess.run(command, check=True, cwd=tmp_path)
    with load(default_model, type_k=kind, type_v=kind) as llm:
        expected = answer(llm)
    with load(default_model, type_k=kind, type_v=kind) as llm:
        state = LlamaState(path.read_bytes())
        llm.load_state(state)
        assert list(llm.eval_tokens) == llm.tokenize(PROMPT.encode()) == state.input_ids.tolist()
        assert np.array_equal(llm.scores[llm.n_tokens - 1], state.scores[-1])
        assert np.ptp(state.scores) > 1
        reused, n_prompt = evaluated(llm)
        assert reused == n_prompt - 1
        llm.load_state(state)
        assert answer(llm) == expected


def test_the_bytes_depend_on_the_tokens_alone(default_model: Path, state: LlamaState) -> None:
    with load(default_model) as llm:
        tokens = llm.tokenize(PROMPT.encode())
        llm.eval(tokens[:-7])
        llm.eval([9, 8, 7, 6, 5])  # what lies in the last page behind a text is not saved
        llm.n_tokens -= 5
        llm.eval(tokens[-7:])
        again = llm.save_state()
    assert again.llama_state == state.llama_state
    assert state.llama_state_size == len(state.llama_state)
    assert (state.n_tokens, state.seed) == (len(tokens), 3)


def test_a_state_can_be_pickled_and_brings_its_seed(default_model: Path, state: LlamaState) -> None:
    copy = pickle.loads(pickle.dumps(state))
    assert copy.llama_state == state.llama_state
    with load(default_model, seed=99) as llm, load(default_model) as other:
        llm.load_state(copy)
        other.load_state(state)
        texts = [each(PROMPT, max_tokens=8)["choices"][0]["text"] for each in (llm, other)]
        assert texts[0] == texts[1]


def test_states_that_do_not_fit_are_refused(default_model: Path, state: LlamaState) -> None:
    with load(default_model, type_k="q8_0") as llm:
        with pytest.raises(InvalidArgumentError, match=r"keys f16.*keys q8_0"):
            llm.load_state(state)
        with pytest.raises(InvalidArgumentError, match="LlamaState, found bytes"):
            llm.load_state(state.llama_state)
    with load(default_model, n_ctx=32) as llm, pytest.raises(ContextFullError, match="of 32"):
        llm.load_state(state)
    with load(default_model) as llm:
        with pytest.raises(InvalidArgumentError, match="another model"):
            llm.load_state(changed(state, model="0" * 64))
        with pytest.raises(InvalidArgumentError, match="computed by other"):
            llm.load_state(changed(state, computed_by="other"))
        assert llm.n_tokens == 0


def changed(state: LlamaState, **origin: str) -> LlamaState:
    """With other words in the header, and a checksum that fits."""
    data = state.llama_state
    n = int.from_bytes(data[8:12], "little")
    head = json.loads(data[12 : 12 + n])
    head["origin"].update(origin)
    return LlamaState(sealed(head, data[12 + n : -32]))


def sealed(head: object, body: bytes) -> bytes:
    text = json.dumps(head).encode()
    data = b"PYLLSTAT" + len(text).to_bytes(4, "little") + text + body
    return data + hashlib.sha256(data).digest()


@settings(max_examples=150)
@given(st.data())
def test_any_damage_is_one_error(state: LlamaState, data: st.DataObject) -> None:
    whole = state.llama_state
    place = data.draw(st.one_of(st.integers(0, 700), st.integers(0, len(whole) - 1)), label="place")
    if data.draw(st.booleans(), label="cut"):
        damaged = whole[:place]
    else:
        flip = data.draw(st.integers(1, 255), label="flip")
        damaged = whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :]
    with pytest.raises((FormatError, UnsupportedError), match="the state: "):
        LlamaState(damaged)


@pytest.mark.parametrize(
    "change",
    [
        {"n_tokens": 1 << 62},
        {"n_tokens": -1},
        {"n_tokens": True},
        {"n_scores": 1 << 40},
        {"page_tokens": 0},
        {"page_bytes": 1 << 63},
        {"origin": 3},
        {"version": None},
        {"seed": 1.5},
    ],
)
def test_headers_that_lie(state: LlamaState, change: dict[str, object]) -> None:
    whole = state.llama_state
    n = int.from_bytes(whole[8:12], "little")
    head = {**json.loads(whole[12 : 12 + n]), **change}
    with pytest.raises(FormatError, match="the state: "):
        LlamaState(sealed(head, whole[12 + n : -32]))


def cache_of(kind: str, folder: Path, capacity_bytes: int = 1 << 30) -> BaseLlamaCache:
    if kind == "ram":
        return LlamaRAMCache(capacity_bytes)
    return LlamaDiskCache(folder / "cache", capacity_bytes)


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_a_cache_changes_no_bit(
    default_model: Path, tmp_path: Path, kind: str, plain: tuple[str, list[float]]
) -> None:
    cache = cache_of(kind, tmp_path)
    for _ in range(2):
        with load(default_model) as llm:
            llm.set_cache(cache)
            assert answer(llm) == plain
    with load(default_model) as llm:  # another one finds the prompt, and as much of a longer one
        llm.set_cache(cache)
        reused, n_prompt = evaluated(llm)
        assert reused == n_prompt - 1
    with load(default_model) as llm:
        llm.set_cache(cache)
        reused, n_prompt = evaluated(llm, PROMPT[:150] + "and that is all")
        assert 20 < reused < n_prompt - 1
        llm.set_cache(None)
        llm.reset()
    with load(default_model) as llm:
        assert evaluated(llm)[0] == 0
    with load(default_model, type_k="q8_0") as llm:  # another layout is a miss
        llm.set_cache(cache)
        assert evaluated(llm)[0] == 0


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_lookups_find_the_longest_and_leave_it(
    default_model: Path, tmp_path: Path, kind: str, state: LlamaState
) -> None:
    cache = cache_of(kind, tmp_path)
    tokens = state.input_ids.tolist()
    assert tokens not in cache
    with pytest.raises(KeyError):
        cache[tokens]
    with load(default_model) as llm:
        llm.eval([*tokens[:20], 7, 7])
        other = llm.save_state()
    cache[other.input_ids.tolist()] = other
    cache[tokens] = state
    for _ in range(2):
        assert tokens in cache
        assert cache[tokens].llama_state == state.llama_state
        assert cache[[*tokens[:20], 7, 9]].llama_state == other.llama_state
    assert [tokens[0] + 1, *tokens] not in cache
    with pytest.raises(InvalidArgumentError, match="not of the tokens"):
        cache[[9999, 1]] = state


@pytest.mark.parametrize("kind", ["ram", "disk"])
def test_the_limit_is_kept(default_model: Path, tmp_path: Path, kind: str) -> None:
    with load(default_model) as llm:
        states = []
        for i in range(4):
            llm.reset()
            llm.eval([1, 100 + i, *range(50, 60)])
            states.append(llm.save_state())
    keys = [s.input_ids.tolist() for s in states]
    one = states[0].llama_state_size
    cache = cache_of(kind, tmp_path, int(2.5 * one))
    for key, value in zip(keys[:2], states[:2], strict=True):
        cache[key] = value
    assert cache[keys[0]].input_ids.tolist() == keys[0]  # used: the other one goes first
    if kind == "disk":
        import os

        files = sorted((tmp_path / "cache").iterdir())
        for path in files:  # clocks of file systems may be coarse
            is_first = LlamaState(path.read_bytes()).input_ids.tolist() == keys[0]
            os.utime(path, (2000, 2000) if is_first else (1000, 1000))
    cache[keys[2]] = states[2]
    assert 2 * one <= cache.cache_size <= int(2.5 * one)
    assert cache[keys[1]].input_ids.tolist() != keys[1]
    assert cache[keys[0]].input_ids.tolist() == keys[0]
    small = cache_of(kind, tmp_path / "small", one - 1)
    small[keys[0]] = states[0]
    assert small.cache_size == 0


def test_damaged_and_foreign_files(
    default_model: Path, tmp_path: Path, state: LlamaState, plain: tuple[str, list[float]]
) -> None:
    cache = LlamaDiskCache(tmp_path)
    cache[state.input_ids.tolist()] = state
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    foreign = tmp_path / "notes.txt"
    foreign.write_text("not a state")
    (tmp_path / "other.pyllstate").write_bytes(b"")
    for damaged in (b"", whole[:100], whole[:-1], whole[:-40] + b"\0\1" + whole[-38:]):
        path.write_bytes(damaged)
        with load(default_model) as llm:
            llm.set_cache(LlamaDiskCache(tmp_path))
            assert answer(llm) == plain
        for kept in tmp_path.glob("?" * 64 + ".pyllstate"):
            LlamaState(kept.read_bytes())
            kept.unlink()
    assert foreign.read_text() == "not a state"
    assert (tmp_path / "other.pyllstate").exists()


def test_a_file_that_is_damaged_and_stays_is_a_miss(
    default_model: Path,
    tmp_path: Path,
    plain: tuple[str, list[float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with load(default_model) as llm:
        llm.set_cache(LlamaDiskCache(tmp_path))
        answer(llm)
    (path,) = tmp_path.glob("*.pyllstate")
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    monkeypatch.setattr(Path, "unlink", lambda *_arguments, **_options: None)
    with load(default_model) as llm:
        llm.set_cache(LlamaDiskCache(tmp_path))
        assert answer(llm) == plain
    assert path.exists()


def test_threads_share_a_cache(
    default_model: Path, tmp_path: Path, plain: tuple[str, list[float]]
) -> None:
    caches = [LlamaDiskCache(tmp_path), LlamaRAMCache()]
    with load(default_model, n_parallel=2) as one, load(default_model) as two:
        for cache in caches:
            one.set_cache(cache)
            two.set_cache(cache)
            barrier = threading.Barrier(4)

            def run(llm: Llama, barrier: threading.Barrier = barrier) -> tuple[str, list[float]]:
                barrier.wait()
                return answer(llm)

            with ThreadPoolExecutor(4) as pool:
                assert list(pool.map(run, [one, two, one, two])) == [plain] * 4


def test_a_cache_of_ones_own_that_fails_is_a_miss(
    default_model: Path, plain: tuple[str, list[float]]
) -> None:
    class Broken(BaseLlamaCache):
        @property
        def cache_size(self) -> int:
            return 0

        def __getitem__(self, key):
            raise RuntimeError("broken")

        def __contains__(self, key):
            return False

        def __setitem__(self, key, value):
            raise PyllamacppError("broken")

    with load(default_model) as llm:
        llm.set_cache(Broken())
        assert answer(llm) == plain
        with pytest.raises(InvalidArgumentError, match="BaseLlamaCache, found dict"):
            llm.set_cache({})
    with pytest.raises(InvalidArgumentError, match="capacity_bytes"):
        LlamaRAMCache(-1)


def test_a_text_is_given_out_before_it_is_saved(default_model: Path) -> None:
    class Watched(LlamaRAMCache):
        n_saved = 0

        def __setitem__(self, key: Sequence[int], value: LlamaState) -> None:
            self.n_saved += 1
            super().__setitem__(key, value)

    cache = Watched()
    with load(default_model) as llm:
        llm.set_cache(cache)
        chunks = llm.create_completion("The capital of France is", max_tokens=4, stream=True)
        for chunk in chunks:
            if chunk["choices"][0]["finish_reason"] is not None:
                break
        assert cache.n_saved == 0
        assert next(chunks, None) is None
        assert cache.n_saved == 1
        llm.create_completion("Two and two is", max_tokens=4)
        assert cache.n_saved == 2
        # One that is left at its last chunk is saved before its sequence is used again.
        chunks = llm.create_completion("Once upon a time", max_tokens=4, stream=True)
        while next(chunks)["choices"][0]["finish_reason"] is None:
            pass
        llm.reset()
        assert cache.n_saved == 3
