"""Time-outs, in seconds of the monotonic clock: a wall clock that is set does not move them."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Generic, TypeVar

T = TypeVar("T")


class Alarm:
    """When the loop must wake although nothing happens.

    Starting a time-out may move it forward; stopping one does not move it back. So a turn of
    the loop asks one number whether anything is due, however many time-outs are running.
    """

    __slots__ = ("due",)

    def __init__(self) -> None:
        self.due = 0.0

    def at(self, due: float) -> None:
        """Wake at this time, or before."""
        if due < self.due:
            self.due = due


class Timeouts(Generic[T]):
    """One time-out for each of many things, all equally long: the oldest is the next to expire.

    Every operation takes constant time.
    """

    def __init__(self, seconds: float, alarm: Alarm) -> None:
        self._alarm = alarm
        self.set(seconds)
        self._since: dict[T, float] = {}  # in the order of their start

    def set(self, seconds: float) -> None:
        """How long each takes, also those that are running; with 0 nothing ever expires."""
        self._seconds = seconds or inf
        self._alarm.due = 0.0

    def start(self, thing: T, now: float) -> None:
        """Start the time-out, or start it again."""
        self._since.pop(thing, None)
        self._since[thing] = now
        self._alarm.at(now + self._seconds)

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
