"""The commands, run as a user runs them: stdout, stderr, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMANDS = ["bench", "chat", "convert", "devices", "embed", "generate", "imatrix", "inspect"]
COMMANDS += ["models", "perplexity", "plan", "pull", "quantize", "rm", "tokenize"]
FRANCE = "The capital of France is"


def one_error(result) -> str:
    """The sentence of a command that failed as it should."""
    assert result.returncode == 1
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if "error" in line]
    assert len(lines) == 1
    assert lines[0].startswith("pyllamacpp: error: ")
    assert "Traceback" not in result.stderr
    return lines[0]


def test_version(run) -> None:
    import pyllamacpp

    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"pyllamacpp {pyllamacpp.__version__}\n")
    module = subprocess.run(
        [sys.executable, "-m", "pyllamacpp", "--version"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert module.stdout == result.stdout


def test_help_lists_the_commands(run) -> None:
    result = run("--help")
    assert result.returncode == 0
    for name in COMMANDS:
        assert f"  {name} " in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(run, name: str) -> None:
    result = run(name, "--help")
    assert result.returncode == 0
    assert "Examples:\n" in result.stdout
    assert f"pyllamacpp {name}" in result.stdout


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("generate", "--nonsense"),
        ("generate", "-p", "x", "-f", "y"),
        ("generate", "-p", "x", "-n", "many"),
        ("generate", "-p", "x", "-t", "0"),
        ("tokenize", "-f", "x", "text"),
        ("pull",),
        ("chat", " "),
    ],
)
def test_usage_errors_exit_with_2(run, args) -> None:
    result = run(*args)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Usage: pyllamacpp" in result.stderr
    assert "Traceback" not in result.stderr


def test_errors_are_one_sentence(run, tmp_path: Path, default_model: Path) -> None:
    garbage = tmp_path / "garbage.gguf"
    garbage.write_bytes(b"not a model")
    model = str(default_model)
    assert "there is no file /no/such.gguf" in one_error(
        run("generate", "-m", "/no/such.gguf", "-p", "x")
    )
    assert "garbage.gguf" in one_error(run("generate", "-m", str(garbage), "-p", "x"))
    assert "garbage.gguf" in one_error(run("inspect", str(garbage)))
    assert "folder" in one_error(run("chat", "-m", str(tmp_path), "x"))
    assert "cannot read /no/file" in one_error(run("tokenize", "-m", model, "-f", "/no/file"))
    assert "fewer than one window" in one_error(run("perplexity", "-m", model, stdin="short"))
    assert "known: smollm2-135m" in one_error(run("pull", "other"))
    assert "hf:OWNER/REPO/FILE" in one_error(run("generate", "-m", "hf:a", "-p", "x"))
    too_long = run("generate", "-m", model, "-c", "8", "-p", "word " * 50)
    assert "exceed context window of 8" in one_error(too_long)


def test_generate_writes_only_the_text(run, default_model: Path) -> None:
    args = ("generate", "-m", str(default_model), "-n", "8", "--temp", "0")
    result = run(*args, "-p", FRANCE)
    assert result.returncode == 0
    assert result.stdout.startswith(" Paris")
    assert "context 4096 tokens" in result.stderr
    assert run(*args, stdin=FRANCE).stdout == result.stdout


def test_generate_json(run, default_model: Path, llm, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(FRANCE)
    args = ("generate", "-m", str(default_model), "-n", "8", "--temp", "0", "--json")
    result = json.loads(run(*args, "-f", str(prompt)).stdout)
    assert set(result) == {"text", "tokens", "finish_reason"}
    assert result["finish_reason"] == "length"
    assert len(result["tokens"]) == 8
    assert llm.detokenize(result["tokens"]).decode() == result["text"]
    assert result["text"] == llm(FRANCE, max_tokens=8, temperature=0.0)["choices"][0]["text"]


def test_generate_json_leaves_out_the_end_token(run, default_model: Path, llm) -> None:
    prompt = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n"
    args = ("generate", "-m", str(default_model), "-n", "-1", "--temp", "0", "--json")
    result = json.loads(run(*args, "-p", prompt).stdout)
    assert result["finish_reason"] == "stop"
    assert llm.token_eos() not in result["tokens"]
    assert llm.detokenize(result["tokens"]).decode() == result["text"]


def test_a_seed_repeats(run, default_model: Path) -> None:
    args = ("generate", "-m", str(default_model), "-p", "Once", "-n", "16", "--temp", "1.5")
    texts = [run(*args, "--seed", seed).stdout for seed in ("0", "0", "1")]
    assert texts[0] == texts[1] != texts[2]


def test_chat_answers_one_prompt(run, default_model: Path, tmp_path: Path) -> None:
    args = ("chat", "-m", str(default_model), "--temp", "0")
    question = "Name the capital city of France."
    result = run(*args, question)
    assert result.returncode == 0
    assert "Paris" in result.stdout
    assert result.stdout.endswith("\n")
    assert run(*args, stdin=question + "\n").stdout == result.stdout
    file = tmp_path / "question.txt"
    file.write_text(question)
    assert run(*args, "-f", str(file)).stdout == result.stdout
    who = (*args, "-n", "12", "Who are you?")
    assert run(*who, "--system", "You are a pirate.").stdout != run(*who).stdout


def test_chat_says_when_an_answer_is_cut(run, default_model: Path) -> None:
    args = ("chat", "-m", str(default_model), "--temp", "0", "Tell me a long story.")
    assert "cut at 5 tokens" in run(*args, "-n", "5").stderr
    assert "context of 48 tokens is full" in run(*args, "-c", "48").stderr


def test_tokenize(run, default_model: Path, llm) -> None:
    text = "Hello, wörld ☺"
    args = ("tokenize", "-m", str(default_model))
    result = json.loads(run(*args, "--json", text).stdout)
    assert set(result) == {"ids", "pieces"}
    assert result["ids"] == llm.tokenize(text.encode())
    assert len(result["pieces"]) == len(result["ids"])
    assert result["pieces"][0] == "Hello"
    lines = run(*args, stdin=text).stdout.splitlines()
    assert [int(line.split()[0]) for line in lines] == result["ids"]
    assert '"Hello"' in lines[0]
    special = json.loads(run(*args, "--json", "--special", "<|im_start|>").stdout)
    assert special == {"ids": [1], "pieces": ["<|im_start|>"]}


def test_perplexity(run, default_model: Path) -> None:
    text = Path(__file__).parents[1] / "data" / "english.txt"
    excerpt = text.read_text("utf-8")[:2000]
    args = ("perplexity", "-m", str(default_model), "-c", "128")
    result = json.loads(run(*args, "--json", stdin=excerpt).stdout)
    assert set(result) == {"ppl", "n_tokens"}
    assert result["n_tokens"] % 63 == 0
    assert 1 < result["ppl"] < 200
    assert f"perplexity {result['ppl']:.4f} " in run(*args, stdin=excerpt).stdout


def test_inspect(run, default_model: Path) -> None:
    result = json.loads(run("inspect", str(default_model), "--json").stdout)
    assert result["n_tensors"] == 272
    assert result["n_params"] == 134_515_008
    assert result["bits_per_weight"] == pytest.approx(result["n_bytes"] * 8 / result["n_params"])
    assert result["metadata"]["general.architecture"] == "llama"
    assert result["metadata"]["tokenizer.ggml.tokens"]["length"] == 49152
    embedding = next(t for t in result["tensors"] if t["name"] == "token_embd.weight")
    assert (embedding["dtype"], embedding["shape"]) == ("q8_0", [576, 49152])
    page = run("inspect", str(default_model)).stdout
    assert "134,515,008 in 272 tensors" in page
    assert "token_embd.weight" in page
    assert len(page.splitlines()) < 400


def test_models_and_rm(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYLLAMACPP_CACHE", str(tmp_path))
    assert "not fetched: pyllamacpp pull smollm2-135m" in run("models").stdout
    (tmp_path / "own.gguf").write_bytes(b"x" * 1000)
    assert str(tmp_path / "own.gguf") in run("models").stdout
    assert run("rm", "own").returncode == 0
    assert list(tmp_path.iterdir()) == []
    assert "there is no model 'own'" in one_error(run("rm", "own"))


def test_a_reader_that_leaves_is_no_error(command_path: str, default_model: Path) -> None:
    args = [command_path, "generate", "-m", str(default_model), "-p", FRANCE, "-n", "200"]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert "Traceback" not in errors
    assert "Broken pipe" not in errors
    assert "Exception" not in errors


def test_ctrl_c_exits_with_130(command_path: str, default_model: Path) -> None:
    args = [command_path, "generate", "-m", str(default_model), "-p", FRANCE, "-n", "-1"]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in errors


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks for the mapped model")
@pytest.mark.parametrize(
    "command",
    [("bench", "-r", "1000"), ("perplexity", "-c", "32", "-f", "TEXT")],
    ids=lambda c: c[0],
)
def test_ctrl_c_leaves_long_work(
    command_path: str, default_model: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Ctrl-C once the model is in: exit code 130, no traceback, well before the work's end."""
    text = tmp_path / "text"
    text.write_text("A long text of many words. " * 200_000)
    args = [str(text) if part == "TEXT" else part for part in command]
    args = [command_path, args[0], "-m", str(default_model), *args[1:]]
    with subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while default_model.name not in maps.read_text():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in errors


