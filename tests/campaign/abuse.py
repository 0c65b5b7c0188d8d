"""Clients that misbehave, a program of its own: ``python -m tests.campaign.abuse PORT KIND``.

It ends when its standard input does. One thread, so that hundreds of clients cost what they do
and not what Python's threads cost; and nothing of msgd's, so that it starts fast. It writes a line
when its clients have come to what makes their kind.
"""

from __future__ import annotations

import random
import resource
import selectors
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.campaign.keyupdate import Session

GREETING = b"PING\n"
PROXY = "127.0.0.9"  # where the daemon expects a proxy
STUCK_SECONDS = 1.0  # when nothing is taken for so long, a client is stuck
RETURN_SECONDS = 5.0  # a stuck client goes, and comes again


class Plan(NamedTuple):
    """How a kind of client behaves."""

    clients: int
    opening: tuple[bytes, ...] = (GREETING,)  # one of them, drawn by lot
    block: bytes = b""  # what it sends over and over
    every: float | None = None  # seconds between two blocks; None: as fast as they are taken
    reads: bool = True
    guesses: bool = False  # sends a password, waits for the answer, sends the next
    resets: bool = False  # at once, and comes again
    returns: bool = True  # when it is stuck
    source: str = "127.0.0.1"
    updates: bool = False  # inside TLS, asks for new keys over and over


_REFUSED = b"MESG \x1b\x1b\x1b\x1b\n\n\n\n"  # an escape, and three lines that are refused
_TRUSTED = (b"MESG " + b"x" * 1994 + b"\n") * 512
_STATES = (b"", b"P", b"PING", GREETING, b"PING\nMESG a\nMESG", b"PINGMESG a", b"PING\nTERM a\n")
_LINES = (b"\n", b"MESG\n", b"NOPE \xff\n", b"PING x\n", b"MORE a\nPING\n", b"MESG \x9b\xc2\n")

