"""Trying again, with growing pauses, for as long as the user wants to wait."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from time import monotonic, sleep

from msgd.client import Client, MsgdError
from msgd.client.errors import SessionError
from msgd.client.link import in_seconds
from msgd.ctl.streams import complain

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds


class Retry:
    """One time limit for each outage: from its first error to the next progress."""

    def __init__(self, seconds: float, *, quiet: bool = False, until: float = inf) -> None:
        """``quiet``: nothing is said of an outage that passes; no outage lasts beyond ``until``."""
        self._quiet, self._until = quiet, until
        self.wanted = seconds > 0
        self._seconds = seconds
        self.progress()

    def progress(self) -> None:
        """Something was answered: the next error begins another outage."""
        self.settled()
        self._pause = _FIRST_PAUSE

    def settled(self) -> None:
        """There is a connection, and nothing is due: that is no outage, however often it breaks.

        The pauses stay as long as they have become: the server may close each one at once.
        """
        self._deadline = 0.0

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
            now = monotonic()
            self._deadline = min(now + self._seconds, self._until)
            if not self._quiet and now < self._deadline:
                complain(f"{error}; trying again for {in_seconds(self._seconds)}")
        left = self._deadline - monotonic()
        if left <= 0:
            raise error
        sleep(min(self._pause, left))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
