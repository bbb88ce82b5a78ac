"""The chat of `pyllamacpp-chat`: commands, keys and saved conversations, in a pseudo-terminal."""

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyllamacpp.cli.chat import store
from pyllamacpp.errors import PyllamacppError

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "oracle"))
from terminal import (
    CHATML,
    ENGLISH,
    FRANCE,
    ITALY,
    LONG,
    Chat,
    Start,
    ended,
    interrupted_while_loading,
    leave,
    send,
    terminals,
)
from tiny_model import TinyModel

PROGRAM = str(Path(sysconfig.get_path("scripts")) / "pyllamacpp-chat")
READY = "\n> "


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where conversations are saved, by both programs."""
    folder = tmp_path / "data"
    monkeypatch.setenv("PYLLAMACPP_DATA", str(folder))
    return folder / "conversations"


@pytest.fixture
def start(default_model: Path, data: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a chat and waits for its first prompt."""
    with terminals(READY, tmp_path) as open_chat:

        def spawn(*args: str, **variables: str) -> Chat:
            command = [PROGRAM, "-m", str(default_model), "--temp", "0", *args]
            data_folder = {"PYLLAMACPP_DATA": str(data.parent)}
            return open_chat(command, {**os.environ, **data_folder, **variables})

        yield spawn


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    return str(TinyModel(chat_template=CHATML, n_ctx=512).write(path))


