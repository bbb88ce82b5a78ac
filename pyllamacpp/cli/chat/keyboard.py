"""Where questions come from: an editor of lines in a terminal, or stdin as it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from ..runtime import status
from .store import data_dir

if TYPE_CHECKING:
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

PROMPT = "> "
Complete = Callable[[str], Iterable[tuple[str, int]]]
"""From the text before the cursor to endings of it: what to write, and from how far back."""


class Keyboard(Protocol):
    """Reads one question at a time."""

    can_edit: bool  # whether `draft` can be offered
    was_sent: bool  # whether Enter has ended the last read, which Ctrl-C may follow at once

    def read(self, draft: str) -> str:
        """The next question or command, which may have several lines; draft: what stands there.

        Raises EOFError when the user leaves, KeyboardInterrupt for Ctrl-C.
        """


def open_keyboard(complete: Complete) -> Keyboard:
    """An editor where stdin and stdout are a terminal."""
    capable = os.environ.get("TERM", "") not in ("", "dumb")
    if sys.stdin.isatty() and sys.stdout.isatty() and capable:
        return Editor(complete)
    return Lines()


class Lines:
    """Lines of stdin; stdout is kept for the answers. A backslash at the end goes on."""

    can_edit = False
    was_sent = False

    def read(self, draft: str) -> str:  # noqa: ARG002 - nothing can be offered here
        """One question."""
        lines: list[str] = []
        self.was_sent = False
        while True:
            if sys.stdin.isatty():
                sys.stderr.write(PROMPT)
                sys.stderr.flush()
            line = sys.stdin.readline()
            if not line:
                raise EOFError
            lines.append(line.rstrip("\n"))
            if not lines[-1].endswith("\\"):
                self.was_sent = True
                return "\n".join(lines)
            lines[-1] = lines[-1][:-1]


class Editor:
    """Several lines, history with search, completion; what is pasted is not sent by its lines."""

    can_edit = True
    was_sent = False

    def __init__(self, complete: Complete) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.shortcuts import CompleteStyle

        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=". ",
            history=_history(),
            completer=_completer(complete),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            key_bindings=self._keys(),
        )

    def read(self, draft: str) -> str:
        """One question."""
        self.was_sent = False
        # As a signal Ctrl-C comes only when the line is over, and is not for the editor.
        question: str = self._session.prompt(default=draft, handle_sigint=False)
        return question

    def _keys(self) -> KeyBindings:
        from prompt_toolkit.filters import is_searching
        from prompt_toolkit.key_binding import KeyBindings

        def send(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.document.text_before_cursor.endswith("\\"):
                buffer.delete_before_cursor()
                buffer.newline(copy_margin=False)
            else:
                self.was_sent = True
                buffer.validate_and_handle()

        def new_line(event: KeyPressEvent) -> None:
            event.current_buffer.newline(copy_margin=False)

        keys = KeyBindings()
        keys.add("enter", filter=~is_searching)(send)
        keys.add("escape", "enter", filter=~is_searching)(new_line)
        return keys


def _history() -> History:
    """Of all chats, in one file; of this one alone where that cannot be written."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    path = data_dir() / "chat_history"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        status(f"questions are not remembered: cannot write {path}: {error.strerror}")
        return InMemoryHistory()

    class Questions(FileHistory):
        """In UTF-8; of what was typed otherwise, question marks stand for the odd bytes."""

        def store_string(self, string: str) -> None:
            super().store_string(string.encode("utf-8", "replace").decode("utf-8"))

    return Questions(str(path))


def _completer(complete: Complete) -> Completer:
    from prompt_toolkit.completion import Completer, Completion

    class Commands(Completer):
        """Offers what the commands know."""

        def get_completions(
            self, document: Document, complete_event: CompleteEvent
        ) -> Iterator[Completion]:
            del complete_event
            for text, back in complete(document.text_before_cursor):
                yield Completion(text, -back)

    return Commands()
