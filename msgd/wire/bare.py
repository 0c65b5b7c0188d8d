"""Bare framing: a message ends when the client is quiet, or closes its side."""

from __future__ import annotations

from msgd.wire.events import Close, Event, Form, Records, last_number
from msgd.wire.headers import MESG, NO_SPACE, TOO_LONG
from msgd.wire.requests import longest, refusal, request
from msgd.wire.text import escape


class BareFraming:
    """A message ends when the client is quiet, or closes its side; replies have no ending."""

    __slots__ = ("_limit", "_message")
    ending = b""

    def __init__(self, message_bytes: int) -> None:
        self._limit = message_bytes
        self._message = bytearray()

    @property
    def held(self) -> int:
        return len(self._message)

    def receive(self, data: bytes, form: Form) -> tuple[list[Event], int]:
        """Take all of it; returns what came of it, and how much that was."""
        self._message += data
        if len(self._message) > longest(self._limit) + len(b"\r\n"):
            self._message.clear()
            return [refusal(TOO_LONG, b""), Close()], len(data)
        return [], len(data)

    def quiet(self, form: Form) -> list[Event]:
        message = bytes(self._message)
        self._message.clear()
        if message.endswith(b"\n"):
            message = message[:-1].removesuffix(b"\r")
        elif not message:
            return []
        if not message.startswith(MESG):
            return [request(message, b"")]
        if message[4:5] != b" ":
            return [refusal(NO_SPACE, b"")]
        if len(message) - len(b"MESG ") > self._limit:
            return [refusal(TOO_LONG, b""), Close()]
        text = escape(message[5:])
        return [Records([form.message(text)], [b"MESG " + text], 1, last_number(form))]

    end = quiet
