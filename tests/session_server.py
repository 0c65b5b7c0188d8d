"""A model of a server's sessions, for the tests of the client: one request after the other."""

from __future__ import annotations

import socket
from collections.abc import Callable

from msgd.wire.headers import encode_message
from msgd.wire.text import escape
from tests.scripted import greet


class Sessions:
    """The archive, by session and number; `refuse` gives the reason why a text gets a FAIL."""

    def __init__(self, refuse: Callable[[bytes], str] = lambda text: "") -> None:
        self.archive: dict[str, dict[int, bytes]] = {}
        self.refuse = refuse
        self.writer: dict[str, Connection] = {}

    def last(self, session: str) -> int:
        return max(self.archive.get(session, {}), default=0)

    def texts(self, session: str) -> list[bytes]:
        found = self.archive.get(session, {})
        assert list(found) == sorted(found)
        return list(found.values())

    def serve(
        self, messages: int = 1 << 30, *, gently: bool = False
    ) -> Callable[[socket.socket], None]:
        """A part of a scripted server, which breaks off behind so many messages.

        ``gently``: not by a reset, which may drop the last echoes.
        """

        def part(connection: socket.socket) -> None:
            greet(connection)
            mine = Connection(self)
            left = messages
            with connection.makefile("rb") as lines:
                for line in lines:
                    connection.sendall(mine.receive(line))
                    left -= line.startswith(b"MESG")
                    if not left and gently:
                        connection.shutdown(socket.SHUT_WR)
                        lines.read()
                    if not left:
                        return

        return part


class Connection:
    """One connection: bytes in, replies out."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._session = ""
        self._following = 0
        self._stopped = ""
        self._lines: list[bytes] = []
        self._tail = b""

    def receive(self, data: bytes) -> bytes:
        *lines, self._tail = (self._tail + data).split(b"\n")
        return b"".join(map(self._line, lines))

    def _line(self, line: bytes) -> bytes:
        header, text = line[:4], line[5:]
        match header:
            case b"MORE":
                self._lines.append(text)
                return b""
            case b"MESG":
                message, self._lines = b"\n".join([*self._lines, text]), []
                return self._message(message)
            case b"SESS":
                return self._open(*text.decode().split(" "))
        return b"FAIL unknown header\n"

    def _open(self, session: str, number: str = "") -> bytes:
        last = self._sessions.last(session)
        if number and int(number) <= last:
            self._stopped = "session interrupted"
            return b"FAIL number already used\n"
        self._session, self._stopped = session, ""
        self._sessions.writer[session] = self
        self._following = int(number or last + 1)
        return b"SESS %d\n" % last

    def _message(self, text: bytes) -> bytes:
        if self._session and self._sessions.writer[self._session] is not self:
            return b"FAIL session taken over\n"
        if self._stopped:
            return b"FAIL %b\n" % self._stopped.encode()
        if reason := self._sessions.refuse(text):
            self._stopped = "session interrupted"
            return b"FAIL %b\n" % reason.encode()
        text = escape(text)
        self._sessions.archive.setdefault(self._session, {})[self._following] = text
        self._following += 1
        return encode_message(text)
