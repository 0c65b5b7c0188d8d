"""What a server sends, taken apart, without I/O: the client's side of line framing."""

from __future__ import annotations

from typing import NamedTuple

from msgd.wire.headers import HEADERS, MESG, MORE


class ProtocolError(Exception):
    """The peer has sent what msgd never sends: it is something else."""


class Reply(NamedTuple):
    """One reply, as a client sees it. The lines of an echo are joined by line feeds."""

    header: bytes
    text: bytes = b""


class ClientProtocol:
    """The replies in what a server sends, in line framing."""

    def __init__(self) -> None:
        self._tail = b""
        self._lines: list[bytes] = []  # of an echo that goes on

    def receive(self, data: bytes) -> list[Reply]:
        """Take bytes from the server, cut anywhere; raises `ProtocolError`."""
        *lines, self._tail = (self._tail + data).split(b"\n")
        if not any(header.startswith(self._tail[:4]) for header in _REPLIES):
            raise ProtocolError
        return [reply for line in lines if (reply := self._reply(line)) is not None]

    def _reply(self, line: bytes) -> Reply | None:
        header, text = line[:4], line[5:]
        if header not in _REPLIES or line[4:5] != (b" " if HEADERS[header].argument else b""):
            raise ProtocolError
        if self._lines and header not in (MORE, MESG):
            raise ProtocolError
        if header == MORE:
            self._lines.append(text)
            return None
        lines, self._lines = [*self._lines, text], []
        return Reply(header, b"\n".join(lines))


_REPLIES = frozenset(header for header, rule in HEADERS.items() if rule.sender != "client")
