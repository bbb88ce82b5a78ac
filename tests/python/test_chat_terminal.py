"""The chat in a terminal: a real pseudo-terminal, real keys."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyte
import pytest

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

TAKEN = r"\x1b\[\?2004l"
READY = r"\x1b\[\?2004h"  # the editor waits for a line, and takes pastes whole
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|9[0-7]|38;5;\d+)m")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Without what a user has saved, and with a terminal that answers no question of its own."""
    without = {
        key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS")
    }
    data = {"PYLLAMACPP_DATA": str(tmp_path / "data"), "PROMPT_TOOLKIT_NO_CPR": "1"}
    return {**without, **data, "TERM": "xterm"}


@pytest.fixture
def start(
    command_path: str, default_model: Path, environment: dict[str, str], tmp_path: Path
) -> Iterator[Start]:
    """Starts a chat and waits for its first prompt."""
    with terminals(READY, tmp_path) as open_chat:

        def spawn(*args: str, width: int = 200, **variables: str) -> Chat:
            command = [command_path, "chat", "-m", str(default_model), "--temp", "0", *args]
            return open_chat(command, {**environment, **variables}, width)

        yield spawn


def taken(chat: Chat) -> None:
    """Waits until the editor is closed: Ctrl-C is a signal from then on, not a key."""
    chat.expect(TAKEN)
    while not chat.getecho():
        time.sleep(0.01)


def test_questions_and_commands(start: Start, tmp_path: Path) -> None:
    chat = start("-n", "24")
    send(chat, "/regen", "nothing was asked yet")
    send(chat, "/stats", "no answer to measure yet")
    send(chat, FRANCE, "is Paris")
    send(chat, ITALY, "is Rome")
    send(chat, "/tokens", r"\d+ of 4096 tokens")
    send(chat, "/tokens Paris", "1 tokens")
    send(chat, "/undo", "taken back.*Italy")
    send(chat, "/regen", "is Paris")
    send(chat, f"/edit {ITALY}", "is Rome")
    send(chat, "/stats", r"prompt \d+ tokens.*answer \d+ tokens, [\d.]+ tokens/s \(\d+% of")
    send(chat, "/save trip", "saved as trip")
    send(chat, "/export trip.md", "written")
    send(chat, "/export trip.json", "written")
    send(chat, "/export trip.json", "cannot write trip.json: File exists")
    send(chat, "/export trip.doc", r"must end in .md or .json")
    (tmp_path / "town.txt").write_text("The town of Oz has nine gates.")
    send(chat, "/read town.txt", r"town.txt, \d+ tokens, goes before your next question")
    send(chat, "/read nowhere.txt", "cannot read nowhere.txt")
    send(chat, "How many gates are there?", "nine")
    send(chat, "/undo", "taken back")
    send(chat, "/save branch", "saved as branch")
    send(chat, "/save branch", "saved as branch")
    send(chat, "/save trip", "there is a conversation trip already")
    send(chat, "/save ../x", "is not a name")
    send(chat, "/clear", "a new conversation")
    send(chat, "/tokens", "0 of 4096")
    send(chat, "/load", "saved: branch, last, trip")
    send(chat, "/load nowhere", "there is no conversation 'nowhere'")
    send(chat, "/load trip", "trip: 1 questions and answers", "Italy", "Rome")
    send(chat, "/system You are a pirate.", "system message: You are a pirate")
    send(chat, "/system off", "the model's own")
    send(chat, "/set temperature hot", "temperature must be a number, found 'hot'")
    send(chat, "/set mirostat_mode 5", "mirostat_mode is 5, expected")
    send(chat, "/set temp 0.0", "temperature is 0.0")
    send(chat, "/set warmth 2", "there is no setting warmth")
    send(chat, "/set max_tokens 3", "max_tokens is 3")
    send(chat, "/set", "temperature 0.0", "max_tokens 3")
    send(chat, LONG, r"cut at 3 tokens")
    send(chat, "/model", "context 4096 tokens")
    send(chat, "/model /no/such.gguf", "there is no file /no/such.gguf")
    send(chat, "/nonsense", "there is no command /nonsense; /help lists them")
    send(chat, "/clear now", "/clear takes nothing")
    send(chat, "/help", "/regen", "Ctrl-D leaves")
    chat.send("/exit\r")
    ended(chat)
    exported = json.loads((tmp_path / "trip.json").read_text())
    assert [m["role"] for m in exported] == ["user", "assistant"]
    assert exported[0]["content"] == ITALY
    assert "Rome" in exported[1]["content"]
    page = (tmp_path / "trip.md").read_text()
    assert page.startswith(f"## User\n\n{ITALY}\n\n## Assistant\n\n")
    saved = json.loads((tmp_path / "data" / "conversations" / "trip.json").read_text())
    assert (saved["format"], saved["version"]) == ("pyllamacpp-conversation", 1)
    assert saved["messages"] == exported


