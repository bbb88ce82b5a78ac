"""Long work on files: a bar with GB/s and time left, or a plain line a minute."""

from __future__ import annotations

import sys
import time
from types import TracebackType

import click

from .runtime import status

_LINE_SECONDS = 60.0


class ByteProgress:
    """Shows how far each stage of a run is, on stderr: `update` is a progress callback.

    On a terminal a bar; otherwise a line at most every minute, so that logs stay short.
    """

    def __init__(self) -> None:
        self._bar: click._termui_impl.ProgressBar[None] | None = None
        self._stage = ""
        self._done = 0
        self._began = self._said = time.monotonic()

    def __enter__(self) -> ByteProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def update(self, progress: tuple[str, int, int]) -> None:
        """(stage, bytes done, bytes in all)."""
        stage, done, total = progress
        if stage != self._stage:
            self.end()
            self._stage, self._done, self._began = stage, 0, time.monotonic()
            if sys.stderr.isatty():
                self._bar = click.progressbar(
                    length=total,
                    label=stage,
                    file=sys.stderr,
                    item_show_func=lambda _: self._rate(),
                    show_percent=True,
                )
                self._bar.__enter__()
        step, self._done = done - self._done, done
        if self._bar is not None:
            self._bar.update(step)
        elif time.monotonic() - self._said >= _LINE_SECONDS:
            self._said = time.monotonic()
            left = (self._said - self._began) * (total - done) / max(done, 1)
            status(f"{stage}: {done / total:.0%}, {self._rate()}, {_duration(left)} left")

    def _rate(self) -> str:
        seconds = time.monotonic() - self._began
        return f"{self._done / 1e9 / seconds:.2f} GB/s" if seconds > 0 else ""

    def end(self) -> None:
        """Ends the bar, before something else is printed."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
