"""A crowd that begins TLS all at once, and how long one well-behaved client waits beside it.

``python -m tests.bench.hellos PORT CLIENTS`` is the crowd, a program of its own: it connects and
says "ready"; with the next line of its standard input all send their ClientHello; when the last of
them has been answered, it says "answered", and all leave.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from tests.lab.hello import client_hello

from .pairs import Figures
from .peers import PEERS
from .process import LOAD_CORE, BenchError, cpu_seconds, running
from .stand import Stand
from .tools import ROOT

CLIENTS = 1_000
REST_SECONDS = 0.001  # of the well-behaved client, between two messages
TEXT = b"x" * 100


@dataclass(frozen=True, slots=True)
class Hellos:
    """Waits in milliseconds, and the daemon's processor time during a wait, as crowds come."""

    peer: str
    crowds: int = 10

    def __call__(self, stand: Stand) -> Figures:
        peer = PEERS[self.peer]
        waits: list[float] = []
        work: list[float] = []
        with (
            stand.fresh() as directory,
            peer.serve(stand.tools, directory, peer.not_synced) as served,
            _crowd(served.port) as (say, hear),
            _on_load_core(),
            socket.create_connection(("127.0.0.1", served.port), 30) as polite,
        ):
            _ask(polite, b"PING\n", b"PONG\n")
            for _ in range(stand.scaled(self.crowds)):
                _expect(hear, b"ready\n")
                say.write(b"\n")
                say.flush()
                end = time.monotonic() + 60
                while not select.select([hear], [], [], REST_SECONDS)[0]:
                    if time.monotonic() > end:
                        raise BenchError("the crowd is not answered")
                    began, worked = time.monotonic(), cpu_seconds(served.pid)
                    _ask(polite, b"MESG " + TEXT + b"\n")
                    waits.append(time.monotonic() - began)
                    work.append(cpu_seconds(served.pid) - worked)
                _expect(hear, b"answered\n")
        return {**_late(waits, ""), **_late(work, " work")}


def _late(seconds: list[float], words: str) -> Figures:
    in_order = sorted(seconds)
    p99 = in_order[len(in_order) * 99 // 100]
    return {f"p99{words}": p99 * 1000, f"worst{words}": in_order[-1] * 1000}


def _ask(sock: socket.socket, request: bytes, answer: bytes | None = None) -> None:
    """Raises BenchError where the answer (the echo, unless told) is something else."""
    sock.sendall(request)
    left = answer or request
    while left:
        data = sock.recv(4096)
        if not data or not left.startswith(data):
            raise BenchError(f"not an echo: {data!r}")
        left = left[len(data) :]


def _expect(stream: IO[bytes], words: bytes) -> None:
    line = stream.readline()
    if line != words:
        raise BenchError(f"the crowd has ended: {line!r}")


@contextmanager
def _on_load_core() -> Iterator[None]:
    """This process, too, is a client now; it goes first there, where it may."""
    usual = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    os.sched_setaffinity(0, {LOAD_CORE})
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield
    finally:
        os.sched_setaffinity(0, usual[0])
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, usual[1])


@contextmanager
def _crowd(port: int) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """What it is told, and what it says; it yields to the well-behaved client."""
    command = ["nice", sys.executable, "-m", "tests.bench.hellos", str(port), str(CLIENTS)]
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with running(
        command, core=LOAD_CORE, environment=environment, stdin=pipe, stdout=pipe
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdin, process.stdout


def _come(port: int, clients: int) -> None:
    """One crowd, from its arrival to its leaving."""
    hello, left = client_hello(), {}
    with ExitStack() as stack:
        poll = select.epoll()
        for _ in range(clients):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            poll.register(sock, select.EPOLLIN | select.EPOLLONESHOT)
            left[sock.fileno()] = sock
        print("ready", flush=True)
        sys.stdin.readline()
        for sock in left.values():
            sock.sendall(hello)
        while left:
            for number, _ in poll.poll():
                del left[number]
        print("answered", flush=True)
        poll.close()


if __name__ == "__main__":
    while True:
        _come(int(sys.argv[1]), int(sys.argv[2]))
