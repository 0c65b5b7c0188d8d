"""The progress line of `msgctl send --file`, at the foot of a terminal.

It is only shown: nothing that goes wrong with it, and no terminal however slow, holds up the
sending.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from time import monotonic

from msgd.ctl.streams import wait_for_room

_EVERY_SECONDS = 0.1
_CELLS = 20
_ERASE = "\r\x1b[K"


class NoProgress:
    """Where there is no terminal, or nothing to measure by."""

    def begin(self, bytes_done: int, messages: int) -> None: ...

    def show(self, bytes_done: int, messages: int) -> None: ...

    def hide(self) -> None: ...


def progress(total_bytes: Callable[[], int | None]) -> NoProgress:
    """A bar for so many bytes, where standard error is a terminal that can show one."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") in ("", "dumb"):
        return NoProgress()
    try:
        total = total_bytes()
    except OSError:  # who reads the file will say so
        total = None
    return Progress(total) if total else NoProgress()


class Progress(NoProgress):
    """A bar, the messages answered, their rate, and the time that is left."""

    def __init__(self, bytes_total: int) -> None:
        self._total = bytes_total
        self._terminal = sys.stderr.fileno()
        self.begin(0, 0)
        self._next = 0.0  # when it may be drawn again
        self._visible = False

    def begin(self, bytes_done: int, messages: int) -> None:
        """The work begins there: rate and time are told from what comes behind it."""
        self._begin, self._bytes, self._messages = monotonic(), bytes_done, messages

    def show(self, bytes_done: int, messages: int) -> None:
        now = monotonic()
        if now < self._next or not self._is_ours():
            return
        self._next = now + _EVERY_SECONDS
        self._visible = True
        self._write(_ERASE + self._line(bytes_done, messages, now)[: self._columns() - 1])

    def hide(self) -> None:
        if self._visible:
            self._visible = False
            self._write(_ERASE)

    def _line(self, bytes_done: int, messages: int, now: float) -> str:
        seconds = now - self._begin
        done = min(bytes_done / self._total, 1.0)
        begun = min(self._bytes / self._total, done)
        bar = "#" * round(done * _CELLS)
        rate = (messages - self._messages) / seconds if seconds else 0.0
        left = _clock(seconds * (1 - done) / (done - begun)) if done > begun else "-:--"
        return f"[{bar:<{_CELLS}}] {done:4.0%}  {messages:,} messages  {rate:,.0f}/s  {left} left"

    def _is_ours(self) -> bool:
        """Whether the terminal takes something now, and from us: not while in the background."""
        try:
            if os.tcgetpgrp(self._terminal) != os.getpgrp():
                return False
        except OSError as error:
            if error.errno != errno.ENOTTY:  # which is a terminal too, but has no jobs of ours
                return False
        return wait_for_room(self._terminal, 0)

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._terminal).columns or 80
        except OSError:
            return 80

    def _write(self, text: str) -> None:
        try:
            os.write(self._terminal, text.encode())
        except OSError:
            self._next = float("inf")  # the terminal is gone


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"