def test_keys(start: Start, tmp_path: Path) -> None:
    chat = start("-n", "12")
    chat.send("half a line")
    chat.expect("half a line")
    chat.sendintr()
    chat.expect(READY)
    send(chat, "/tok\t", "of 4096 tokens")  # completed
    chat.send("Name the capital city\\\rof France.\x1b\rBe brief.\r")
    chat.expect("Paris")
    chat.expect(READY)
    chat.send("\x1b[200~Name the capital\ncity of Italy.\x1b[201~")
    chat.expect("Italy")
    chat.send("\r")
    chat.expect("Rome")
    chat.expect(READY)
    chat.send("/edit\r")
    chat.expect("Ctrl-C leaves all as it was")
    chat.expect("Italy")
    chat.send("\x7f" * 6 + "Spain.\r")
    chat.expect("Madrid")
    chat.expect(READY)
    leave(chat)
    last = json.loads((tmp_path / "data" / "conversations" / "last.json").read_text())
    assert [m["content"] for m in last["messages"][::2]] == [
        "Name the capital city\nof France.\nBe brief.",
        "Name the capital\ncity of Spain.",
    ]
    again = start("--resume", "last", "-n", "12")
    again.send("\x12brief")  # Ctrl-R
    again.expect("I-search backward: .*brief")
    again.send("\r\r")
    again.expect("Paris")
    again.expect(READY)
    leave(again)


def test_ctrl_c_stops_an_answer(start: Start, tmp_path: Path) -> None:
    # Thousands of tokens stand before the question: the first interrupt arrives among them.
    chat = start("--system", ENGLISH.read_text("utf-8")[:9000])
    chat.send(FRANCE + "\r")
    taken(chat)
    chat.sendintr()
    chat.expect("stopped before the first word: the question is not kept")
    chat.expect(READY)
    send(chat, "/system off", "own")
    chat.send(LONG + "\r")
    taken(chat)
    chat.expect("[a-z]{3}")
    chat.sendintr()
    chat.expect("stopped; what was said so far stays")
    chat.expect(READY)
    leave(chat)
    last = json.loads((tmp_path / "data" / "conversations" / "last.json").read_text())
    assert last["messages"][0]["content"] == LONG
    assert last["messages"][1]["content"]


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
    if policy == "shift":
        send(chat, FRANCE, "the oldest 2 messages .* were dropped from what the model sees")
    if policy == "error":
        send(chat, "/tokens", "0 of 80 tokens")
    leave(chat)


MARKDOWN = "# Title\n\nSome **bold** words and more of them, to fill a line or two.\n\n"
MARKDOWN += "```python\ndef f():\n    return 1\n```\n\n- one\n- two\n"


def test_markdown_settles(start: Start, tmp_path: Path) -> None:
    """What stands in the terminal after an answer is drawn is the text without its marks."""
    folder = tmp_path / "data" / "conversations"
    folder.mkdir(parents=True)
    said = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": MARKDOWN + "\x1b]0;"},
    ]
    saved = {"format": "pyllamacpp-conversation", "version": 1, "model": "m", "system": None}
    (folder / "page.json").write_text(json.dumps({**saved, "messages": said}))
    for width, variables in ((40, {}), (40, {"NO_COLOR": "1"})):
        chat = start("-n", "4", "--resume", "page", width=width, **variables)
        shown = chat.before
        leave(chat)
        screen = pyte.Screen(width, 50)
        pyte.Stream(screen).feed(shown)
        text = "\n".join(line.rstrip() for line in screen.display)
        assert "Title" in text
        assert "# Title" not in text
        assert "**" not in text
        assert "```" not in text
        assert "def f():" in text
        assert "• one" in text
        assert "␛]0;" in text  # no answer steers the terminal
        assert bool(COLOUR.search(shown)) == (not variables)


def test_no_answer_is_drawn_twice(start: Start, llm) -> None:
    question = [{"role": "user", "content": "Name three colors, as a list."}]
    answer = llm.create_chat_completion(question, temperature=0, max_tokens=60)
    words = re.findall(r"\w+", answer["choices"][0]["message"]["content"])
    chat = start("-n", "60", width=40)
    screen = pyte.Screen(40, 50)
    chat.send(question[0]["content"] + "\r")
    chat.expect(READY)
    pyte.Stream(screen).feed(chat.before)
    shown = re.findall(r"\w+", "\n".join(screen.display))
    leave(chat)
    assert [w for w in shown if w in words][-len(words) :] == words


