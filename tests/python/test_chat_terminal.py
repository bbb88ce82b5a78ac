"""The chat in a terminal: a real pseudo-terminal, real keys."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

TIMEOUT = 120
LONG = "Write a very long story about the sea."
FRANCE = "Name the capital city of France."
ENGLISH = Path(__file__).parents[1] / "data" / "english.txt"

Start = Callable[..., pexpect.spawn]


@pytest.fixture
def start(command_path: str, default_model: Path) -> Iterator[Start]:
    """Starts a chat and waits for its first prompt."""
    children = []

    def spawn(*args: str) -> pexpect.spawn:
        command = ["chat", "-m", str(default_model), "--temp", "0", *args]
        child = pexpect.spawn(
            command_path, command, encoding="utf-8", timeout=TIMEOUT, dimensions=(50, 200)
        )
        child.logfile_read = sys.stdout  # shown when a test fails
        children.append(child)
        child.expect("> ")
        return child

    yield spawn
    for child in children:
        child.close(force=True)


def ask(chat: pexpect.spawn, line: str) -> None:
    """Types a line and waits until the chat has taken it."""
    chat.sendline(line)
    chat.expect_exact(line)
    chat.expect("\n")


def leave(chat: pexpect.spawn) -> None:
    chat.sendeof()
    expect_exit(chat)


def expect_exit(chat: pexpect.spawn) -> None:
    chat.expect(pexpect.EOF)
    chat.wait()
    assert chat.exitstatus == 0


def test_questions_and_answers(start: Start) -> None:
    chat = start()
    for question, answer in ((FRANCE, "Paris"), ("Name the capital city of Italy.", "Rome")):
        ask(chat, question)
        chat.expect(answer)
        chat.expect("> ")
    leave(chat)


def test_ctrl_c_during_an_answer_leaves_the_chat_usable(start: Start) -> None:
    chat = start()
    ask(chat, LONG)
    chat.expect("[a-z]{3}")
    chat.sendintr()
    chat.expect("stopped")
    chat.expect("> ")
    ask(chat, "/clear")
    chat.expect("new conversation")
    chat.expect("> ")
    ask(chat, FRANCE)
    chat.expect("Paris")
    chat.expect("> ")
    leave(chat)


def test_ctrl_c_during_the_prompt_leaves_the_chat_usable(start: Start) -> None:
    # Thousands of tokens stand before the question: the interrupt arrives among them.
    chat = start("--system", ENGLISH.read_text("utf-8")[:12000], "-n", "4")
    ask(chat, FRANCE)
    chat.sendintr()
    chat.expect("stopped")
    chat.expect("> ")
    ask(chat, FRANCE)
    chat.expect(r"\w+")
    chat.expect("> ")
    leave(chat)


def test_ctrl_c_at_the_prompt_clears_then_leaves(start: Start) -> None:
    chat = start()
    chat.send("half a line")
    chat.expect("half a line")
    chat.sendintr()
    chat.expect("> ")
    ask(chat, "/help")
    chat.expect("/clear")
    chat.expect("> ")
    chat.sendintr()
    chat.expect("> ")
    chat.sendintr()
    expect_exit(chat)


def test_commands(start: Start) -> None:
    chat = start()
    ask(chat, "/nonsense")
    chat.expect("there is no command /nonsense")
    chat.expect("> ")
    chat.sendline("")
    chat.expect("> ")
    ask(chat, "/exit")
    expect_exit(chat)


def test_a_full_context_is_announced(start: Start) -> None:
    chat = start("-c", "80")
    ask(chat, LONG)
    chat.expect("context of 80 tokens is full")
    chat.expect("> ")
    ask(chat, LONG)
    chat.expect("exceed context window of 80: the question does not fit any more")
    chat.expect("> ")
    ask(chat, "/clear")
    chat.expect("> ")
    ask(chat, FRANCE)
    chat.expect("Paris")
    chat.expect("> ")
    leave(chat)