def test_sampling_and_engine_options(run, default_model: Path, monkeypatch) -> None:
    common = ("generate", "-m", str(default_model), "-p", FRANCE, "-n", "8", "-c", "128")
    plain = run(*common, "--temp", "0")
    same = run(*common, "--temp", "0", "-ctk", "f16", "-b", "3", "--repack", "never", "-t", "1")
    assert same.stdout == plain.stdout
    biased = run(*common, "--temp", "0", "--logit-bias", "42=1000", "--json")
    assert json.loads(biased.stdout)["tokens"] == [42] * 8
    penalized = run(
        *(*common, "--temp", "0", "--logit-bias", "42=30", "--json"),
        *("--repeat-penalty", "100", "--repeat-last-n", "4"),
    )
    tokens = json.loads(penalized.stdout)["tokens"]
    assert 0 < tokens.count(42) < 8
    monkeypatch.setenv("PYLLAMACPP_DEVICE", "cpu")
    gpu = run(*common, "--temp", "0", "-ngl", "20")
    assert gpu.stdout == plain.stdout
    assert gpu.stderr.count("n_gpu_layers=20: 0 of the 31 layers") == 1
    assert run(*common, "--temp", "0", "-ngl", "auto").stdout == plain.stdout
    assert run(*common, "-ngl", "-2").returncode == 2
    assert run(*common, "--logit-bias", "x").returncode == 2
    assert run(*common, "--type-k", "q3_k").returncode == 2
