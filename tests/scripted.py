"""Servers that misbehave on purpose, for the tests of the client."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Part = Callable[[socket.socket], None]


@contextmanager
def scripted(*parts: Part, port: int = 0) -> Iterator[int]:
    """A server on the port that this gives: each connection is served by the next part."""
    listener = socket.create_server(("127.0.0.1", port))
    failures: list[BaseException] = []
    connections: list[socket.socket] = []
    thread = threading.Thread(target=_play, args=(listener, parts, connections, failures))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        for connection in connections:
            with suppress(OSError):  # most are closed already
                connection.shutdown(socket.SHUT_RDWR)
        thread.join(30)
        listener.close()
    assert not failures, failures


def _play(
    listener: socket.socket,
    parts: tuple[Part, ...],
    connections: list[socket.socket],
    failures: list[BaseException],
) -> None:
    listener.settimeout(20)
    for number, part in enumerate(parts, 1):
        try:
            connections.append(listener.accept()[0])
            if number == len(parts):
                listener.close()
            with connections[-1] as connection:
                connection.settimeout(20)
                part(connection)
        except ConnectionError:
            pass  # the client has gone, as it may
        except BaseException as error:
            failures.append(error)


@contextmanager
def dead() -> Iterator[int]:
    """A port that answers no attempt to connect: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        queue = [socket.socket() for _ in range(4)]
        for one in queue:
            one.setblocking(False)
            one.connect_ex(address)
        yield address[1]
        for one in queue:
            one.close()


def greet(connection: socket.socket) -> None:
    """The handshake, as msgd does it."""
    assert receive(connection, 5) == b"PING\n"
    connection.sendall(b"PONG\n")


def receive(connection: socket.socket, size: int) -> bytes:
    """Exactly so many bytes, or what there is before the end."""
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


def says(*answers: bytes) -> Part:
    """Greets, then answers each line of the client's with the next of these, and closes."""

    def part(connection: socket.socket) -> None:
        greet(connection)
        with connection.makefile("rb") as lines:
            for answer in answers:
                lines.readline()
                connection.sendall(answer)

    return part


def echo(connection: socket.socket) -> None:
    """Greets, then echoes everything until the client goes."""
    greet(connection)
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def silent(connection: socket.socket) -> None:
    """Greets, then neither reads nor writes until the test is over."""
    greet(connection)
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    poll.poll(20_000)
