"""Signals as bytes on a descriptor: a handler only notes the wish, the loop acts on it."""

from __future__ import annotations

import os
import signal
from types import FrameType

WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_IGNORED = (signal.SIGUSR1, signal.SIGUSR2)  # they would end the process without a word


class Signals:
    """Wakes a selector that watches it, which PEP 475 would otherwise let sleep on.

    Made before anybody can know of the process: a signal that comes before the loop waits in the
    pipe until there is a loop.
    """

    def __init__(self) -> None:
        """Take over the handlers of SIGTERM, SIGINT, SIGHUP and SIGCHLD."""
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in WATCHED:
            signal.signal(number, _noted)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def fileno(self) -> int:
        return self._read

    def filenos(self) -> list[int]:
        """The descriptors that becoming a daemon must not close."""
        return [self._read, self._write]

    def take(self) -> list[int]:
        """The numbers of the signals that have come."""
        try:
            return list(os.read(self._read, 512))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """All is done that a signal could ask for: from here none cuts the end short."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)


def forget() -> None:
    """In a process that was forked: signals do again what they do to any process."""
    signal.set_wakeup_fd(-1)
    for number in (*WATCHED, *_IGNORED):
        signal.signal(number, signal.SIG_DFL)


def _noted(number: int, frame: FrameType | None) -> None:
    """Python writes the number to the wakeup descriptor before it calls this."""
