"""One peer: its socket, its protocol, and the output that waits for it."""

from __future__ import annotations

import fcntl
import socket
import termios
import time
from selectors import EVENT_READ, EVENT_WRITE

from msgd.archive.records import Form
from msgd.wire.events import Event
from msgd.wire.server import ServerProtocol

# Output that a client has not taken; with more than this it is not read from.
OUTPUT_BYTES = 64 * 1024
_IOV_MAX = 1024
# What is read at once: as much as can be taken apart in about a millisecond. That is the most for
# plain messages; but a line that is refused, or needs an escape, takes up to 100 times as long as a
# plain one, and 256 KiB of such would hold up everybody else for a large part of a second.
BITE_LEAST, BITE_FIRST, BITE_MOST = 512, 4 << 10, 256 << 10
BITE_SECONDS = 0.001


class Connection:
    """A client, from accept to close. It knows nothing of the archive."""

    __slots__ = (
        "_output",
        "address",
        "appetite",
        "bite",
        "broken",
        "closing",
        "ended",
        "form",
        "given_up",
        "held",
        "holding",
        "interest",
        "left",
        "name",
        "pending",
        "protocol",
        "pushes",
        "read_at",
        "remaining",
        "shut",
        "slow",
        "socket",
        "waiting",
    )

    def __init__(self, sock: socket.socket, address: str, origin: str, message_bytes: int) -> None:
        """``address`` is the host's; ``origin``, ``address:port``, stands in the records."""
        self.socket = sock
        self.address = address
        self.name = origin
        self.form = Form(origin)
        self.protocol = ServerProtocol(message_bytes)
        self._output: list[bytes | memoryview] = []
        self.pending = 0  # bytes of output
        self.held = 0  # bytes of output, and behind a password, at the end of the last turn
        self.appetite = BITE_FIRST  # bytes to read at once
        self.bite = 0  # bytes of the last read
        self.read_at = 0.0  # when that was
        self.pushes = False  # whether it may wait for its turn to be read from
        self.slow = False  # a bite of its has taken too long
        self.left: int | None = None  # bytes that it had not acknowledged: see takes_output
        self.interest = 0  # what the selector watches
        self.remaining: int | None = None  # bytes to read yet, once the server is stopping
        self.waiting = False  # for the verdict on a password
        self.holding = False  # what came behind a password is not taken up yet
        self.given_up = False  # no password of this client is verified any more
        self.ended = False  # the client has closed its side
        self.closing = False  # to be closed when its output is sent
        self.shut = False  # its output is sent, and our side closed
        self.broken = False  # nothing can be sent or received any more

    def wants_read(self) -> bool:
        """Whether to read from this client; all of backpressure is here."""
        if self.ended or self.broken:
            return False
        if self.shut:  # read only to throw away, so that the kernel does not reset the stream
            return True
        return (
            not self.closing
            and not self.holding  # 1. what follows a TERM waits for its reply
            and self.pending <= OUTPUT_BYTES  # 2. a client that does not read is not read from
            and self.remaining != 0  # 3. stopping: what came later is not ours
        )

    def wanted(self) -> int:
        """The events that the selector is to watch for this client."""
        return (EVENT_READ if self.wants_read() else 0) | (EVENT_WRITE if self.pending else 0)

    def receive(self, most: int, stamp: bytes) -> list[Event]:
        """Read once, a bite of at most so many bytes; what has come, taken apart."""
        size = min(self.appetite, most)
        if self.remaining is not None and not self.shut:
            size = min(size, self.remaining)
        self.bite = 0
        try:
            data = self.socket.recv(size)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            self.broken = True
            return []
        self.bite = len(data)
        if not data:
            self.ended = True
        if self.shut or self.closing:
            return []
        if self.remaining is not None:
            self.remaining -= len(data)
        self.form.at(stamp)
        if data:
            return self._digest(data, size)
        return self.protocol.end(self.form)

    def _digest(self, data: bytes, size: int) -> list[Event]:
        """Take the bite apart, and settle by the time it took how large the next may be.

        Its size grows fourfold until one was too slow, and by addition from then on, much as TCP's
        window does (RFC 5681, section 3.1): a large slow bite comes once, not again and again.
        """
        began = time.monotonic()
        events = self.protocol.receive(data, self.form)
        took = time.monotonic() - began
        full = self.bite == size
        # A bare message under way must be read on: its quiet while would end it too soon.
        self.pushes = (full or self.bite >= BITE_FIRST) and not self.protocol.unfinished
        if took > BITE_SECONDS:
            self.appetite = max(BITE_LEAST, int(self.bite * BITE_SECONDS / took))
            self.slow = True
        elif full:
            more = BITE_FIRST if self.slow else 3 * self.appetite
            self.appetite = min(self.appetite + more, BITE_MOST)
        return events

    def is_done(self) -> bool:
        """Whether nothing more is to come from this client, nor to go to it."""
        stopped = self.remaining == 0 and not self.protocol.unfinished
        return not (self.pending or self.holding) and (self.closing or stopped)

    def queue(self, data: bytes) -> None:
        """Add to the output. What is queued here is already true: echoes only after a commit."""
        self._output.append(data)
        self.pending += len(data)

    def send(self) -> None:
        """Send what the client takes now."""
        while self._output and not self.broken:
            try:
                if len(self._output) == 1:  # the usual case, in half the time
                    sent = self.socket.send(self._output[0])
                else:
                    sent = self.socket.sendmsg(self._output[:_IOV_MAX])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.broken = True
                return
            self.pending -= sent
            if self.pending:
                self._output = [memoryview(b"".join(self._output))[sent:]]
            else:
                self._output = []

    def discard(self) -> None:
        """Forget the output: nobody is there to take it."""
        self._output, self.pending = [], 0

    def takes_output(self) -> bool:
        """Whether the client has taken some of what it is sent since this was asked before."""
        before, self.left = self.left, self.pending + self._unacknowledged()
        return self.left not in (0, before)

    def limit_input(self) -> None:
        """Read only what has arrived by now: the server is stopping."""
        self.remaining = _bytes(self.socket, termios.FIONREAD)

    def shut_down(self) -> None:
        """Close our side of the stream; the other may still send for a moment."""
        self.shut = True
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.broken = True

    def is_acknowledged(self) -> bool:
        """Whether the client's side has all that was sent, so that closing takes nothing away.

        A close with unread input, or input after it, resets the stream, and a reset drops what
        is still on its way (RFC 9293, section 3.10.4; RFC 1122, section 4.2.2.13).
        """
        return self._unacknowledged() == 0

    def _unacknowledged(self) -> int:
        return _bytes(self.socket, termios.TIOCOUTQ)  # SIOCOUTQ in tcp(7); counts our FIN


def _bytes(sock: socket.socket, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(sock, request, b"\0" * 4), "little")