_HEADERS = (b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n!\x11\xff\xff")  # of both versions

KINDS = {
    "silent": Plan(100, (b"",)),  # never shakes hands; comes again when it is shown the door
    "crowd": Plan(1000),  # shakes hands, and that is all
    "deaf": Plan(20, block=_REFUSED * 1000, reads=False),  # sends, and never reads
    "endless": Plan(20, (b"PING\nMESG ",), b"x" * 500, 0.05),  # never finishes a line
    "garbage": Plan(10, block=b"".join(_LINES) * 300),  # as fast as it can, and reads
    # Earns the daemon's trust with messages that are cheap, and then sends what is not.
    "turncoats": Plan(2, block=_TRUSTED + b"\n" * (256 << 10)),
    "guessers": Plan(100, guesses=True),
    # Headers of a proxy that come byte by byte, longer than they may be, or never to their end.
    "drips": Plan(100, _HEADERS, b"1", 0.05, source=PROXY),
    "updates": Plan(4, (b"",), b"-", updates=True),
    "flood": Plan(5, (*_STATES, random.randbytes(1000)), every=0.002, resets=True),
    # Those that are stuck: they are there, and nobody sends.
    "stuck-deaf": Plan(10, block=b"MESG " + b"x" * 2000 + b"\n", reads=False, returns=False),
    "stuck-endless": Plan(20, (b"PING\nMESG " + b"x" * 3000,)),
    "stuck-silent": Plan(100, (b"",)),
}
ABUSE = (
    "silent",
    "crowd",
    "deaf",
    "endless",
    "garbage",
    "turncoats",
    "guessers",
    "drips",
    "updates",
    "flood",
)
STUCK = ("stuck-deaf", "stuck-endless", "stuck-silent")


class Client:
    """One client; when it is shown the door, or has had enough, it comes again."""

    def __init__(self, plan: Plan, port: int, selector: selectors.BaseSelector) -> None:
        self._plan, self._port, self._selector = plan, port, selector
        self.sock: socket.socket | None = None
        self.answers = 0
        self.rest = memoryview(b"")  # of the block that it is sending
        self.due = 0.0
        self.took = time.monotonic()  # when the daemon took something last

    def connect(self, now: float) -> bool:
        """Come, and say the first words; False where the daemon would not have it."""
        try:
            self.sock = self._open()
            self.sock.send(random.choice(self._plan.opening))
        except OSError:
            return False
        self.sock.setblocking(False)
        self.due, self.took, self.answers = now + (self._plan.every or 0), now, 0
        self.rest = memoryview(self._plan.block)
        if not self._plan.resets:
            pushes = bool(self._plan.block) and self._plan.every is None
            events = selectors.EVENT_READ * self._plan.reads | selectors.EVENT_WRITE * pushes
            self._selector.register(self.sock, events, self)
        return True

    def _open(self) -> socket.socket:
        sock = socket.socket()
        sock.settimeout(10)
        if not self._plan.returns:  # it is stuck sooner when the kernel keeps little for it
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((self._plan.source, 0))
        sock.connect(("127.0.0.1", self._port))
        return sock

    def leave(self, now: float) -> None:
        """Break the connection; it comes again soon."""
        if self.sock is not None:
            if not self._plan.resets:
                self._selector.unregister(self.sock)
            linger = struct.pack("ii", 1, 0)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.sock.close()
        self.sock, self.due = None, now + 0.01

    def act(self, events: int, now: float) -> None:
        """The selector says that it can read or write, or, with 0, that it is due."""
        assert self.sock is not None
        if events & selectors.EVENT_READ:
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionError
            self._hear(data)
        if self._plan.block and (events & selectors.EVENT_WRITE or not events):
            self.rest = self.rest[self.sock.send(self.rest) :] or memoryview(self._plan.block)
            self.took = now
        self.due = now + (self._plan.every or 0)

    def _hear(self, data: bytes) -> None:
        self.answers += data.startswith(b"PWNO")
        if self._plan.guesses and self.sock is not None:
            self.sock.send(b"TERM guess %d\n" % random.randrange(10**9))

    def is_stuck(self, now: float, seconds: float) -> bool:
        return self.sock is not None and now - self.took > seconds


class Updater(Client):
    """Inside TLS, it asks for new keys as often as it can (RFC 8446, section 4.6.3)."""

    _session: Session | None = None

    def _open(self) -> socket.socket:
        from tests.campaign.keyupdate import Session

        sock = super()._open()
        self._session = Session(sock)
        return sock

    def act(self, events: int, now: float) -> None:
        if self._session is not None:
            self._session.ask()

    def leave(self, now: float) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
        super().leave(now)


class Crowd:
    """All clients of one kind."""

    def __init__(self, plan: Plan, port: int) -> None:
        self._plan = plan
        self._selector = selectors.DefaultSelector()
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        kind = Updater if plan.updates else Client
        self._clients = [kind(plan, port, self._selector) for _ in range(plan.clients)]
        self._away = list(self._clients)
        self._told = False

    def run(self) -> None:
        while self._turn(time.monotonic()):
            if not self._told and self._is_in_place(time.monotonic()):
                self._told = True
                print("in place", flush=True)

    def _is_in_place(self, now: float) -> bool:
        if self._away:
            return self._plan.resets
        if self._plan.guesses:
            return any(client.answers for client in self._clients)
        if not self._plan.reads:
            seconds = 0 if self._plan.returns else STUCK_SECONDS
            return all(client.is_stuck(now, seconds) for client in self._clients)
        return True

    def _turn(self, now: float) -> bool:
        for key, events in self._selector.select(0.005):
            if key.data is None:
                return False
            self._try(key.data, events, now)
        self._come_again(now)
        if self._plan.every or not self._plan.reads:
            for client in self._clients:
                self._nudge(client, now)
        return True

    def _nudge(self, client: Client, now: float) -> None:
        if client.sock is None:
            return
        if self._plan.resets or (
            self._plan.returns and not self._plan.reads and client.is_stuck(now, RETURN_SECONDS)
        ):
            self._leave(client, now)
        elif self._plan.every and now >= client.due:
            self._try(client, 0, now)

    def _come_again(self, now: float) -> None:
        away, self._away = self._away, []
        for client in away:
            if now < client.due or not client.connect(now):
                self._away.append(client)

    def _try(self, client: Client, events: int, now: float) -> None:
        try:
            client.act(events, now)
        except BlockingIOError:
            pass
        except OSError:
            self._leave(client, now)

    def _leave(self, client: Client, now: float) -> None:
        client.leave(now)
        self._away.append(client)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    Crowd(KINDS[sys.argv[2]], int(sys.argv[1])).run()
