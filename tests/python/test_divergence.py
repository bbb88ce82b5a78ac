"""KL divergence of one run from another's file."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyllamacpp import _core
from pyllamacpp.errors import FileError, FormatError, InvalidArgumentError
from pyllamacpp.eval.log_probs import DivergenceMeter, LogProbReader, LogProbWriter, Scored
from pyllamacpp.eval.perplexity import log_softmax, perplexity, window_tokens

Run = Callable[..., "subprocess.CompletedProcess[str]"]

TEXT = (Path(__file__).parents[1] / "data" / "english.txt").read_bytes()[:1500]
SCORED = Scored(n_vocab=50, n_ctx=9, n_windows=3, tokens_sha256="0" * 64)


def rows(seed: int, n: int = SCORED.n_rows) -> np.ndarray:
    logits = np.random.default_rng(seed).standard_normal((n, SCORED.n_vocab)) * 4
    return log_softmax(logits.astype(np.float32))


def save(path: Path, log_probs: np.ndarray, scored: Scored = SCORED) -> Path:
    with LogProbWriter(path, scored) as writer:
        for part in np.array_split(log_probs, 4):
            writer.add(part)
    return path


def test_against_its_definition(tmp_path: Path) -> None:
    p, q = rows(1), rows(2)
    targets = np.random.default_rng(3).integers(0, SCORED.n_vocab, len(p))
    with LogProbReader(save(tmp_path / "p", p)) as base:
        meter = DivergenceMeter(base)
        for at in range(0, len(p), 5):
            meter.add(q[at : at + 5], targets[at : at + 5].tolist())
    result = meter.result()
    each = (np.exp(p) * (p - q)).sum(1)
    # float16 log-probabilities are off by 2^-11 of themselves
    assert result.mean == pytest.approx(each.mean(), abs=2e-3)
    assert result.error == pytest.approx(each.std(ddof=1) / len(each) ** 0.5, rel=1e-2)
    assert result.median == pytest.approx(np.median(each), rel=1e-2)
    assert result.percentile_99 == pytest.approx(np.quantile(each, 0.99), rel=1e-2)
    assert result.most == pytest.approx(each.max(), rel=1e-2)
    assert result.top1_agreement == np.mean(p.argmax(1) == q.argmax(1))
    ppl = np.exp(-p[np.arange(len(p)), targets].mean())
    assert result.base_ppl == pytest.approx(ppl, rel=1e-2)


def test_a_model_is_no_distance_from_itself(default_model: Path, tmp_path: Path) -> None:
    model = _core.Model(str(default_model))
    tokens = window_tokens(model.tokenizer, TEXT, 128)
    scored = Scored.of(tokens, 128, model.config.n_vocab)
    with LogProbWriter(tmp_path / "base", scored) as writer:
        result = perplexity(model, TEXT, n_ctx=128, on_rows=writer.add)
    with LogProbReader(tmp_path / "base") as base:
        base.check(scored)
        meter = DivergenceMeter(base)
        again = perplexity(model, TEXT, n_ctx=128, on_rows=meter.add)
    assert again == result
    assert scored.n_rows == result.n_tokens
    divergence = meter.result()
    assert abs(divergence.mean) < 1e-6
    assert divergence.top1_agreement > 0.99  # float16 makes ties
    assert divergence.base_ppl == pytest.approx(result.ppl, rel=1e-3)


def test_only_whole_files_get_their_name(tmp_path: Path) -> None:
    def interrupted() -> None:
        with LogProbWriter(tmp_path / "base", SCORED) as writer:
            writer.add(rows(1)[:3])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileError, match="cannot write"):
        LogProbWriter(tmp_path / "none" / "base", SCORED)


def test_alien_and_broken_files(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole", rows(1)).read_bytes()
    path = tmp_path / "broken"
    for data, message in [
        (b"", "is not a file of --save-logits"),
        (b"GGUF" + bytes(100), "is not a file of --save-logits"),
        (whole[:40], "header this version cannot read"),
        (whole[:-1], "bytes, expected"),
        (whole + b"x", "bytes, expected"),
        (whole.replace(b'"version": 1', b'"version": 2'), "header this version cannot read"),
        (whole.replace(b'"n_vocab": 50', b'"n_vocab": -5'), "header this version cannot read"),
        (whole[:8] + b"\xff\xff\xff\xff" + whole[12:], "header this version cannot read"),
    ]:
        path.write_bytes(data)
        with pytest.raises(FormatError, match=message):
            LogProbReader(path)
    with pytest.raises(FileError, match="cannot read"):
        LogProbReader(tmp_path / "missing")


def test_other_runs_are_refused(tmp_path: Path) -> None:
    with LogProbReader(save(tmp_path / "base", rows(1))) as base:
        base.check(SCORED)
    for other, message in [
        (Scored(51, 9, 3, "0" * 64), "a vocabulary of 50 tokens, this run has 51"),
        (Scored(50, 8, 3, "0" * 64), "windows of 9 tokens, this run has 8"),
        (Scored(50, 9, 2, "0" * 64), "3 windows, this run has 2"),
        (Scored(50, 9, 3, "1" * 64), "another text or tokenizer"),
    ]:
        with pytest.raises(InvalidArgumentError, match=message):
            base.check(other)


def test_command(default_model: Path, tmp_path: Path, run: Run) -> None:
    def measure(*options: str) -> subprocess.CompletedProcess[str]:
        model = ("-m", str(default_model), "-c", "128")
        return run("perplexity", *model, *options, stdin=TEXT.decode())

    base = str(tmp_path / "base")
    saved = measure("--save-logits", base, "--json")
    assert saved.returncode == 0, saved.stderr
    compared = measure("--kl-base", base, "--json")
    assert compared.returncode == 0, compared.stderr
    figures = json.loads(compared.stdout)
    assert figures["ppl"] == json.loads(saved.stdout)["ppl"]
    assert abs(figures["kl_divergence"]) < 1e-6
    assert figures["top1_agreement"] > 0.99
    text = measure("--kl-base", base)
    assert "KL divergence" in text.stdout
    assert "same best token" in text.stdout
    both = measure("--kl-base", base, "--save-logits", base)
    assert both.returncode == 2
    other = measure("--kl-base", base, "-c", "64")
    assert other.returncode == 1
    assert "windows of 128 tokens, this run has 64" in other.stderr
