"""The least that a Python server can do for plain messages: what msgd is measured against.

    python prototype.py FILE [sync]        prints its port, serves until SIGTERM

One selectors loop, the same wire, the same records, and the checks that keep a record honest. It
has no day files, sessions, limits, fairness or stop, and gives up on anything that is not a plain
line. What msgd is slower than this is the price of all the rest.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from datetime import datetime
from io import BytesIO
from itertools import repeat
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector

PIECE = 28_000  # bytes that stay in the processor's cache
BITE, SYNCED_BITE = 256 << 10, 1 << 20
# A commit takes in this much, or one bite more: little while it is in the cache, or all for a sync.
GROUP, SYNCED_GROUP = 64 << 10, 16 << 20
CONTROLS = bytes((*range(9), *range(11, 32), 127))


class Client:
    """A connection: the beginning of a line, and what the socket has not taken yet."""

    __slots__ = ("begin", "greeted", "owed", "sock", "tail", "waits")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.tail = self.owed = b""
        self.greeted = self.waits = False
        host, port = sock.getpeername()
        self.begin = f" {host}:{port} ".encode()


class Prototype:
    def __init__(self, path: str, sync: bool) -> None:
        self.sync = sync
        self.bite, self.group = (SYNCED_BITE, SYNCED_GROUP) if sync else (BITE, GROUP)
        self.batch: list[bytes] = []
        self.owed: list[tuple[Client, bytes]] = []
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.selector = DefaultSelector()
        self.selector.register(self.listener, EVENT_READ, None)

    def serve(self) -> None:
        while True:
            self.turn([key.data for key, _ in self.selector.select()])

    def turn(self, ready: list[Client | None]) -> None:
        stamp = datetime.now().astimezone().isoformat(timespec="microseconds").encode()
        size = 0
        for client in ready:
            if client is None:
                self.accept()
            elif client.owed:
                self.send(client)
            elif lines := self.read(client):
                self.batch += records(lines, stamp + client.begin)
                self.owed.append((client, lines))
                size += len(lines)
                if size >= self.group:
                    self.commit()
                    size = 0
        if self.batch:
            self.commit()

    def accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(sock, EVENT_READ, Client(sock))

    def read(self, client: Client) -> bytes:
        """Whole lines that are messages; the handshake is answered at once."""
        try:
            data = client.sock.recv(self.bite)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self.selector.unregister(client.sock)
            client.sock.close()
            return b""
        end = data.rfind(b"\n") + 1
        if not end:
            client.tail += data
            return b""
        lines = client.tail + data[:end]
        client.tail = data[end:]
        if not client.greeted:
            client.greeted = True
            client.sock.send(b"PONG\n")
            lines = lines.removeprefix(b"PING\n")
        return lines

    def commit(self) -> None:
        """One write and one sync; echoes go out behind it."""
        for at in range(0, len(self.batch), 1024):  # IOV_MAX
            some = self.batch[at : at + 1024]
            if os.writev(self.file, some) != sum(map(len, some)):
                sys.exit("prototype: the disk is full")
        if self.sync:
            os.fdatasync(self.file)
        for client, lines in self.owed:
            client.owed += lines
            self.send(client)
        self.batch.clear()
        self.owed.clear()

    def send(self, client: Client) -> None:
        """What is owed; while some of it is, nothing more is read."""
        try:
            sent = client.sock.send(client.owed)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(client.owed)
        client.owed = client.owed[sent:]
        if client.waits != bool(client.owed):
            client.waits = not client.waits
            events = EVENT_WRITE if client.waits else EVENT_READ
            self.selector.modify(client.sock, events, client)


def records(lines: bytes, begin: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(lines):
        stop = lines.rfind(b"\n", start, start + PIECE) + 1 or lines.index(b"\n", start) + 1
        yield block(lines[start:stop], begin)
        start = stop


def block(lines: bytes, begin: bytes) -> bytes:
    """The records of plain lines; their length proves that each line had its header."""
    if not lines.isascii() or any_control(lines):
        sys.exit("prototype: not a plain text")
    texts = [b"", *map(bytes.removeprefix, BytesIO(lines), repeat(b"MESG "))]
    made = begin.join(texts)
    if len(made) != len(lines) + (len(texts) - 1) * (len(begin) - len(b"MESG ")):
        sys.exit("prototype: not a message")
    return made


def any_control(lines: bytes) -> bool:
    for control in CONTROLS:  # noqa: SIM110 (a generator would double the time)
        if control in lines:
            return True
    return False


def main() -> None:
    server = Prototype(sys.argv[1], sys.argv[2:] == ["sync"])
    print(f"listening on 127.0.0.1:{server.listener.getsockname()[1]}", flush=True)
    block_of_memory = bytearray(8 << 20)  # raises malloc's thresholds when freed, see mallopt(3)
    del block_of_memory
    server.serve()


if __name__ == "__main__":
    main()
