"""One connected stream of bytes, and the patience with the server at its other end."""

from __future__ import annotations

import select
import socket
from math import ceil
from time import monotonic

from msgd.client.errors import ConnectionLost

# One bounded read a turn. A block of messages is as long, so that no copy of one costs much.
BLOCK_BYTES = 64 << 10

CLOSED = "the server closed the connection"


def in_seconds(number: float) -> str:
    """A time for people."""
    return f"{number:g} second" if number == 1 else f"{number:g} seconds"


class Patience:
    """How long the server may let us wait for the next sign of progress.

    Only what it says in time counts. But look at what is there before giving up: it may be this
    program that was late.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.restart()

    def restart(self) -> None:
        self._until = monotonic() + self.seconds

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self._until - monotonic())


class Link:
    """A connection over TCP or a Unix-domain socket. Nothing blocks here but `wait`."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._deaf = False  # the server takes nothing any more

    @property
    def socket(self) -> socket.socket:
        return self._socket

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    @property
    def unsent(self) -> bool:
        """Whether `write` has taken bytes that the system has not taken yet."""
        return False

    @property
    def ended(self) -> bool:
        """Whether `read` has seen the end already, which no poll will show again."""
        return False

    def close(self) -> None:
        self._socket.close()

    def abandon(self) -> None:
        """Close the descriptor, and say nothing on the connection, which is another process's."""
        self._socket.close()

    def wait(
        self, sending: bool, patience: Patience | None, other: int | None = None
    ) -> tuple[bool, bool, bool]:
        """Wait until there is something to read, room to write, or the other descriptor is ready.

        Without `patience` it waits for ever. None of the three: there is none left.
        """
        poll = select.poll()
        writes = (sending or self.unsent) and not self._deaf
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if writes else 0))
        if other is not None:
            poll.register(other, select.POLLIN)
        longest = None if patience is None else min(ceil(patience.left * 1000), 1 << 30)
        ready = dict(poll.poll(0 if self.ended else longest))
        server = ready.get(self._socket.fileno(), 0)
        readable = bool(server & ~select.POLLOUT) or self.ended
        return readable, bool(server & select.POLLOUT), other in ready

    def read(self) -> bytes:
        """What is there, up to a block; nothing where nothing is. Raises `ConnectionLost`."""
        data = self._receive()
        if data == b"":
            raise ConnectionLost(CLOSED)
        return data or b""

    def write(self, data: memoryview) -> int:
        """How many of these bytes are taken."""
        return self._send(data)

    def _receive(self) -> bytes | None:
        """None where nothing is there, no bytes at the end of the stream."""
        try:
            return self._socket.recv(BLOCK_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ConnectionLost(f"the connection broke ({error.strerror})") from None

    def _send(self, data: memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            # The server is gone, but its last answers may still be here to be read; behind
            # them, reading finds the error too.
            self._deaf = True
            return 0
