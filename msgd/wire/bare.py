"""Bare framing: a message ends when the client is quiet, or closes its side."""

from __future__ import annotations

from msgd.wire.events import Close, Event, Records
from msgd.wire.headers import FAIL, HEADERS, MORE, TOO_LONG
from msgd.wire.requests import longest, record, reply, request
from msgd.wire.text import escape

_HEADERS = frozenset(header for header in HEADERS if HEADERS[header].sender != "server") - {MORE}


class BareFraming:
    """A message ends when the client is quiet, or closes its side; replies have no ending."""

    __slots__ = ("_limit", "_message")
    ending = b""

    def __init__(self, message_bytes: int) -> None:
        self._limit = message_bytes
        self._message = bytearray()

    @property
    def unfinished(self) -> bool:
        return bool(self._message)

    def receive(self, data: bytes, begin: bytes) -> list[Event]:
        self._message += data
        if len(self._message) > longest(self._limit) + len(b"\r\n"):
            self._message.clear()
            return [reply(FAIL, TOO_LONG, b""), Close()]
        return []

    def quiet(self, begin: bytes) -> list[Event]:
        message = bytes(self._message)
        self._message.clear()
        if message.endswith(b"\n"):
            message = message[:-1].removesuffix(b"\r")
        elif not message:
            return []
        if not message.startswith(b"MESG "):
            return [request(message, _HEADERS, b"")]
        if len(message) - len(b"MESG ") > self._limit:
            return [reply(FAIL, TOO_LONG, b""), Close()]
        text = escape(message[5:])
        return [Records(record(text, begin), b"MESG " + text, 1)]

    end = quiet
