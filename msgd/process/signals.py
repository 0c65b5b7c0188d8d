"""Signals as bytes on a descriptor: a handler only notes the wish, the loop acts on it."""

from __future__ import annotations

import os
import signal
from types import FrameType

_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Signals:
    """Wakes a selector that watches it, which PEP 475 would otherwise let sleep on."""

    def __init__(self) -> None:
        """Take over the handlers of SIGTERM, SIGINT, SIGHUP and SIGCHLD."""
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _WATCHED:
            signal.signal(number, _noted)

    def fileno(self) -> int:
        return self._read

    def take(self) -> list[int]:
        """The numbers of the signals that have come."""
        try:
            return list(os.read(self._read, 512))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Give the handlers back; the end of the program is as usual."""
        signal.set_wakeup_fd(-1)
        for number in _WATCHED:
            signal.signal(number, signal.SIG_DFL)
        os.close(self._read)
        os.close(self._write)


def _noted(number: int, frame: FrameType | None) -> None:
    """Python writes the number to the wakeup descriptor before it calls this."""
