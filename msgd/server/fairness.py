"""Whose turn it is: who is served first, how much is read from it, and when a group is complete.

Short work goes first. Clients that wait are sorted into classes by the work that is to be expected
of them: the worst that the bytes may cost that are there to be taken, and no more than these are
taken; each class has twice the work of the one below. One client of each class is served in each
turn, so nobody starves; the rest of a turn is for the lowest. So a polite client, whose messages
are short, waits for one turn and for those who ask for as little as it does, whatever the others
have prepared, and however many they are.

Within a class each client has a share of the loop's time, and is charged for the work that it
causes: the next is the one whose share and whose work end first (self-clocked fair queueing,
Golestani, 1994). A client that was idle gets no credit for it. Shares alone do not do: who has had
as much as each of thousands, who have just come, would wait until all of them have been served.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain
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
# The worst that a byte may cost: one to be read, as a line that is refused; and one that is held,
# as part of a message that is to be escaped.
_READ_SECONDS, _HELD_SECONDS = 0.35e-6, 0.1e-6
# What any work may cost, however few bytes it is. Much more time than what is to be expected was
# not the client's doing: the processor was busy with something else.
_LEAST_SECONDS = 50e-6
# To let go of a client that has left; it is urgent for nobody, so it is no short work.
_LEFT_SECONDS = 500e-6
# A class has twice the work of the one below; more than the highest is not read at once.
_HIGHEST_CLASS = 14
_CLASS_SECONDS = 1e9  # more than a clock ever shows: classes first, shares within them
# So much longer is a turn for each client that is ready: to find them stays a small part of it.
_READY_SECONDS = 20e-6
_LONGEST_TURN = 0.015
# Newcomers have time of their own, however many are talking, and no more: their handshakes take up
# to a millisecond, and with a thousand of them at once a message would wait for some turns.
_NEWCOMERS_SECONDS = 0.003


class Pace(NamedTuple):
    """How much is committed together, how long a turn serves clients, and how it waits."""

    group_bytes: int  # of records and echoes
    turn_seconds: float
    awake_seconds: float = 0.0  # for a conversation: to look again for so long, before sleep


# With fdatasync, enough that it costs each message little; without, what is written and echoed
# while it is in the cache: one bite of a client that pushes. To wake takes up to 30 us: without
# fdatasync, where one message follows the other, not to sleep makes the wait half as long; with it
# it was measured to make it longer.
SYNCED, UNSYNCED = Pace(2 << 20, 0.0007, 0.0), Pace(512 << 10, 0.0001, 100e-6)


class Share:
    """What one client has had of the loop's time, and how much is read from it at once."""

    __slots__ = (
        "bite",
        "end",
        "expected",
        "new",
        "pushes",
        "rank",
        "slow",
        "spent",
        "taken",
        "there",
        "waits",
    )

    def __init__(self) -> None:
        self.spent = 0.0  # seconds, of the clock that goes on as clients are served
        self.expected = 0.0  # seconds, what waits to be taken at worst
        self.rank = 0  # its class by that, 0 for the shortest work
        self.end = 0.0  # where it stands among others: by its class, then by when its share ends
        self.waits = False  # to be served, among others
        self.new = False  # its handshake was not done when its place was settled
        self.bite = BITE_FIRST
        self.slow = False  # a bite of its has taken too long
        self.there = 0  # bytes to take, when its place among others was settled
        self.taken = 0  # bytes of the last bite
        self.pushes = False  # there may be more to read than the last bite

    def charge(self, seconds: float) -> None:
        """Settle by the time that a bite took how large the next may be.

        It grows fourfold until one was too slow, and by addition from then on, much as TCP's
        window does (RFC 5681, section 3.1): a large slow bite comes once, not again and again.
        """
        if seconds > BITE_SECONDS:
            self.bite = max(BITE_LEAST, int(self.taken * BITE_SECONDS / seconds))
            self.slow = True
        elif self.taken >= self.bite:
            more = BITE_FIRST if self.slow else 3 * self.bite
            self.bite = min(self.bite + more, BITE_MOST)


