"""Chats in a real pseudo-terminal, of either program, and what is said there."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect

TIMEOUT = 120
LONG = "Write a very long story about the sea."
FRANCE = "Name the capital city of France."
ITALY = "Name the capital city of Italy."
ENGLISH = Path(__file__).parents[1] / "data" / "english.txt"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\\n' }}"
)


class Chat(pexpect.spawn):
    """A chat program. ready: what it shows when it waits for a line."""

    def __init__(
        self, command: list[str], ready: str, environment: dict[str, str], folder: Path, width: int
    ) -> None:
        self.ready = ready
        super().__init__(
            command[0],
            command[1:],
            encoding="utf-8",
            timeout=TIMEOUT,
            dimensions=(50, width),
            env=environment,
            cwd=str(folder),
        )
        self.logfile_read = sys.stdout  # shown when a test fails


Open = Callable[..., Chat]
Start = Callable[..., Chat]


@contextmanager
def terminals(ready: str, folder: Path) -> Iterator[Open]:
    """Opens chats in that folder, each at its first prompt; all end with the context."""
    chats = []

    def open_chat(command: list[str], environment: dict[str, str], width: int = 200) -> Chat:
        chat = Chat(command, ready, environment, folder, width)
        chats.append(chat)
        chat.expect(ready)
        return chat

    yield open_chat
    for chat in chats:
        chat.close(force=True)


def send(chat: Chat, line: str, *answers: str) -> None:
    """Types a line, waits for what must be shown, and for the next prompt."""
    chat.send(line + "\r")
    for answer in answers:
        chat.expect(answer)
    chat.expect(chat.ready)


def interrupted_while_loading(
    start: Callable[[], Chat], model: Path, wait: Callable[[Chat], None] = lambda _chat: None
) -> Chat:
    """A chat in which Ctrl-C has ended `/model`: the first one where it came before the model was
    there. wait: until the program has the line and is no longer reading.
    """
    for _ in range(20):
        chat = start()
        chat.send(f"/model {model}\r")
        wait(chat)
        while model.name not in Path(f"/proc/{chat.pid}/maps").read_text():
            time.sleep(0.001)
        chat.sendintr()
        if chat.expect([r"loading .* was cancelled", "context 4096 tokens"]) == 0:
            chat.expect(chat.ready)
            return chat
    raise AssertionError("Ctrl-C did not end loading")


def leave(chat: Chat) -> None:
    chat.sendeof()
    ended(chat)


def ended(chat: Chat) -> None:
    """Waits for the end, which must be a good one."""
    chat.expect(pexpect.EOF)
    chat.wait()
    assert chat.exitstatus == 0
