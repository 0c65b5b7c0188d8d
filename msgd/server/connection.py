"""One client: the phase it is in, its protocol and transport, and the output that waits for it."""

from __future__ import annotations

from enum import Enum
from selectors import EVENT_READ, EVENT_WRITE
from typing import TYPE_CHECKING

from msgd.archive.records import Form
from msgd.server.fairness import BITE_FIRST, BITE_LEAST, BITE_MOST, Share
from msgd.server.transport import Plain

if TYPE_CHECKING:
    from msgd.server.addresses import Origin
    from msgd.server.admission import Entry
    from msgd.wire.events import Event
    from msgd.wire.server import ServerProtocol

# Output that a client has not taken; with more than this it is not read from.
OUTPUT_BYTES = 64 * 1024
_PIECES = 256
# A handshake is more work than so few bytes are usually; and who is talking goes first.
_GREETING_BYTES = 256


class Phase(Enum):
    """Where a client is in its life."""

    GREETING = "its handshake is not done"
    TALKING = "its requests are taken"
    WAITING = "for the verdict on a password: nothing is taken from it"
    LEAVING = "nothing more is taken from it, and it is sent what it is owed"
    SHUT = "our side is closed; what still comes is thrown away"
    BROKEN = "nothing can be received or sent any more: to be closed when the turn ends"
    GONE = "closed"


# Named here, as each name of an Enum costs Python 3.11 a call.
_TALKING = Phase.GREETING, Phase.TALKING
_THERE = Phase.TALKING, Phase.GREETING, Phase.WAITING
_CLOSED = Phase.BROKEN, Phase.GONE
_P, _GREETING = Phase, Phase.GREETING
# From each phase to which others: a client never comes back, but from a verdict.
_NEXT = {
    _P.GREETING: {_P.TALKING, _P.LEAVING, _P.BROKEN},
    _P.TALKING: {_P.WAITING, _P.LEAVING, _P.BROKEN},
    _P.WAITING: {_P.TALKING, _P.LEAVING, _P.BROKEN},
    _P.LEAVING: {_P.SHUT, _P.BROKEN, _P.GONE},
    _P.SHUT: {_P.BROKEN, _P.GONE},
    _P.BROKEN: {_P.GONE},
    _P.GONE: set[Phase](),
}


