"""What a server sends, taken apart, without I/O: the client's side of line framing."""

from __future__ import annotations

import re
from typing import NamedTuple

from msgd.wire.headers import HEADERS, MESG, MORE
from msgd.wire.text import is_plain


class ProtocolError(Exception):
    """The server has sent what msgd never sends: it is something else."""


class Reply(NamedTuple):
    """One reply, as a client sees it. The lines of an echo are joined by line feeds."""

    header: bytes
    text: bytes = b""


class ClientProtocol:
    """The replies in what a server sends, in line framing."""

    def __init__(self, most: int | None = None) -> None:
        """``most`` is the number of bytes that the longest reply may have, without its last line
        feed; a server that sends more is none of ours. None: whatever there is memory for.
        """
        self._most = most
        self._tail = b""
        self._lines: list[bytes] = []  # of an echo that goes on
        self._size = 0  # the bytes of these, as they came

    def receive(self, data: bytes) -> list[Reply]:
        """Take bytes from the server, cut anywhere; raises `ProtocolError`."""
        lines, feed, tail = (self._tail + data).rpartition(b"\n")
        if not is_plain(lines):
            raise ProtocolError
        self._tail = tail
        replies = [self._reply(line) for line in lines.split(b"\n")] if feed else []
        if not any(header.startswith(tail[:4]) for header in _REPLIES):
            raise ProtocolError
        self._bound(len(tail))
        return [reply for reply in replies if reply is not None]

    def _bound(self, more: int) -> None:
        if self._most is not None and self._size + more > self._most:
            raise ProtocolError

    def _reply(self, line: bytes) -> Reply | None:
        header, text = line[:4], line[5:]
        if header not in _REPLIES or line[4:5] != (b" " if HEADERS[header].argument else b""):
            raise ProtocolError
        if self._lines and header not in (MORE, MESG):
            raise ProtocolError
        if not _ARGUMENTS.get(HEADERS[header].argument, _ANY).fullmatch(text):
            raise ProtocolError
        self._bound(len(line))
        if header == MORE:
            self._lines.append(text)
            self._size += len(line) + 1
            return None
        lines, self._lines, self._size = [*self._lines, text], [], 0
        return Reply(header, b"\n".join(lines))


_REPLIES = frozenset(header for header, rule in HEADERS.items() if rule.sender != "client")
_ANY = re.compile(rb".*")
# A client may know fewer reasons than its server; but all of them are words.
_ARGUMENTS = {
    "": re.compile(rb""),
    "reason": re.compile(rb"[A-Za-z]+(?: [A-Za-z]+)*"),
    "session": re.compile(rb"0|[1-9][0-9]{0,18}"),
}
