"""Whose turn it is: how long the loop sleeps, who is read from first, and for how long."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from operator import attrgetter
from selectors import BaseSelector, SelectorKey
from typing import NamedTuple

from msgd.server.connection import Connection

# A process that sleeps takes up to 30 us to wake. In a conversation, where one message follows the
# other within this time, not sleeping makes the wait for an echo half as long.
AWAKE_SECONDS = 100e-6
# So much longer is a turn for each client that is ready: to find them stays a small part of it.
_READY_SECONDS = 20e-6

Ready = list[tuple[SelectorKey, int]]
_last_read = attrgetter("read_at")


class Pace(NamedTuple):
    """How much is committed together, and how long a turn serves clients that push."""

    commit_bytes: int
    turn_seconds: float

    def until(self, now: float, ready: int) -> float:
        """When a turn ends that began with so many clients ready."""
        return now + self.turn_seconds + _READY_SECONDS * ready


# With fdatasync, enough that it costs each message little; without, what is written and echoed
# while it is in the cache: one bite of a client that pushes.
SYNCED, UNSYNCED = Pace(1 << 20, 0.0007), Pace(256 << 10, 0.0001)


class Wait:
    """Waits for clients; not asleep while one message follows the other."""

    def __init__(self, selector: BaseSelector) -> None:
        self._selector = selector
        self._awake = 0.0  # seconds to look without sleep

    def until(self, due: float) -> Ready:
        """Who is ready, or nobody when this time (of the monotonic clock) has come."""
        began = now = time.monotonic()
        ready: Ready = []
        while not ready and now < began + self._awake:
            os.sched_yield()  # whoever is to come may need this very core
            ready, now = self._selector.select(0), time.monotonic()
        if not ready:
            ready = self._selector.select(max(0.0, due - now))
            now = time.monotonic()
        self._awake = AWAKE_SECONDS if now - began < AWAKE_SECONDS else 0.0
        return ready


def order(readable: list[Connection]) -> tuple[list[Connection], list[Connection]]:
    """Those that brought little the last time, and those that push, who has waited longest first.

    The latter have to take turns, so that nobody else waits behind all of them.
    """
    light = [peer for peer in readable if not peer.pushes]
    heavy = [peer for peer in readable if peer.pushes]
    return light, sorted(heavy, key=_last_read)


def rounds(peers: list[Connection]) -> Iterator[Connection]:
    """These clients, and then again those that have sent more meanwhile."""
    while peers:
        yield from peers
        peers = [peer for peer in peers if peer.bite and peer.wants_read()]
