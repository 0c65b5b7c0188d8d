"""Clients that prepare something each, and let it loose all at once.

``python -m tests.campaign.sleepers PORT KIND CLIENTS`` is a program of its own, as
`tests.campaign.abuse` is: it ends when its standard input does, and writes a line whenever all have
prepared. After the outbreak they go, and come again.
"""

from __future__ import annotations

import fcntl
import resource
import select
import socket
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

from tests.lab.hello import client_hello

PREPARE_SECONDS = 60.0  # at most, until what was prepared is with the daemon
OUTBREAK_SECONDS = 3.0  # at most, until all is answered
HELD_BYTES = 60_000  # what each holds at the daemon: nearly as much as a message may be


class Plan(NamedTuple):
    """What each of these clients sends first, and what it sends when all of them have done so."""

    prepared: bytes
    released: bytes
    deaf: bool = False  # it has not read what it was owed until then
    leaves: bool = False  # all close at once


_MORE = b"MORE \xff\n" * (HELD_BYTES // 2)
_GARBAGE = b"\x16\x03\x01\x40\x00" + bytes(range(256)) * 64  # a TLS record of 16 KiB
KINDS = {
    "more": Plan(b"PING\n" + _MORE, b"MESG x\n"),
    "long": Plan(
        b"PING\n" + (b"MORE " + b"\xff" * 990 + b"\n") * (HELD_BYTES // 1000), b"MESG x\n"
    ),
    "line": Plan(b"PING\nMESG " + b"\xc2\x9b" * (HELD_BYTES // 2), b"\n"),
    "session": Plan(b"PING\nSESS s\n" + _MORE, b"MESG x\n"),
    "bare": Plan(b"PING", b"MESG " + b"\xff" * 4000),  # all are due at the same time
    "small": Plan(b"PING\n", b"MESG \xff\n"),
    "fighters": Plan(b"PING\n", b"SESS s\nMESG a\n" * 200),
    "guessers": Plan(b"PING\n", b"TERM guess\n" * 100),
    "wakers": Plan(b"PING\n" + b"\n" * 20_000, b"", deaf=True),
    "hellos": Plan(b"", client_hello()),
    "garbage": Plan(b"", _GARBAGE),
    "strangers": Plan(b"", b"GET / HTTP/1.1\r\n\r\n"),
    "leavers": Plan(b"PING\n", b"", leaves=True),
}


class Sleepers:
    """All clients of one kind."""

    def __init__(self, plan: Plan, port: int, clients: int) -> None:
        self._plan, self._port, self._clients = plan, port, clients

    def once(self) -> None:
        """Come, prepare, break out, and go; "in place" is said before the outbreak."""
        with ExitStack() as stack:
            clients = [stack.enter_context(sock) for sock in self._come()]
            self._prepare(clients)
            print("in place", flush=True)
            self._break_out(clients)
            for sock in clients:
                linger = struct.pack("ii", 1, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def _come(self) -> Iterator[socket.socket]:
        for _ in range(self._clients):
            sock = socket.socket()
            if self._plan.deaf:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(10)
            sock.connect(("127.0.0.1", self._port))
            sock.setblocking(False)
            yield sock

    def _prepare(self, clients: list[socket.socket]) -> None:
        """Until the daemon has taken it all; or, from deaf ones, takes nothing more."""
        left = {sock: memoryview(self._plan.prepared) for sock in clients}
        end = time.monotonic() + (3.0 if self._plan.deaf else PREPARE_SECONDS)
        while left and time.monotonic() < end:
            for sock, rest in list(left.items()):
                rest = rest[_send(sock, rest) :]
                left[sock] = rest
                if not rest and (self._plan.deaf or not _unsent(sock)):
                    del left[sock]
            _is_over(0.005)

    def _break_out(self, clients: list[socket.socket]) -> None:
        if self._plan.leaves:
            return
        for sock in clients:
            _send(sock, memoryview(self._plan.released))
        poll = select.epoll()
        for sock in clients:
            poll.register(sock, select.EPOLLIN)
        there = {sock.fileno(): sock for sock in clients}
        end = time.monotonic() + OUTBREAK_SECONDS
        while there and time.monotonic() < end:
            for number, _ in poll.poll(0.1):
                if not _read(there[number]):
                    poll.unregister(number)
                    del there[number]
            _is_over(0)
        poll.close()


def _send(sock: socket.socket, data: memoryview) -> int:
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0
    except OSError:  # evicted
        return len(data)


def _read(sock: socket.socket) -> bool:
    try:
        return sock.recv(1 << 18) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _unsent(sock: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4), "little")


def _is_over(seconds: float) -> None:
    """End when nobody wants this any more."""
    if select.select([sys.stdin], [], [], seconds)[0]:
        sys.exit()


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    sleepers = Sleepers(KINDS[sys.argv[2]], int(sys.argv[1]), int(sys.argv[3]))
    while True:
        try:
            sleepers.once()
        except OSError:  # turned away, or not let in yet
            _is_over(0.1)
