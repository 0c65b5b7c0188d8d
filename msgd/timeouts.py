"""Time-outs that all take equally long, so that the oldest is always the next to expire."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")


class Timeouts(Generic[T]):
    """One time-out for each of many things; every operation takes constant time.

    Times are seconds of the monotonic clock: a wall clock that is set does not move them.
    """

    def __init__(self, seconds: float) -> None:
        self.set(seconds)
        self._since: dict[T, float] = {}  # in the order of their start

    def set(self, seconds: float) -> None:
        """How long each takes, also those that are running; with 0 nothing ever expires."""
        self._seconds = seconds or inf

    def start(self, thing: T, now: float) -> None:
        """Start the time-out, or start it again."""
        self._since.pop(thing, None)
        self._since[thing] = now

    def stop(self, thing: T) -> None:
        self._since.pop(thing, None)

    def clear(self) -> list[T]:
        """Stop all; returns what they were for."""
        things = list(self._since)
        self._since.clear()
        return things

    def expired(self, now: float) -> Iterator[T]:
        """Stop and return those whose time has passed."""
        while self.next() <= now:
            thing = next(iter(self._since))
            del self._since[thing]
            yield thing

    def next(self) -> float:
        """When the next one expires; infinity where none does."""
        for since in self._since.values():
            return since + self._seconds
        return inf

    def __contains__(self, thing: T) -> bool:
        return thing in self._since
