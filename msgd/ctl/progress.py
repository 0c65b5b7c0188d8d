"""The progress line of `msgctl send --file`, at the foot of a terminal."""

from __future__ import annotations

import os
import sys
from time import monotonic

_EVERY_SECONDS = 0.1
_CELLS = 20
_ERASE = "\r\x1b[K"


class NoProgress:
    """Where there is no terminal, or nothing to measure by."""

    def show(self, bytes_done: int, messages: int) -> None: ...

    def hide(self) -> None: ...


class Progress(NoProgress):
    """A bar, the messages answered, their rate, and the time that is left."""

    def __init__(self, bytes_total: int) -> None:
        self._total = bytes_total
        self._begin = monotonic()
        self._line = ""
        self._drawn_at = 0.0
        self._visible = False

    def show(self, bytes_done: int, messages: int) -> None:
        now = monotonic()
        if now - self._drawn_at >= _EVERY_SECONDS:
            self._drawn_at = now
            done = min(bytes_done / self._total, 1.0)
            self._line = _line(done, messages, now - self._begin)
        elif self._visible:
            return
        self._visible = True
        self._write(_ERASE + self._line[: os.get_terminal_size(sys.stderr.fileno()).columns - 1])

    def hide(self) -> None:
        if self._visible:
            self._visible = False
            self._write(_ERASE)

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _line(done: float, messages: int, seconds: float) -> str:
    bar = "#" * round(done * _CELLS)
    rate = messages / seconds if seconds else 0.0
    left = _clock(seconds / done - seconds) if done else "-:--"
    return f"[{bar:<{_CELLS}}] {done:4.0%}  {messages:,} messages  {rate:,.0f}/s  {left} left"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
