"""One line of the log when trouble begins, one when it is over; and how long to wait in between."""

from __future__ import annotations

import logging

log = logging.getLogger("msgd")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds


class Trouble:
    """Whether something is wrong between us and the servers."""

    def __init__(self) -> None:
        self.words = ""  # "" while nothing is wrong
        self._said: set[str] = set()
        self._pause = FIRST_PAUSE
        self._quiet = True  # the first doubt after a success says nothing: it mostly passes

    def begins(self, words: str) -> float:
        """It has gone wrong, once more; how many seconds to wait before the next try."""
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        if not self._quiet and words not in self._said:
            log.warning("%s; trying again until it works", words)
            self._said.add(words)
        self._quiet = False
        self.words = words
        return pause

    def over(self) -> None:
        """It works."""
        if self._said:
            log.info("works again")
        self.words, self._pause, self._quiet = "", FIRST_PAUSE, True
        self._said.clear()
