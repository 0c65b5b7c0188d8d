"""The end: how long clients have to take what they are owed, once the server is to stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from math import inf

from msgd.server.timers import Alarm

log = logging.getLogger("msgd")

# For clients that do not take what they are owed, and for those who do.
STOP_SECONDS, LONGEST_STOP_SECONDS = 5.0, 30.0


class Ending:
    """When the loop may end. All times are seconds of the monotonic clock."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self.begun = False  # the server has been asked to stop
        self.at = self._by = inf

    def begin(self, now: float) -> None:
        self.begun = True
        self._by = now + LONGEST_STOP_SECONDS
        self.give_time()

    def give_time(self) -> None:
        """The time begins anew: for clients that do not take what they are owed."""
        if self._by != -inf:
            self.at = time.monotonic() + STOP_SECONDS
            self._alarm.at(self.at)

    def hurry(self) -> None:
        """End at once, whoever is answered yet: it was asked for a second time."""
        self.at = self._by = self._alarm.due = -inf

    def is_due(self, now: float, take_output: Callable[[], bool]) -> bool:
        """Whether the time is up: not while somebody takes what it is owed, slowly.

        Not for ever, and not when in a hurry.
        """
        if now < self.at:
            return False
        if now < self._by and take_output():
            self.give_time()
            return False
        return True


def say_what_is_left(clients: int, unread: int, unsent: int) -> None:
    """A line for the administrator, where the end has cut somebody short; sizes are bytes."""
    if clients:
        log.warning(
            "%d clients did not take what they were owed in time: %d bytes that had arrived are"
            " not archived, %d bytes of replies not sent",
            clients,
            unread,
            unsent,
        )
