"""A client: a bare socket with a deadline, which sends and expects bytes."""

from __future__ import annotations

import socket
from typing import Self

from tests.lab.waiting import SECONDS


class Client:
    """A socket to the daemon, with a deadline on every wait."""

    def __init__(self, address: tuple[str, int] | str, source: str | None = None) -> None:
        """To a host and port, or to the path of a socket in the file system."""
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(SECONDS)
            self.socket.connect(address)
        else:
            bound = (source, 0) if source else None
            self.socket = socket.create_connection(address, SECONDS, source_address=bound)
        self._ahead = b""

    @property
    def origin(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self, size: int) -> bytes:
        """Exactly so many bytes, or fewer at the end of the stream."""
        while len(self._ahead) < size:
            data = self.socket.recv(1 << 16)
            if not data:
                break
            self._ahead += data
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def expect(self, data: bytes) -> None:
        assert self.read(len(data)) == data

    def line(self) -> bytes:
        while b"\n" not in self._ahead:
            data = self.socket.recv(1 << 16)
            if not data:
                break
            self._ahead += data
        line, feed, self._ahead = self._ahead.partition(b"\n")
        return line + feed

    def ask(self, request: bytes) -> bytes:
        """Send a line, read a line."""
        self.send(request)
        return self.line()

    def finish(self) -> bytes:
        """Close our side; all that the server still says."""
        self.socket.shutdown(socket.SHUT_WR)
        return self.rest()

    def rest(self) -> bytes:
        data, self._ahead = self._ahead, b""
        while more := self.socket.recv(1 << 16):
            data += more
        return data

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
