"""Where answers go: a terminal with Markdown, a stream of plain text, or JSON."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import click

from ..runtime import status
from .conversation import Answer
from .speed import rates

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.live import Live

_SECONDS_PER_FRAME = 0.08


class Screen(Protocol):
    """What hears an answer (`Listener`), and its end."""

    def text(self, piece: str) -> None:
        """The next whole characters of the answer."""

    def notice(self, sentence: str) -> None:
        """What the user should know, at the time it happens."""

    def end(self, answer: Answer | None) -> None:
        """The answer is over; None: it failed or was stopped before its first word."""


def open_screen(as_json: bool) -> Screen:
    """JSON if asked for; Markdown where stdout is a terminal that can; else plain text."""
    if as_json:
        return JsonScreen()
    if sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb"):
        return MarkdownScreen()
    return PlainScreen()


class PlainScreen:
    """The text as it comes, to stdout, unbuffered; notices to stderr."""

    def __init__(self) -> None:
        self._is_open = False

    def text(self, piece: str) -> None:
        """Writes it."""
        sys.stdout.write(piece)
        sys.stdout.flush()
        self._is_open = True

    def notice(self, sentence: str) -> None:
        """On a line of its own where both are one terminal."""
        if self._is_open and sys.stdout.isatty():
            self.end(None)
        status(sentence)

    def end(self, answer: Answer | None) -> None:
        """Ends the line."""
        if self._is_open or answer is not None:
            click.echo()
        self._is_open = False


class JsonScreen:
    """One object in a line for each answer."""

    def text(self, piece: str) -> None:
        """Waits for the end."""

    def notice(self, sentence: str) -> None:
        """To stderr."""
        status(sentence)

    def end(self, answer: Answer | None) -> None:
        """Writes the object."""
        if answer is None:
            return
        prompt, decode = rates(answer)
        shown = {
            "text": answer.text,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.n_prompt,
            "cached_tokens": answer.n_reused,
            "completion_tokens": answer.n_tokens,
            "dropped_messages": answer.n_dropped,
            "context_shifts": answer.n_shifts,
            "prompt_tokens_per_s": prompt,
            "completion_tokens_per_s": decode,
        }
        click.echo(json.dumps(shown))


class MarkdownScreen:
    """Markdown as it settles.

    A block that is finished is printed once and scrolls away with all before it; the one in
    progress is drawn again as it grows, its end alone where it is higher than the terminal.
    """

    def __init__(self) -> None:
        from markdown_it import MarkdownIt
        from rich.console import Console
        from rich.theme import Theme

        # Colours of the terminal's own, so that they suit dark and light ones.
        theme = Theme({"markdown.code": "bold cyan", "markdown.code_block": "cyan"})
        self._console = Console(theme=theme, highlight=False)
        self._parse: Callable[[str], list[Any]] = MarkdownIt().enable("table").parse
        self._live: Live | None = None
        self._pending = ""  # the block in progress, as the model wrote it
        self._n_blocks = 0
        self._drawn = 0.0

    def text(self, piece: str) -> None:
        """Takes it in, and draws some times a second."""
        self._pending += _without_controls(piece)
        now = time.monotonic()
        if now - self._drawn < _SECONDS_PER_FRAME:
            return
        self._settle()
        self._draw()
        self._drawn = time.monotonic()

    def notice(self, sentence: str) -> None:
        """On a line of its own, above the block in progress."""
        if self._live is None:
            status(sentence)
            return
        self._console.print(f"pyllamacpp: {sentence}", style="dim", markup=False)

    def end(self, _answer: Answer | None) -> None:
        """Prints the rest."""
        self._settle()
        self._stop()
        if self._pending.strip():
            self._print(self._pending)
        self._pending, self._n_blocks, self._drawn = "", 0, 0.0

    def _settle(self) -> None:
        """Prints what comes before the last block, which alone can change."""
        starts = [
            token.map[0]
            for token in self._parse(self._pending)
            if token.level == 0 and token.map and token.nesting >= 0
        ]
        if len(starts) < 2:
            return
        lines = self._pending.splitlines(keepends=True)
        self._stop()
        for first, last in itertools.pairwise(starts):
            self._print("".join(lines[first:last]))
        self._pending = "".join(lines[starts[-1] :])

    def _draw(self) -> None:
        if not self._pending.strip():
            return
        from rich.live import Live

        tail = _Tail(self._spaced(self._pending), self._console.height - 2)
        if self._live is None:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(tail, refresh=True)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print(self, block: str) -> None:
        self._console.print(self._spaced(block))
        self._n_blocks += 1

    def _spaced(self, block: str) -> RenderableType:
        from rich.console import Group
        from rich.markdown import Markdown

        shown = Markdown(block, code_theme="ansi_dark", hyperlinks=False)
        return Group("", shown) if self._n_blocks else shown


class _Tail:
    """The last lines of what is too high."""

    def __init__(self, shown: RenderableType, n_lines: int) -> None:
        self._shown = shown
        self._n_lines = max(n_lines, 1)

    def __rich_console__(self, console: Console, _options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        lines = console.render_lines(self._shown, pad=False)[-self._n_lines :]
        for i, line in enumerate(lines):
            yield from line
            if i + 1 < len(lines):
                yield Segment.line()


def _without_controls(text: str) -> str:
    """Control characters as their pictures: no answer steers the terminal."""
    return text.translate(_PICTURES)


_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_PICTURES |= {0x7F: 0x2421, **dict.fromkeys(range(0x80, 0xA0), 0xFFFD)}
