"""Trying again, with growing pauses, for as long as the user wants to wait."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

from msgd.client.client import Client, MsgdError
from msgd.client.errors import SessionError
from msgd.ctl.manners import complain

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds


class Retry:
    """One time limit for each outage: from its first error to the next progress."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.progress()

    def progress(self) -> None:
        """Something was answered: the next error begins another outage."""
        self._deadline = 0.0
        self._pause = _FIRST_PAUSE

    def connected(self, connect: Callable[[], Client]) -> Client:
        """A connection; raises the last error when there is no time for another attempt."""
        while True:
            try:
                return connect()
            except MsgdError as error:
                self.wait(error)

    def wait(self, error: MsgdError) -> None:
        """Pause before another attempt; raises the error again when there is no time for one."""
        if isinstance(error, SessionError):
            raise error
        if self._seconds and not self._deadline:
            self._deadline = monotonic() + self._seconds
            complain(f"{error}; trying again for {self._seconds:g} seconds")
        left = self._deadline - monotonic()
        if left <= 0:
            raise error
        sleep(min(self._pause, left))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