def works(chat: Chat) -> None:
    """Waits until the program has the line and works on it: Ctrl-C takes away what was not read."""

    def ticks() -> int:
        fields = Path(f"/proc/{chat.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11])  # in user mode

    before = ticks()
    while ticks() < before + 20:
        time.sleep(0.01)


def run(model: str, *args: str, asked: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [PROGRAM, "-m", model, *args],
        input=asked,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )


def piped(model: str, *lines: str) -> "subprocess.CompletedProcess[str]":
    return run(model, "--temp", "0", "-n", "4", asked="".join(line + "\n" for line in lines))


def test_questions_and_commands(start: Start, data: Path, tmp_path: Path) -> None:
    chat = start("-n", "24")
    send(chat, "/regen", "nothing was asked yet")
    send(chat, "/edit x", "nothing was asked yet")
    send(chat, "/stats", "no answer to measure yet")
    send(chat, "/save", "has no name yet")
    send(chat, FRANCE, "is Paris")
    send(chat, ITALY, "is Rome")
    send(chat, "/tokens", r"\d+ of 4096 tokens")
    send(chat, "/tokens Paris", "1 tokens")
    send(chat, "/undo", "taken back.*Italy")
    send(chat, "/regen", "is Paris")
    send(chat, f"/edit {ITALY}", "is Rome")
    send(chat, "/edit", "/edit TEXT")
    rate = r", [\d.]+ tokens/s \(\d+% of the machine's limit\)"
    cached = r"prompt \d+ tokens, \d+ of them from the cache" + rate
    send(chat, "/stats", cached + r"; answer \d+ tokens" + rate)
    send(chat, "/save trip", "saved as trip")
    send(chat, "/save last", "last is where each chat is kept by itself")
    send(chat, "/export", "/export FILE.md")
    send(chat, "/export trip.md", "written")
    send(chat, "/export trip.json", "written")
    send(chat, "/export trip.json", "cannot write trip.json: File exists")
    send(chat, "/export no/trip.json", "cannot write no/trip.json: No such file")
    send(chat, "/export trip.doc", r"must end in .md or .json")
    (tmp_path / "town.txt").write_text("The town of Oz has nine gates.")
    (tmp_path / "odd.txt").write_bytes(b"\xff")
    send(chat, "/read town.txt", r"town.txt, \d+ tokens, goes before your next question")
    send(chat, "/read nowhere.txt", "cannot read nowhere.txt: No such file")
    send(chat, "/read odd.txt", "odd.txt is not text in UTF-8")
    send(chat, f"/read {tmp_path}", "cannot read .*: Is a directory")
    send(chat, "How many gates are there?", "nine")
    send(chat, "/undo", "taken back")
    send(chat, "/save branch", "saved as branch")
    send(chat, "/save branch", "saved as branch")
    send(chat, "/save trip", "there is a conversation trip already")
    send(chat, "/save ../x", "is not a name")
    send(chat, "/clear", "a new conversation")
    send(chat, "/tokens", "0 of 4096")
    send(chat, "/load", "saved: branch, last, trip")
    send(chat, "/load nowhere", "no conversation 'nowhere'; saved are: branch, last, trip")
    send(chat, "/load trip", "trip: 1 questions and answers", "Italy", "Rome")
    send(chat, "/system You are a pirate.", "system message: You are a pirate")
    send(chat, "/system off", "the model's own")
    send(chat, "/set temperature hot", "temperature must be a number, found 'hot'")
    send(chat, "/set top_k 1.5", "top_k must be an integer, found '1.5'")
    send(chat, "/set mirostat_mode 5", "mirostat_mode is 5, expected")
    send(chat, "/set top_p nan", "top_p is nan, expected a finite number")
    send(chat, "/set warmth 2", "there is no setting warmth")
    send(chat, "/set warmth", "there is no setting warmth")
    send(chat, "/set when_full never", "when_full must be stop or shift or error")
    send(chat, "/set stats maybe", "stats must be off or on")
    send(chat, "/set temp 0.5", "temperature 0.5")
    send(chat, "/set temp 0", "temperature 0")
    send(chat, "/set max_tokens 3", "max_tokens 3")
    send(chat, "/set", "top_p 0.95", "max_tokens 3", "when_full stop", "stats off")
    send(chat, "/set stats on", "stats on")
    send(chat, LONG, "cut at 3 tokens", "answer 3 tokens")
    send(chat, "/nonsense", "there is no command /nonsense; /help lists them")
    send(chat, "/clear now", "/clear takes nothing, found 'now'")
    send(chat, "/help", "/regen", "Ctrl-D leaves")
    chat.send("/exit\r")
    ended(chat)
    exported = json.loads((tmp_path / "trip.json").read_text())
    assert [m["role"] for m in exported] == ["user", "assistant"]
    assert exported[0]["content"] == ITALY
    assert "Rome" in exported[1]["content"]
    page = (tmp_path / "trip.md").read_text()
    assert page == f"## User\n\n{ITALY}\n\n## Assistant\n\n{exported[1]['content']}\n"
    saved = store.load("trip")
    assert (saved.system, saved.messages, saved.model) == (None, exported, "smollm2-135m")
    assert store.load("branch") == saved
    for path in (data / "trip.json", data):
        assert path.stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in data.iterdir()) == ["branch.json", "last.json", "trip.json"]


def test_lines_and_a_conversation_that_goes_on(start: Start) -> None:
    chat = start("-n", "12")
    chat.send("Name the capital city\\\r")
    chat.expect(r"\n\. ")
    send(chat, "of France.", "Paris")
    leave(chat)
    last = store.load("last")
    assert last.messages[0]["content"] == "Name the capital city\nof France."
    again = start("-n", "12", "--resume", "last")
    assert "last: 1 questions and answers, held with smollm2-135m" in again.before
    assert "Paris" in again.before
    send(again, "/save", "the conversation has no name yet")
    send(again, ITALY, "Rome")
    leave(again)
    assert store.load("last").messages[:2] == last.messages