_end = attrgetter("share.end")


class Fairness:
    """The clock of all shares, and the order that follows from it."""

    def __init__(self) -> None:
        self._clock = 0.0

    def welcome(self, share: Share) -> None:
        """A new client comes in."""
        share.spent = self._clock + _NEW_SECONDS

    def order(self, clients: list[Connection]) -> list[Connection]:
        """Those who wait to be served, the next one first."""
        if len(clients) > 1:
            for client in clients:
                if not client.share.waits:
                    self._enqueue(client)
            clients.sort(key=_end)
        return clients

    def _enqueue(self, client: Connection) -> None:
        """It begins to wait: its place is settled now, whoever comes later.

        Who pushes gains nothing by having less to read than others who push: each of them is read
        as far as its bite goes, or small pieces would go back and forth.
        """
        share = client.share
        there = client.to_take()
        if there >= BITE_FIRST:
            there, share.there = BITE_FIRST, BITE_MOST
        else:
            share.there = there
        held = client.held * _HELD_SECONDS
        expected = there * _READ_SECONDS + held or _LEFT_SECONDS
        share.expected = share.there * _READ_SECONDS + held
        share.rank = min(int(expected / _LEAST_SECONDS).bit_length(), _HIGHEST_CLASS)
        if share.spent < self._clock:
            share.spent = self._clock
        share.end = share.rank * _CLASS_SECONDS + share.spent + expected
        share.waits, share.new = True, client.is_new()

    def charge(self, share: Share, seconds: float, made: int) -> None:
        """So much time was spent for a client, and bytes of records and echoes made."""
        if share.waits:
            seconds = min(seconds, 2 * share.expected + _LEAST_SECONDS)
            share.waits = False
        share.charge(seconds)
        if self._clock < share.spent:
            self._clock = share.spent
        share.spent = self._clock + seconds + made * _BYTE_SECONDS


class Turn:
    """The clients of one turn of the loop, in groups, each of which is one commit."""

    __slots__ = (
        "_again",
        "_clock",
        "_fairness",
        "_group_bytes",
        "_new_came",
        "_new_seconds",
        "_queue",
        "_rank",
        "_until",
        "goes_on",
        "made",
    )

    def __init__(
        self,
        fairness: Fairness,
        ready: list[Connection],
        pace: Pace,
        now: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fairness = fairness
        self._queue = iter(fairness.order(ready))
        self._rank = -1  # the class of the one that was served last
        self._again: list[Connection] = []  # who may have sent more than was read
        self._group_bytes = pace.group_bytes
        self._new_came, self._new_seconds = False, _NEWCOMERS_SECONDS
        self._until = now + min(pace.turn_seconds + _READY_SECONDS * len(ready), _LONGEST_TURN)
        self._clock = clock
        self.made = 0  # bytes of records and echoes for the client that was served last
        self.goes_on = True

    def group(self) -> Iterator[Connection]:
        """The clients of the next group; before the next one `made` is to be set for each.

        Each is charged for the time until the next one is asked for. What is made before newcomers
        does not wait for them.
        """
        made, now = 0, self._clock()
        while True:
            for client in self._queue:
                share = client.share
                if share.new and not self._new_came:
                    self._new_came = True
                    if made:
                        self._queue = chain((client,), self._queue)
                        return
                in_time = self._new_seconds > 0 if share.new else now < self._until
                if not in_time and share.rank == self._rank:
                    continue  # when the time is up, one of each class that is left is served
                self._rank = share.rank
                yield client
                began, now = now, self._clock()
                self._fairness.charge(share, now - began, self.made)
                if share.new:
                    self._new_seconds -= now - began
                if share.pushes:
                    self._again.append(client)
                made += self.made
                if made >= self._group_bytes:
                    return
            if not self._again or now >= self._until:
                break
            self._come_again()
        self.goes_on = False

    def _come_again(self) -> None:
        """Who has sent more than was read, as long as there is time; some may be gone by now."""
        again, self._again = [client for client in self._again if client.share.pushes], []
        self._queue, self._rank = iter(self._fairness.order(again)), -1