def test_pipes_get_plain_text(
    command_path: str, default_model: Path, environment: dict[str, str]
) -> None:
    args = [command_path, "chat", "-m", str(default_model), "--temp", "0", "-n", "20"]

    def run(*more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*args, *more],
            input=FRANCE,
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )

    plain = run("--stats")
    assert "Paris" in plain.stdout
    assert "\x1b" not in plain.stdout + plain.stderr
    assert re.search(r"answer \d+ tokens, [\d.]+ tokens/s \(\d+% of", plain.stderr)
    found = json.loads(run("--json").stdout)
    assert found["text"] + "\n" == plain.stdout
    assert found["finish_reason"] == "stop"
    assert found["prompt_tokens"] > found["completion_tokens"] > 1
    assert found["completion_tokens_per_s"] > 0


def test_another_model_goes_on_with_the_conversation(start: Start, tmp_path: Path) -> None:
    other = TinyModel(chat_template=CHATML, n_ctx=512).write(tmp_path / "other.gguf")
    chat = start("-n", "24")
    send(chat, FRANCE, "is Paris")
    send(chat, "/tokens", r"\d+ of 4096 tokens")
    send(chat, f"/model {other}")
    send(chat, "/model", "other, context 512 tokens")
    send(chat, "/stats", "no answer to measure yet")  # of this model
    send(chat, "/tokens", r"\d\d+ of 512 tokens")  # what was said stays, in the other's tokens
    send(chat, "/set max_tokens 4")
    send(chat, "Go on.", "cut at 4 tokens")
    send(chat, "/stats", r"answer 4 tokens")
    send(chat, "/undo", "taken back")
    broken = TinyModel(chat_template="{% for").write(tmp_path / "broken.gguf")
    send(chat, f"/model {broken}", "the chat template cannot be compiled")
    send(chat, "/model", "other, context 512 tokens")
    leave(chat)
    last = json.loads((tmp_path / "data" / "conversations" / "last.json").read_text())
    assert last["model"] == "other"
    assert "Paris" in last["messages"][1]["content"]


def test_ctrl_c_while_another_model_loads(
    start: Start, default_model: Path, tmp_path: Path
) -> None:
    tiny = TinyModel(chat_template=CHATML, n_ctx=512).write(tmp_path / "tiny.gguf")
    chat = interrupted_while_loading(
        lambda: start("-m", str(tiny), "-n", "4"), default_model, taken
    )
    send(chat, "/model", "tiny, context 512 tokens")
    send(chat, "hello", "cut at 4 tokens")
    leave(chat)


def test_a_data_folder_that_cannot_be_written(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    chat = start("-n", "24", PYLLAMACPP_DATA=str(tmp_path / "file" / "data"))
    assert "questions are not remembered: cannot write" in chat.before
    send(chat, FRANCE, "is Paris", "the conversation is not kept: cannot write")
    send(chat, ITALY, "is Rome")
    assert "is not kept" not in chat.before  # said once
    send(chat, "/save trip", "cannot write .*trip.json: Not a directory")
    send(chat, "/load", "saved: none")
    leave(chat)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"format": "pyllamacpp-conversation", "version": 99}', "is of version 99, this program"),
        ('{"format": "another", "version": 1}', "is not a saved conversation"),
        ("{", "is not JSON"),
        (
            '{"format": "pyllamacpp-conversation", "version": 1, "messages": [{"role": "user"}]}',
            "does not hold questions and answers in turn",
        ),
    ],
)
def test_a_saved_file_that_is_something_else(
    start: Start,
    command_path: str,
    default_model: Path,
    environment: dict[str, str],
    tmp_path: Path,
    text: str,
    sentence: str,
) -> None:
    folder = tmp_path / "data" / "conversations"
    folder.mkdir(parents=True)
    (folder / "old.json").write_text(text)
    command = [command_path, "chat", "-m", str(default_model), "--resume", "old"]
    done = subprocess.run(
        command, input="hi\n", capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    chat = start("-n", "4")
    send(chat, "/load old", sentence)
    send(chat, "/tokens", "0 of 4096 tokens")
    leave(chat)
    assert (folder / "old.json").read_text() == text


def test_a_question_that_is_not_utf8(start: Start, tmp_path: Path) -> None:
    chat = start("-n", "4")
    os.write(chat.child_fd, b"Say caf\xe9 \xff\xfe.\r")
    chat.expect("cut at 4 tokens")
    chat.expect(READY)
    send(chat, "/save odd", "saved as odd")
    send(chat, "/export odd.md", "written")
    send(chat, FRANCE, "cut at 4 tokens")
    leave(chat)
    again = start("-n", "4", "--resume", "odd")
    send(again, "/regen", "cut at 4 tokens")
    again.send("\x12caf")  # Ctrl-R: it is remembered
    again.expect("I-search backward: .*caf")
    again.send("\x07")
    leave(again)
    said = json.loads((tmp_path / "data" / "conversations" / "odd.json").read_text())
    question = said["messages"][0]["content"]
    assert question.encode("utf-8", "surrogateescape") == b"Say caf\xe9 \xff\xfe."
    assert b"Say caf\xe9 \xff\xfe." in (tmp_path / "odd.md").read_bytes()