def test_ctrl_c(start: Start) -> None:
    # Thousands of tokens stand before the question: the first interrupt arrives among them.
    chat = start("--system", ENGLISH.read_text("utf-8")[:9000])
    chat.send(FRANCE + "\r")
    works(chat)
    chat.sendintr()
    chat.expect("stopped before the first word: the question is not kept")
    chat.expect(READY)
    send(chat, "/undo", "nothing was asked yet")
    send(chat, "/system off", "own")
    chat.send(LONG + "\r")
    chat.expect(r"sea\.\r\n")  # the echo
    chat.expect("[a-z]{3}")
    chat.sendintr()
    chat.expect("stopped; what was said so far stays")
    chat.expect(READY)
    send(chat, "/stats", r"answer \d+ tokens")
    chat.send("half a line")
    chat.expect("half a line")
    chat.sendintr()
    chat.expect("Ctrl-C again leaves, as Ctrl-D does")
    chat.expect(READY)
    send(chat, "/tokens", r"\d+ of 4096")  # it was not the second after all
    chat.sendintr()
    chat.expect("Ctrl-C again leaves")
    chat.expect(READY)
    chat.sendintr()
    ended(chat)
    said = store.load("last").messages
    assert said[0]["content"] == LONG
    assert said[1]["content"]


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("stop", "context of 80 tokens is full: the answer was cut"),
        ("error", "the text has filled the context of 80 tokens"),
        ("shift", "context of 80 tokens is full: the older half was dropped"),
    ],
)
def test_a_full_context_is_announced(start: Start, policy: str, sentence: str) -> None:
    chat = start("-c", "80", "--when-full", policy, "-n", "90")
    send(chat, LONG, sentence)
    if policy == "stop":
        send(chat, LONG, "the question does not fit any more")
        send(chat, "/set when_full shift", "when_full shift")
    if policy != "error":
        send(chat, FRANCE, "the oldest 2 messages .* were dropped from what the model sees")
        send(chat, "/tokens", "the oldest 2 messages are not seen any more")
        assert len(store.load("last").messages) == 4
    else:
        send(chat, "/tokens", "0 of 80 tokens")
    leave(chat)


def test_no_answer_steers_the_terminal(start: Start) -> None:
    said = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "a\x1b]0;\x9b\tb\n"}]
    store.save("page", store.Saved("\x1b[2J", said, "m\x07"))
    chat = start("-n", "4", "--resume", "page")
    assert "a␛]0;�\tb" in chat.before
    assert "m␇" in chat.before
    send(chat, "/system", r"␛\[2J")
    send(chat, "/nonsense\x16\x1b", r"/nonsense\\x1b")
    leave(chat)


