"""Log lines that clients cause: a few of them, then a count, so that nobody floods the log."""

from __future__ import annotations

import logging
import time

log = logging.getLogger("msgd")


class Seldom:
    """Says one kind of thing at most ``burst`` times a minute, and how often it was left out."""

    def __init__(self, level: int, message: str, burst: int = 10) -> None:
        """``message`` is a format as of logging."""
        self._level, self._message, self._burst = level, message, burst
        self._since = time.monotonic()
        self._count = 0

    def __call__(self, *arguments: object) -> None:
        now = time.monotonic()
        if now - self._since >= 60:
            left_out = self._count - self._burst
            if left_out > 0:
                log.log(self._level, "%d more like this: " + self._message, left_out, *arguments)
            self._since, self._count = now, 0
        self._count += 1
        if self._count <= self._burst:
            log.log(self._level, self._message, *arguments)