class Connection:
    """A client, from accept to close. It knows nothing of the archive."""

    __slots__ = (
        "_left",
        "_output",
        "entry",
        "form",
        "half_closed",
        "held",
        "interest",
        "name",
        "opening",
        "origin",
        "pending",
        "phase",
        "protocol",
        "quiet",
        "session",
        "share",
        "transport",
    )

    def __init__(
        self, transport: Plain, origin: Origin, protocol: ServerProtocol, entry: Entry | None
    ) -> None:
        """``entry`` looks at the first bytes; without one nothing but msgd's protocol is spoken."""
        self.transport = transport
        self.protocol = protocol
        self.entry = entry
        self.phase = Phase.GREETING
        self.half_closed = False  # the client has closed its side (RFC 9293, section 3.6)
        self.share = Share()
        self.session: tuple[str, str] | None = None  # the owner's name, the id
        self.quiet = False  # for long enough to end a bare message
        self.opening = False  # a session, which is answered behind the commit
        self.interest = 0  # what the selector watches
        self.pending = 0  # bytes of output
        self.held = 0  # bytes of our memory that it took at the end of its last turn
        self._output: list[bytes | memoryview] = []
        # What it had not acknowledged when `takes_output` was asked before, and was queued since.
        self._left = 0
        self.come_from(origin)

    def come_from(self, origin: Origin) -> None:
        """Its records begin with this origin."""
        self.origin = origin
        self.name = origin.text  # as it stands in the records, and in the log
        self.form = Form(origin.text)

    def is_own_machine(self) -> bool:
        """Whether the client is on this machine: it comes from the address that it has called."""
        return self.origin.network == "127.0.0.0/8" or self.transport.called() == self.origin.host

    def become(self, phase: Phase) -> None:
        """The only way from one phase to another."""
        if phase not in _NEXT[self.phase]:
            raise AssertionError(f"{self.name}: from {self.phase.name} to {phase.name}")
        self.phase = phase

    def leave(self) -> None:
        """Take nothing more from this client; it is closed when it has what it is owed."""
        if self.phase in _THERE:
            self.become(Phase.LEAVING)

    def break_off(self) -> None:
        """Nothing can be received or sent any more; nobody is there to take the output."""
        if self.phase not in _CLOSED:
            self.become(Phase.BROKEN)
        self._output.clear()
        self.pending = 0

    def is_talking(self) -> bool:
        """Whether anything is taken from it, now or behind a verdict."""
        return self.phase in _THERE

    def wants_read(self) -> bool:
        """Whether to read from this client; all of backpressure is here."""
        if self.half_closed:
            return False
        if self.phase in _TALKING:  # 1. a TERM waits for its verdict
            return (
                not self.protocol.paused  # 2. what was read before comes first
                and self.pending <= OUTPUT_BYTES  # 3. a client that does not read is not read from
                and self.transport.remaining != 0  # 4. stopping: what came later is not ours
            )
        return self.phase is Phase.SHUT  # to throw it away: unread input would reset the stream

    def can_resume(self) -> bool:
        """Whether something can be taken of what was read from it before."""
        return (
            (self.protocol.paused or self.quiet)
            and self.phase is Phase.TALKING
            and not self.opening
            and self.pending <= OUTPUT_BYTES
        )

    def is_new(self) -> bool:
        """Whether its handshake is not done."""
        return self.phase is _GREETING

    def to_take(self) -> int:
        """Bytes that wait to be taken from it, read before or not, or as much work as these."""
        if self.protocol.paused:
            return min(self.protocol.held, BITE_FIRST) or 1
        unread = self.transport.unread()
        return max(unread, _GREETING_BYTES) if self.phase is _GREETING else unread

    def wanted(self) -> int:
        """The events that the selector is to watch for this client."""
        reads = EVENT_READ if self.wants_read() else 0
        return reads | EVENT_WRITE if self.pending or self.transport.pending else reads

    def take(self, most: int, stamp: bytes) -> list[Event]:
        """Read once, up to ``most`` bytes, or go on with what was read before; taken apart.

        Raises OSError where the connection is broken.
        """
        share, protocol = self.share, self.protocol
        share.pushes = False
        if self.phase not in _TALKING or self.opening:
            if self.phase is Phase.SHUT:
                self.half_closed = self.half_closed or not self.transport.throw_away()
            return []
        size = min(share.bite, most)
        if share.waits and share.there < size:  # no more than its place was settled by
            size = max(share.there, BITE_LEAST)
        if protocol.paused:
            self.form.at(stamp)
            size = min(size, BITE_FIRST)  # it has earned larger ones by other requests
            share.taken, events = size, protocol.resume(self.form, size)
        elif self.quiet and self.transport.unread() == 0:
            self.form.at(stamp)
            share.taken, events = 0, protocol.quiet(self.form)
        else:
            events = self._receive(size, stamp)
        self.quiet = False
        # A bare message under way is not read on at once: its quiet while would end it too soon.
        share.pushes = (
            (share.taken >= BITE_FIRST or share.taken >= size)
            and self.pending <= OUTPUT_BYTES
            and not protocol.unfinished
        )
        if self.transport.ended and not (self.half_closed or protocol.paused):
            self.half_closed = True
            self.form.at(stamp)
            events += protocol.end(self.form)
        if self.phase is _GREETING and protocol.greeted:
            self.become(Phase.TALKING)
        return events

    def _receive(self, size: int, stamp: bytes) -> list[Event]:
        events: list[Event] = []
        data = self.transport.receive(size)
        self.share.taken = len(data) if data else 0
        if data and self.entry is not None:
            data, events = self.entry.open(self, data)
        if not data:
            return events
        self.form.at(stamp)
        return events + self.protocol.receive(data, self.form)

    def is_done(self) -> bool:
        """Whether nothing more is to come from this client, as the server is stopping."""
        return (
            self.phase in _TALKING
            and self.transport.remaining == 0
            and not (self.protocol.paused or self.protocol.unfinished)
        )

    def queue(self, *pieces: bytes) -> None:
        """Add to the output. What is queued here is already true: echoes only after a commit."""
        if self.phase not in _CLOSED:
            size = sum(map(len, pieces))
            self._output += pieces
            self.pending += size
            self._left += size

    def send(self) -> None:
        """Send what the client takes now, once. Raises OSError where the connection is broken."""
        if len(self._output) > _PIECES:  # a small piece takes as much memory again
            self._output = [b"".join(self._output)]
        sent = self.transport.send(self._output)
        self.pending -= sent
        if not self.pending:  # the usual case
            self._output.clear()
            return
        done = 0
        while sent and sent >= len(self._output[done]):
            sent -= len(self._output[done])
            done += 1
        del self._output[:done]
        if sent:  # a view of the rest keeps the whole piece, and that is not counted
            rest = memoryview(self._output[0])[sent:]
            whole = memoryview(rest.obj).nbytes
            self._output[0] = bytes(rest) if len(rest) <= max(BITE_MOST, whole // 2) else rest

    def output_waits(self) -> bool:
        """Whether there is output that the kernel has not taken."""
        return bool(self.pending or self.transport.pending)

    def takes_output(self) -> bool:
        """Whether the client has taken some of what it is sent since this was asked before."""
        before, pending = self._left, self.pending + self.transport.pending
        self._left = pending + self.transport.unacknowledged()
        return 0 < self._left < before

    def memory(self) -> int:
        """Bytes of ours that are kept for it: output, and input that is no whole message yet."""
        return self.pending + self.transport.pending + self.protocol.held