def test_a_data_folder_that_cannot_be_written(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    chat = start("-n", "24", PYLLAMACPP_DATA=str(tmp_path / "file" / "data"))
    send(chat, FRANCE, "is Paris", "the conversation is not kept: cannot write")
    send(chat, ITALY, "is Rome")
    assert "is not kept" not in chat.before  # said once
    send(chat, "/save x", "cannot write")
    leave(chat)


def test_another_model(start: Start, default_model: Path, tmp_path: Path) -> None:
    TinyModel(chat_template=CHATML, n_ctx=512).write(tmp_path / "other.gguf")
    TinyModel(chat_template="{{ messages[0].content }}").write(tmp_path / "unknown.gguf")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    chat = start("-n", "24", HOME=str(tmp_path))
    own = r", format chatml \(the file's own\)"
    send(chat, "/model", "smollm2-135m, context 4096 tokens" + own)
    send(chat, FRANCE, "is Paris")
    send(chat, "/model other.gguf", "other, context 512 tokens" + own)
    send(chat, "/stats", "no answer to measure yet")  # of this model
    send(chat, "/tokens", r"\d\d+ of 512 tokens")  # what was said stays, in the other's tokens
    send(chat, "/set max_tokens 4", "max_tokens 4")
    send(chat, "Go on.", "cut at 4 tokens")
    assert store.load("last").model == "other"
    assert "Paris" in store.load("last").messages[1]["content"]
    for file, sentence in (
        ("no/such.gguf", "'no/such.gguf' cannot be opened"),
        ("broken.gguf", "broken.gguf"),
        ("unknown.gguf", "is not of a kind built into this program; choose one with --format"),
    ):
        send(chat, f"/model {file}", f"pyllamacpp-chat: .*{sentence}")
        send(chat, "/model", "other, context 512 tokens" + own)
    send(chat, "/stats", "answer 4 tokens")
    send(chat, "/regen", "cut at 4 tokens")  # it is still there
    send(chat, "/undo", "taken back.*Go on")
    send(chat, f"/model {default_model}", "smollm2-135m, context 4096 tokens")
    send(chat, "/set max_tokens 24", "max_tokens 24")
    send(chat, ITALY, "is Rome")
    send(chat, "/model ~/other.gguf", "other, context 512 tokens")
    leave(chat)


def test_another_model_is_loaded_as_the_first_was(start: Start, tmp_path: Path) -> None:
    TinyModel(chat_template="{{ messages[0].content }}").write(tmp_path / "unknown.gguf")
    chat = start("-n", "4", "-c", "300", "--format", "vicuna")
    send(chat, "/model unknown.gguf", "unknown, context 300 tokens, format vicuna\r")
    send(chat, "hello", "cut at 4 tokens")
    leave(chat)


def test_ctrl_c_while_another_model_loads(start: Start, default_model: Path, tiny: str) -> None:
    chat = interrupted_while_loading(lambda: start("-m", tiny, "-n", "4"), default_model)
    send(chat, "/model", "tiny, context 512 tokens")
    send(chat, "hello", "cut at 4 tokens")  # the interrupt is not for this one
    leave(chat)


@pytest.mark.usefixtures("data")
def test_another_model_answers_in_the_conversation(tiny: str, tmp_path: Path) -> None:
    """As it does when the conversation is loaded with it."""
    other = str(TinyModel(chat_template=CHATML, n_ctx=512, seed=2).write(tmp_path / "other.gguf"))
    changed = piped(tiny, "one", "/save talk", f"/model {other}", "two")
    assert changed.returncode == 0, changed.stderr
    assert "pyllamacpp-chat: other, context 512 tokens" in changed.stderr
    assert changed.stdout == piped(other, "/load talk", "two").stdout
    assert changed.stdout != piped(tiny, "/load talk", "two").stdout
    refused = piped(tiny, "/model /nowhere.gguf", "one")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "'/nowhere.gguf' cannot be opened" in refused.stderr


@pytest.mark.usefixtures("data")
def test_json_is_that_of_python(tiny: str, command_path: str) -> None:
    options = ["-m", tiny, "--temp", "0", "-n", "12", "--json"]
    native = run(tiny, *options[2:], asked="hello\n")
    command = [command_path, "chat", *options, "hello"]
    python = subprocess.run(command, capture_output=True, text=True, check=True)
    assert native.returncode == 0, native.stderr
    found, expected = json.loads(native.stdout), json.loads(python.stdout)
    assert list(found) == list(expected)
    for speed in ("prompt_tokens_per_s", "completion_tokens_per_s"):
        assert found.pop(speed) > 0
        expected.pop(speed)
    assert found == expected
    # One line, however the text has them; nothing but ASCII.
    text = json.dumps(expected["text"])
    assert native.stdout.startswith(f'{{"text": {text}, "finish_reason": "length", "prompt_')
    assert native.stdout.count("\n") == 1


@pytest.mark.usefixtures("data")
def test_json_of_each_answer(tiny: str) -> None:
    def answers(*args: str, asked: str = "") -> list[dict[str, Any]]:
        done = run(tiny, "--temp", "0", "--json", *args, asked=asked)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    lines = "one\n/save talk\n/load talk\n/tokens\ntwo\n/regen\n"
    first, second, again = answers("-n", "4", asked=lines)
    assert (first["completion_tokens"], first["cached_tokens"]) == (4, 0)
    assert second["cached_tokens"] > 0
    assert second["prompt_tokens"] > first["prompt_tokens"]
    assert again["text"] == second["text"]
    (single,) = answers("-n", "1", asked="one\n")
    assert single["completion_tokens_per_s"] is None  # from the first to the last
    shifted = answers("-n", "40", "-c", "96", "--when-full", "shift", asked="one\ntwo\nthree\n")
    assert [answer["dropped_messages"] for answer in shifted] == [0, 2, 2]
    (long,) = answers("-n", "150", "-c", "96", "--when-full", "shift", asked="one\n")
    assert (long["finish_reason"], long["completion_tokens"]) == ("length", 150)
    assert long["context_shifts"] > 0
    (completion,) = answers("-n", "4", "-p", "Once")
    assert completion["completion_tokens"] == 4
    (answered,) = answers("-n", "4", "--format", "chatml", "-p", "one")
    assert answered["text"] == first["text"]


def test_json_in_a_terminal(start: Start) -> None:
    chat = start("--json", "-n", "24")
    send(chat, FRANCE, r'\r\n\{"text": "[^\r]*is Paris[^\r]*"finish_reason": "stop"[^\r]*\}\r')
    send(chat, "/save trip", "saved as trip")
    chat.send("/load trip\r")
    chat.expect(READY)
    assert "Paris" not in chat.before  # it is no answer
    send(chat, "/set max_tokens -1")
    chat.send(LONG + "\r")
    works(chat)
    chat.sendintr()
    chat.expect('"finish_reason": "interrupted"')
    chat.expect("stopped; what was said so far stays")
    chat.expect(READY)
    leave(chat)


@pytest.mark.usefixtures("data")
def test_a_seed_gives_the_same_conversation(tiny: str) -> None:
    def answers(seed: str, asked: str) -> str:
        done = run(tiny, "-n", "12", "--seed", seed, asked=asked)
        assert done.returncode == 0, done.stderr
        return done.stdout

    thrice = answers("7", "hello\n/regen\n/regen\n")
    assert thrice == answers("7", "hello\n/regen\n/regen\n")
    assert thrice != answers("8", "hello\n/regen\n/regen\n")
    # Each answer has a seed of its own.
    once = answers("7", "hello\n")
    assert thrice.startswith(once)
    assert thrice != once * 3


def test_commands_in_a_pipe(tiny: str, data: Path) -> None:
    done = piped(tiny, "one", "/save talk", "/clear", "/load talk", "/stats")
    assert done.returncode == 1
    assert "pyllamacpp-chat: error: there is no answer to measure yet\n" in done.stderr
    answer = store.load("talk").messages[1]["content"]
    assert done.stdout == f"{answer}\n" * 2
    assert [path.name for path in data.iterdir()] == ["talk.json"]  # "last" is of a terminal's
    done = piped(tiny, "/exit", "two")
    assert (done.returncode, done.stdout) == (0, "")


def test_options_of_a_chat_need_a_chat(tiny: str) -> None:
    for option in (("--system", "x"), ("--resume", "x"), ("--when-full", "shift")):
        done = run(tiny, "-p", "x", *option)
        assert done.returncode == 2
        assert "need --format too" in done.stderr


# As questions come in: what is no UTF-8 travels as surrogates.
TEXT = st.one_of(
    st.text(max_size=20), st.binary(max_size=20).map(lambda b: b.decode("utf-8", "surrogateescape"))
)


@settings(max_examples=20)
@given(texts=st.lists(st.tuples(TEXT, TEXT), max_size=30), system=st.none() | TEXT)
def test_what_one_program_saves_the_other_reads(
    tiny: str,
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[tuple[str, str]],
    system: str | None,
) -> None:
    """The same bytes come out of the same conversation."""
    folder = tmp_path_factory.mktemp("data")
    said = [
        {"role": role, "content": text}
        for pair in texts
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYLLAMACPP_DATA", str(folder))
        store.save("one", store.Saved(system, said, "tiny"))
        saved = store.load("one")
        assert (saved.system, saved.messages) == (system, said)
        theirs = [folder / f"two.{kind}" for kind in ("json", "md")]
        done = piped(tiny, "/load one", "/save two", *(f"/export {file}" for file in theirs))
    assert done.returncode == 0, done.stderr
    conversations = folder / "conversations"
    assert (conversations / "one.json").read_bytes() == (conversations / "two.json").read_bytes()
    for file in theirs:
        own = store.export(str(file).replace("two", "one"), saved)
        assert own.read_bytes() == file.read_bytes()


WHOLE = (
    r'{"format": "pyllamacpp-conversation", "version": 1, "model": "m", "system": "\ud83d\ude00", '
    r'"more": [1, -2.5e+3, true, false, null, {"a": [{}]}], "messages": [{"role": "user", '
    r'"content": "\"\\\/\b\f\n\r\t\u00E4\udcff"}, {"role": "assistant", "content": "b"}]}'
)


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        f"\n\t\r {WHOLE} \n",
        *(WHOLE[:end] for end in range(0, len(WHOLE), 9)),
        WHOLE + "}",
        WHOLE.replace("1,", "2,", 1),
        WHOLE.replace("1,", "1.5,", 1),
        WHOLE.replace('"version": 1, ', ""),
        WHOLE.replace("conversation", "conservation"),
        WHOLE.replace('"user"', '"assistant"'),
        WHOLE.replace('"b"', "1"),
        WHOLE.replace('"m"', '"m", "model": "n"'),
        WHOLE.replace(r'"\ud83d\ude00"', "null"),
        WHOLE.replace(r'"\ud83d\ude00"', "7"),
        WHOLE.replace("-2.5e+3", "01"),
        WHOLE.replace("-2.5e+3", "+1"),
        WHOLE.replace("-2.5e+3", "1."),
        WHOLE.replace("-2.5e+3", ".5"),
        WHOLE.replace("-2.5e+3", "1e"),
        WHOLE.replace("-2.5e+3", "0.0E-0"),
        WHOLE.replace("true", "True"),
        WHOLE.replace("[{}]", "[{},]"),
        WHOLE.replace("{}", '{"a" 1}'),
        WHOLE.replace("{}", "{1: 1}"),
        WHOLE.replace(r"\b", r"\x"),
        WHOLE.replace(r"\u00E4", r"\u00G4"),
        WHOLE.replace(r"\u00E4", "\n"),
        WHOLE.replace("[{}]", "[" * 50 + "]" * 50),
        WHOLE.replace("[{}]", "[" * 200000 + "]" * 200000),
        WHOLE.replace("[{}]", "[" * 200000),
        '{"format": "pyllamacpp-conversation", "version": 1}',
        "[]",
        '"pyllamacpp-conversation"',
    ],
)
def test_a_file_that_is_no_conversation(tiny: str, data: Path, text: str) -> None:
    """Each program reads what the other does."""
    data.mkdir(parents=True)
    (data / "x.json").write_bytes(text.encode())
    done = piped(tiny, "/load x", "/save y")
    try:
        saved = store.load("x")
    except PyllamacppError:
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("pyllamacpp-chat: error: ")
        assert str(data / "x.json") in done.stderr
        return
    assert done.returncode == 0, done.stderr
    again = store.load("y")
    assert (again.system, again.messages) == (saved.system, saved.messages)


@pytest.mark.parametrize("escape", [r"\ud800", r"\ud800\u0041", r"\ud800x", r"\udc7f", r"\ude00"])
def test_half_a_character_is_none(tiny: str, data: Path, escape: str) -> None:
    data.mkdir(parents=True)
    (data / "x.json").write_text(WHOLE.replace(r"\u00E4\udcff", escape + " "))
    done = piped(tiny, "/load x")
    assert done.returncode == 1
    assert "x.json is not JSON" in done.stderr
