"""lm-eval's harness on the adapter, against log-likelihoods computed from bare logits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyllamacpp import Llama, _core
from pyllamacpp.errors import ContextFullError, InvalidArgumentError

pytestmark = [pytest.mark.frontends, pytest.mark.filterwarnings("ignore")]

TASKS = Path(__file__).resolve().parents[1] / "data" / "harness"
QUESTIONS = [json.loads(line) for line in (TASKS / "everyday.jsonl").read_text().splitlines()]
N_CTX = 256
TEXT = (Path(__file__).resolve().parents[1] / "data" / "english.txt").read_text("utf-8")[:3000]


@pytest.fixture(scope="module")
def lm(default_model: Path) -> Iterator[Any]:
    from pyllamacpp.eval.harness import PyllamacppLM

    with Llama(str(default_model), n_ctx=N_CTX, verbose=False) as llama:
        yield PyllamacppLM(llama, batch_size=8)


@pytest.fixture(scope="module")
def context(lm: Any) -> _core.Context:
    return _core.Context(lm.llama.model, n_ctx=N_CTX)


def log_probs(context: _core.Context, tokens: list[int]) -> np.ndarray:
    """Of each token but the first, given those before it; and whether it is the likeliest."""
    context.trim(0, 0)
    context.decode([(0, tokens[:-1], "all")])
    logits = context.logits().astype(np.float64)
    rows = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    following = np.array(tokens[1:])
    chosen = rows[np.arange(len(following)), following]
    return np.stack([chosen, logits.argmax(axis=1) == following])


def instance(*args: Any) -> Any:
    from lm_eval.api.instance import Instance

    return Instance("loglikelihood", {}, args, 0)


def test_multiple_choice_by_likelihood(lm: Any, context: _core.Context) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    found = lm_eval.simple_evaluate(lm, tasks=["everyday"], task_manager=manager)
    samples = sorted(found["samples"]["everyday"], key=lambda sample: sample["doc_id"])
    assert [sample["doc"] for sample in samples] == QUESTIONS

    tokenizer = lm.llama.model.tokenizer
    n_right, n_right_by_length = 0, 0
    for sample in samples:
        question = f"Question: {sample['doc']['question']}\nAnswer:"
        n_before = len(tokenizer.encode(question.encode(), True, True))
        sums = []
        for choice, (found_sum, is_greedy) in zip(
            sample["doc"]["choices"], sample["filtered_resps"], strict=True
        ):
            tokens = tokenizer.encode(f"{question} {choice}".encode(), True, True)
            chosen, best = log_probs(context, tokens)[:, n_before - 1 :]
            assert float(found_sum) == pytest.approx(chosen.sum(), abs=1e-4)
            assert (str(is_greedy) == "True") == bool(best.all())
            sums.append(chosen.sum() / np.array([1, len(choice)]))
        right = np.argmax(sums, axis=0) == sample["doc"]["answer"]
        n_right += bool(right[0])
        n_right_by_length += bool(right[1])
    metrics = found["results"]["everyday"]
    assert metrics["acc,none"] == pytest.approx(n_right / len(QUESTIONS))
    assert metrics["acc_norm,none"] == pytest.approx(n_right_by_length / len(QUESTIONS))
    assert metrics["acc,none"] > 0.5  # guessing gives a quarter


def test_log_likelihoods(lm: Any, context: _core.Context) -> None:
    tokenizer = lm.llama.model.tokenizer
    bos = tokenizer.bos
    # Without a context, a text is one after the beginning; nothing has a likelihood of one.
    alone, nothing = lm.loglikelihood(
        [instance("", "The capital of France is"), instance("Yes", "")], disable_tqdm=True
    )
    tokens = [bos, *tokenizer.encode(b"The capital of France is", False, True)]
    assert alone[0] == pytest.approx(log_probs(context, tokens)[0].sum(), abs=1e-4)
    assert nothing == (0.0, True)

    greedy = lm.llama("The capital of France is", temperature=0.0, max_tokens=1)
    answer = greedy["choices"][0]["text"]
    likely, other = lm.loglikelihood(
        [instance("The capital of France is", text) for text in (answer, " cheese")],
        disable_tqdm=True,
    )
    assert (likely[1], other[1]) == (True, False)
    assert likely[0] > other[0]

    # A context that is too long loses its beginning, what is asked for is always whole.
    ids = tokenizer.encode(TEXT.encode(), False, True)
    assert len(ids) > 2 * N_CTX
    (cut,) = lm._loglikelihood_tokens([(None, ids[:-20], ids[-20:])], disable_tqdm=True)
    kept = log_probs(context, ids[-N_CTX:])[0]
    assert cut[0] == pytest.approx(kept[-20:].sum(), abs=1e-4)
    with pytest.raises(ContextFullError, match=f"{N_CTX} tokens"):
        lm._loglikelihood_tokens([(None, ids[:1], ids[1 : 1 + N_CTX])], disable_tqdm=True)


def test_rolling_windows_score_each_token_once(lm: Any, context: _core.Context) -> None:
    ids = lm.llama.model.tokenizer.encode(TEXT.encode(), False, True)
    most = lm.max_length
    expected = log_probs(context, [lm.prefix_token_id, *ids[:most]])[0].sum()
    for start in range(most, len(ids), most):
        end = min(start + most, len(ids))
        window = ids[end - most - 1 : end]
        expected += log_probs(context, window)[0][-(end - start) :].sum()
    found = lm.loglikelihood_rolling([instance(TEXT), instance("Hello")], disable_tqdm=True)
    assert found[0] == pytest.approx(expected, rel=1e-6)
    hello = [lm.prefix_token_id, *lm.tok_encode("Hello", add_special_tokens=False)]
    assert found[1] == pytest.approx(log_probs(context, hello)[0].sum(), abs=1e-4)


def test_texts(lm: Any) -> None:
    prompts = ["The capital of France is", "1, 2, 3, 4,", "Once upon a time"]
    kwargs = {"until": ["."], "max_gen_toks": 12}
    found = lm.generate_until([instance(prompt, kwargs) for prompt in prompts], disable_tqdm=True)
    options = {"temperature": 0.0, "stop": ["."], "max_tokens": 12}
    expected = [lm.llama(prompt, **options)["choices"][0]["text"] for prompt in prompts]
    assert found == expected

    sampled = {"do_sample": True, "temperature": 1.5, "seed": 3, "max_gen_toks": 12}
    (text,) = lm.generate_until([instance(prompts[2], sampled)], disable_tqdm=True)
    everything = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 3, "max_tokens": 12}
    again = lm.llama(prompts[2], temperature=1.5, **everything)
    assert text == again["choices"][0]["text"] != found[2]

    with pytest.raises(TypeError, match="num_beams"):
        lm.generate_until([instance("a", {**kwargs, "num_beams": 3})], disable_tqdm=True)
    with pytest.raises(ContextFullError, match="max_gen_toks"):
        lm.generate_until([instance("a", {"max_gen_toks": N_CTX})], disable_tqdm=True)


def test_conversations(lm: Any) -> None:
    said = [{"role": "user", "content": "Name the capital city of France."}]
    prompt = lm.apply_chat_template(said)
    (text,) = lm.generate_until([instance(prompt, {"max_gen_toks": 16})], disable_tqdm=True)
    answer = lm.llama.create_chat_completion(said, temperature=0.0, max_tokens=16)
    assert text == answer["choices"][0]["message"]["content"]
    begun = [*said, {"role": "assistant", "content": "The capital"}]
    assert lm.apply_chat_template(begun, add_generation_prompt=False) == f"{prompt}The capital"
    assert "im_start" in lm.chat_template(True)
    with pytest.raises(InvalidArgumentError, match="'other'"):
        lm.chat_template("other")


def test_arguments(default_model: Path) -> None:
    from lm_eval.api.registry import get_model

    from pyllamacpp.eval.harness import PyllamacppLM

    assert get_model("pyllamacpp") is PyllamacppLM
    lm = PyllamacppLM.create_from_arg_string(
        f"model={default_model},n_ctx=128", {"batch_size": "auto", "device": None}
    )
    assert (lm.max_length, lm.batch_size) == (127, 16)
    for arguments, message in (
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": "some"}, "batch_size"),
        ({"device": "cuda:1"}, "n_gpu_layers"),
        ({"model": lm.llama, "n_ctx": 10}, "n_ctx"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            PyllamacppLM(**arguments)
    lm.llama.close()


def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pyllamacpp.eval.harness", "run", "--model", "pyllamacpp"]
    command += ["--model_args", "n_ctx=256", "--tasks", str(TASKS / "everyday.yaml")]
    command += ["--limit", "4", "--batch_size", "auto"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "|everyday|" in done.stdout
