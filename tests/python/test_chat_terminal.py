"""The chat in a terminal: a real pseudo-terminal, real keys."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

TIMEOUT = 120
LONG = "Write a very long story about a lighthouse keeper and the sea."


@pytest.fixture
def chat(command_path: str, default_model: Path) -> Iterator[pexpect.spawn]:
    args = ["chat", "-m", str(default_model), "--temp", "0"]
    child = pexpect.spawn(
        command_path, args, encoding="utf-8", timeout=TIMEOUT, dimensions=(50, 200), echo=False
    )
    child.logfile_read = sys.stdout  # shown when a test fails
    child.expect("> ")
    yield child
    child.close(force=True)


def leave(chat: pexpect.spawn) -> None:
    chat.sendeof()
    chat.expect(pexpect.EOF)
    chat.wait()
    assert chat.exitstatus == 0


def test_questions_and_answers(chat: pexpect.spawn) -> None:
    chat.sendline("Name the capital city of France.")
    chat.expect("Paris")
    chat.expect("\n> ")
    chat.sendline("And what is the name of the river there?")
    chat.expect("Seine")
    chat.expect("\n> ")
    leave(chat)


def test_ctrl_c_during_an_answer_leaves_the_chat_usable(chat: pexpect.spawn) -> None:
    chat.sendline(LONG)
    chat.expect("lighthouse")
    chat.sendintr()
    chat.expect("stopped")
    chat.expect("> ")
    chat.sendline("/clear")
    chat.expect("new conversation")
    chat.expect("> ")
    chat.sendline("Name the capital city of France.")
    chat.expect("Paris")
    chat.expect("\n> ")
    leave(chat)


def test_ctrl_c_during_the_prompt_leaves_the_chat_usable(chat: pexpect.spawn) -> None:
    # Thousands of tokens: the interrupt arrives while they are evaluated.
    chat.sendline("word " * 780)
    chat.sendintr()
    chat.expect("stopped|\n")
    chat.expect("> ")
    chat.sendline("Name the capital city of France.")
    chat.expect("Paris")
    chat.expect("\n> ")
    leave(chat)


def test_ctrl_c_at_the_prompt_clears_then_leaves(chat: pexpect.spawn) -> None:
    chat.send("half a line")
    chat.expect("half a line")
    chat.sendintr()
    chat.expect("> ")
    chat.sendline("/help")
    chat.expect("/clear")
    chat.expect("> ")
    chat.sendintr()
    chat.expect("> ")
    chat.sendintr()
    chat.expect(pexpect.EOF)
    chat.wait()
    assert chat.exitstatus == 0


def test_commands(chat: pexpect.spawn) -> None:
    chat.sendline("/nonsense")
    chat.expect("there is no command /nonsense")
    chat.expect("> ")
    chat.sendline("")
    chat.expect("> ")
    chat.sendline("/exit")
    chat.expect(pexpect.EOF)
    chat.wait()
    assert chat.exitstatus == 0


def test_a_full_context_is_announced(command_path: str, default_model: Path) -> None:
    args = ["chat", "-m", str(default_model), "--temp", "0", "-c", "80"]
    chat = pexpect.spawn(
        command_path, args, encoding="utf-8", timeout=TIMEOUT, dimensions=(50, 200), echo=False
    )
    chat.expect("> ")
    chat.sendline(LONG)
    chat.expect("context of 80 tokens is full")
    chat.expect("> ")
    chat.sendline(LONG)
    chat.expect("exceed context window of 80: the question does not fit any more")
    chat.expect("> ")
    chat.sendline("/clear")
    chat.expect("> ")
    chat.sendline("Name the capital city of France.")
    chat.expect("Paris")
    chat.close(force=True)
