"""Whose turn it is: who is served first, how much is read from it, and when a group is complete.

Each client has a share of the loop's time, and is charged for the work that it causes. Those who
have had least go first, as in start-time fair queueing (Goyal, Vin and Cheng, 1996): a client
that was idle gets no credit for it, and who floods waits behind everybody else, however many
they are. So a polite client waits for little more than one turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from msgd.server.connection import Connection

# What is read at once: as much as can be taken apart in about a millisecond. That is the most for
# plain messages; but a line that is refused, or needs an escape, takes up to 100 times as long as a
# plain one, and 256 KiB of such would hold up everybody else for a large part of a second.
BITE_LEAST, BITE_FIRST, BITE_MOST = 512, 4 << 10, 256 << 10
BITE_SECONDS = 0.001
# A new client begins behind those who are there: a flood of newcomers does not pass them.
_NEW_SECONDS = 0.0005
# What a byte of records and echoes will cost, beside the time that it took to make them.
_BYTE_SECONDS = 1e-9
# So much longer is a turn for each client that is ready: to find them stays a small part of it.
_READY_SECONDS = 20e-6
_LONGEST_TURN = 0.005


class Pace(NamedTuple):
    """How much is committed together, and how long a turn serves clients."""

    group_bytes: int  # of records and echoes
    turn_seconds: float


# With fdatasync, enough that it costs each message little; without, what is written and echoed
# while it is in the cache: one bite of a client that pushes.
SYNCED, UNSYNCED = Pace(2 << 20, 0.0007), Pace(512 << 10, 0.0001)


class Share:
    """What one client has had of the loop's time, and how much is read from it at once."""

    __slots__ = ("bite", "pushes", "slow", "spent")

    def __init__(self) -> None:
        self.spent = 0.0  # seconds, of the clock that goes on as clients are served
        self.bite = BITE_FIRST
        self.slow = False  # a bite of its has taken too long
        self.pushes = False  # there may be more to read than the last bite

    def note(self, taken: int, size: int, seconds: float) -> None:
        """Settle by the time that a bite took how large the next may be.

        It grows fourfold until one was too slow, and by addition from then on, much as TCP's
        window does (RFC 5681, section 3.1): a large slow bite comes once, not again and again.
        """
        full = taken >= size
        self.pushes = full or taken >= BITE_FIRST
        if seconds > BITE_SECONDS:
            self.bite = max(BITE_LEAST, int(taken * BITE_SECONDS / seconds))
            self.slow = True
        elif full:
            more = BITE_FIRST if self.slow else 3 * self.bite
            self.bite = min(self.bite + more, BITE_MOST)


_spent = attrgetter("share.spent")


class Fairness:
    """The clock of all shares, and the order that follows from it."""

    def __init__(self) -> None:
        self._clock = 0.0

    def welcome(self, share: Share) -> None:
        """A new client comes in."""
        share.spent = self._clock + _NEW_SECONDS

    def charge(self, share: Share, seconds: float, made: int) -> None:
        """So much time was spent for a client, and bytes of records and echoes made."""
        share.spent = max(share.spent, self._clock) + seconds + made * _BYTE_SECONDS

    def rounds(self, ready: list[Connection]) -> Iterator[Connection]:
        """Those who are ready, who has had least first; then again those who have sent more."""
        while ready:
            ready.sort(key=_spent)
            self._clock = max(self._clock, ready[0].share.spent)
            yield from ready
            ready = [c for c in ready if c.share.pushes and (c.wants_read() or c.can_resume())]


class Turn:
    """One turn of the loop: groups of clients, each of which is one commit."""

    def __init__(self, clients: Iterator[Connection], ready: int, pace: Pace) -> None:
        self._clients = clients
        self._pace = pace
        seconds = pace.turn_seconds + _READY_SECONDS * ready
        self._until = time.monotonic() + min(seconds, _LONGEST_TURN)
        self._made = 0  # bytes of records and echoes in this group
        self.goes_on = ready > 0

    def group(self) -> Iterator[Connection]:
        """Clients until the group's bytes or the turn's time are used up."""
        self._made = 0
        for client in self._clients:
            yield client
            self.goes_on = time.monotonic() < self._until
            if not self.goes_on or self._made >= self._pace.group_bytes:
                return
        self.goes_on = False

    def add(self, made: int) -> None:
        """Bytes of records and echoes, made for a client of this group."""
        self._made += made
