"""The bound on memory holds, for few and for many clients, with small and with large messages."""

from __future__ import annotations

import fcntl
import select
import socket
import termios
from contextlib import suppress

import pytest

from tests.campaign.bound import kernel_memory, most_memory
from tests.conftest import Start
from tests.lab.daemon import Daemon
from tests.lab.proc import peak_bytes, rss_bytes
from tests.lab.waiting import wait_for

thorough = pytest.mark.thorough
CONFIG = "listen: 127.0.0.1\nlimits: {{message_bytes: {}, clients: {}, clients_per_address: 0}}\n"


def hold(msgd: Daemon, beginnings: list[bytes]) -> list[socket.socket]:
    """A client for each, of which the daemon has taken this much, or whom it has closed."""
    clients = [msgd.line_client().socket for _ in beginnings]
    for sock, data in zip(clients, beginnings, strict=True):
        with suppress(ConnectionError):  # it held most, and others hold much
            sock.sendall(data)
    for sock in clients:
        wait_for(lambda sock=sock: has_all(sock), "all is taken")  # type: ignore[misc]
    return clients


def has_all(sock: socket.socket) -> bool:
    """Whether the daemon's side has all of it, or has closed."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0)) or fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4) == b"\0" * 4


@pytest.mark.parametrize(
    ("clients", "message_bytes"),
    [
        *((1, 1 << 20), (1000, 100)),
        pytest.param(300, 1 << 20, marks=thorough),
        pytest.param(1000, 1 << 16, marks=thorough),
    ],
)
def test_unfinished_lines(start: Start, clients: int, message_bytes: int) -> None:
    msgd = start(CONFIG.format(message_bytes, clients))
    hold(msgd, [b"MESG " + b"x" * message_bytes] * clients)
    assert peak_bytes(msgd.pid) < most_memory(clients, message_bytes)


@thorough
def test_who_holds_most_is_closed(start: Start) -> None:
    """The others are not: they can finish what they have begun."""
    msgd = start(CONFIG.format(1 << 20, 400))
    small = msgd.line_client()
    small.send(b"MESG begun")
    clients = hold(msgd, [b"MESG " + b"x" * (1 << 20)] * 300)
    msgd.wait_log(r"closed: it held \d+ bytes of memory")
    assert small.ask(b"\n") == b"MESG begun\n"
    assert peak_bytes(msgd.pid) < most_memory(400, 1 << 20)
    for sock in clients:
        sock.close()


@thorough
@pytest.mark.parametrize("line", [b"MORE \xff\n", b"MORE \n", b"MORE " + b"\xc2\x9b" * 300 + b"\n"])
def test_a_message_that_becomes_much_longer(start: Start, line: bytes) -> None:
    """Its record and its echo are made when its end comes, of some clients in one group."""
    size = 1 << 20
    msgd = start(CONFIG.format(size, 10))
    clients = hold(msgd, [line * (size // len(line.replace(b"MORE ", b"")) // 2)] * 3)
    for sock in clients:
        sock.sendall(b"MESG end\n")
    for sock in clients:
        while not sock.recv(1 << 20).endswith(b"MESG end\n"):
            pass
    assert peak_bytes(msgd.pid) < most_memory(10, size)


def test_a_flood_of_refused_lines(start: Start) -> None:
    msgd = start(CONFIG.format(1 << 16, 100))
    clients = [msgd.line_client().socket for _ in range(100)]
    for sock in clients:
        sock.setblocking(False)
    before = -1
    while rss_bytes(msgd.pid) > before:  # they do not read, and it goes on as long as it takes
        before = rss_bytes(msgd.pid)
        for sock in clients:
            with suppress(BlockingIOError):
                sock.send(b"\n" * (1 << 18))
    assert peak_bytes(msgd.pid) < most_memory(100, 1 << 16)


def test_what_the_kernel_keeps(start: Start) -> None:
    """A client that does not read can be stuck with so much, beside what it has earned of us."""
    msgd = start(CONFIG.format(1 << 16, 10))
    sock = msgd.line_client().socket
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(1)
    sent, line = 0, b"MESG " + b"x" * 994 + b"\n"
    with suppress(TimeoutError):
        while True:
            sent += sock.send(line * 4)
    bite, output = 256 << 10, 64 << 10
    assert sent < kernel_memory(1) + bite + output
