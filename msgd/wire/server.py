"""The wire protocol, without I/O: bytes in, events and replies out.

A message begins with a header of four letters. The first thing on a connection is ``PING``;
the byte after it chooses how messages end: a line feed chooses line framing (one message a
line), any other byte bare framing (a message ends when the client has been quiet).
msgd-protocol(7) is the reference for both.
"""

from __future__ import annotations

from msgd.wire.bare import BareFraming
from msgd.wire.events import Answer, Close, Event
from msgd.wire.headers import FAIL, NO_HANDSHAKE, PING, PONG
from msgd.wire.lines import LineFraming
from msgd.wire.requests import reply


class ServerProtocol:
    """What one client sends, taken apart; and the replies to it, put together.

    `receive`, `quiet`, `end` and `resume` take ``begin``, with which every record of theirs
    begins: the time stamp and the origin, each followed by a space. They return what came of
    the bytes, in the order in which the client is owed the replies.
    """

    __slots__ = ("_framing", "_greeting", "_limit")

    def __init__(self, message_bytes: int) -> None:
        self._limit = message_bytes
        self._greeting = b""  # what came before the framing was known
        self._framing: LineFraming | BareFraming | None = None

    def receive(self, data: bytes, begin: bytes) -> list[Event]:
        """Take bytes from the client, cut anywhere."""
        if self._framing is not None:
            return self._framing.receive(data, begin)
        return self._greet(data, begin)

    def _greet(self, data: bytes, begin: bytes) -> list[Event]:
        greeted = self.greeted
        self._greeting += data
        if not PING.startswith(self._greeting[:4]):
            return [self.reply(FAIL, NO_HANDSHAKE), Close()]
        events: list[Event] = [Answer(PONG)] if self.greeted and not greeted else []
        after = self._greeting[4:]
        if after in (b"", b"\r"):
            return events
        if after.startswith((b"\n", b"\r\n")):
            after = after[after.index(b"\n") + 1 :]
            events.append(Answer(b"\n"))
            self._framing = LineFraming(self._limit)
        else:
            self._framing = BareFraming(self._limit)
        self._greeting = PING
        return events + self._framing.receive(after, begin)

    @property
    def greeted(self) -> bool:
        """Whether the handshake is done."""
        return len(self._greeting) >= len(PING)

    @property
    def unfinished(self) -> bool:
        """Whether a bare message is under way, which a quiet while ends."""
        return isinstance(self._framing, BareFraming) and self._framing.unfinished

    def quiet(self, begin: bytes) -> list[Event]:
        """The client has been quiet for long enough to end a bare message."""
        return self._framing.quiet(begin) if isinstance(self._framing, BareFraming) else []

    def end(self, begin: bytes) -> list[Event]:
        """The client has closed its side of the stream (half-close, RFC 9293, section 3.6)."""
        last = self._framing.end(begin) if self._framing is not None else []
        return [*last, Close()]

    def resume(self, begin: bytes, most: int) -> list[Event]:
        """Go on behind a `Terminate`, once it has been answered, with about so many bytes."""
        return self._framing.resume(begin, most) if isinstance(self._framing, LineFraming) else []

    @property
    def holds(self) -> bool:
        """Whether there is more behind a `Terminate`; nothing may be received before that."""
        return isinstance(self._framing, LineFraming) and self._framing.holds

    def reply(self, header: bytes, text: str = "") -> Answer:
        """A reply in the framing of this client; before there is one, a whole line."""
        return reply(header, text, self._framing.ending if self._framing is not None else b"\n")
