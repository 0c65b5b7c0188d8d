"""How often which network has guessed, for the daemon's own log."""

from __future__ import annotations

import logging
from collections import Counter
from math import inf

from msgd.server.timers import Alarm

log = logging.getLogger("msgd")


class Guesses:
    """Says once a minute from where passwords came that were not right.

    A few of them have a line each (msgd.process.log.Seldom), and nothing is said here.
    """

    SECONDS = 60.0
    FEW = 10
    NAMED = 5  # networks; the others are counted
    NETWORKS = 10_000  # that are told apart

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self._counts: Counter[str] = Counter()
        self._due = inf

    def count(self, network: str, guesses: int, now: float) -> None:
        if network not in self._counts and len(self._counts) >= self.NETWORKS:
            network = "further networks"
        self._counts[network] += guesses
        if self._due == inf:
            self._due = now + self.SECONDS
            self._alarm.at(self._due)

    def next(self) -> float:
        """When `step` is to be called."""
        return self._due

    def step(self, now: float) -> None:
        """Say it, when a minute is over."""
        if now < self._due:
            return
        if self._counts.total() > self.FEW:
            log.warning("passwords not accepted in the last minute: %s", self._summary())
        self._counts.clear()
        self._due = inf

    def _summary(self) -> str:
        named = self._counts.most_common(self.NAMED)
        parts = [f"{count} from {network}" for network, count in named]
        others = len(self._counts) - len(named)
        if others:
            rest = self._counts.total() - sum(count for _, count in named)
            parts.append(f"{rest} from {others} other network{'s' if others > 1 else ''}")
        return ", ".join(parts)
