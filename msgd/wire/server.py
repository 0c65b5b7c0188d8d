"""The wire protocol, without I/O: bytes in, events and replies out.

A message begins with a header of four letters. The first thing on a connection is ``PING``;
the byte after it chooses how messages end: a line feed chooses line framing (one message a
line), a capital letter bare framing (a message ends when the client has been quiet).
msgd-protocol(7) is the reference for both.
"""

from __future__ import annotations

import re

from msgd.wire.bare import BareFraming
from msgd.wire.events import Answer, Close, Event, Form, Open, Terminate
from msgd.wire.headers import (
    FAIL,
    NO_HANDSHAKE,
    NOT_WRITTEN,
    ONLY_LINES,
    PING,
    PONG,
    SESS,
    SESSION_INTERRUPTED,
    TAKEN_OVER,
)
from msgd.wire.lines import LineFraming
from msgd.wire.requests import reply
from msgd.wire.session import Session


class ServerProtocol:
    """What one client sends, taken apart; and the replies to it, put together.

    `receive`, `quiet`, `end` and `resume` take the form that makes the records of this client.
    They return what came of the bytes, in the order in which the client is owed the replies.
    Nothing comes behind an event that needs an answer (`Terminate`, `Open`) but a `Close`: what
    was received behind it is not looked at before `resume`.
    """

    __slots__ = (
        "_asked",
        "_framing",
        "_greeting",
        "_limit",
        "_line_only",
        "_rest",
        "_session",
        "held",
        "paused",
        "unfinished",
    )

    def __init__(self, message_bytes: int, line_only: bool = False) -> None:
        """``line_only``: bare framing is refused."""
        self._limit = message_bytes
        self._line_only = line_only
        self._greeting = b""  # what came before the framing was known
        self._framing: LineFraming | BareFraming | None = None
        self._session = Session()
        self._asked: Terminate | Open | None = None  # what needs an answer before more is read
        self._rest = bytearray()  # what came behind that
        self.paused = False  # an answer is due first, or there is more to `resume` with
        # Bytes that are kept: messages that are not complete, and what waits for `resume`.
        self.held = 0
        self.unfinished = False  # a bare message is under way, which a quiet while ends

    def receive(self, data: bytes, form: Form) -> list[Event]:
        """Take bytes from the client, cut anywhere."""
        if self.paused:
            self._rest += data
            self.held += len(data)
            return []
        framing = self._framing
        if framing is None:
            return self._greet(data, form)
        events, taken = framing.receive(data, form)
        if taken < len(data):
            self._rest += data[taken:]
        return self._noted(events, framing)

    def _noted(self, events: list[Event], framing: LineFraming | BareFraming) -> list[Event]:
        """What these events leave behind, for those who ask at every turn."""
        last = events[-1] if events else None
        self._asked = last if isinstance(last, _NEEDS_ANSWER) else None
        self.paused = self._asked is not None or len(self._rest) > 0
        self.held = len(self._rest) + framing.held
        self.unfinished = framing.held > 0 and isinstance(framing, BareFraming)
        return events

    def _greet(self, data: bytes, form: Form) -> list[Event]:
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
            self._framing = LineFraming(self._limit, self._session)
        elif not _CAPITAL.match(after):
            return [*events, self.reply(FAIL, NO_HANDSHAKE), Close()]
        elif self._line_only:
            return [*events, self.reply(FAIL, ONLY_LINES), Close()]
        else:
            self._framing = BareFraming(self._limit)
        self._greeting = PING
        return events + self.receive(after, form)

    @property
    def greeted(self) -> bool:
        """Whether the handshake is done."""
        return len(self._greeting) >= len(PING)

    def resume(self, form: Form, most: int) -> list[Event]:
        """Go on behind what has been answered, with up to ``most`` bytes."""
        assert self._framing is not None  # it is paused
        events, taken = self._framing.receive(bytes(self._rest[:most]), form)
        del self._rest[:taken]
        return self._noted(events, self._framing)

    def quiet(self, form: Form) -> list[Event]:
        """The client has been quiet for long enough to end a bare message."""
        if self.paused or not isinstance(self._framing, BareFraming):
            return []
        return self._noted(self._framing.quiet(form), self._framing)

    def end(self, form: Form) -> list[Event]:
        """The client has closed its side of the stream (half-close, RFC 9293, section 3.6).

        Not while this is `paused`: whole requests may wait.
        """
        if self._framing is None:
            unfit = self._greeting[4:] == b"\r"
            return [*([self.reply(FAIL, NO_HANDSHAKE)] if unfit else []), Close()]
        return [*self._noted(self._framing.end(form), self._framing), Close()]

    def reply(self, header: bytes, text: str = "") -> Answer:
        """A reply in the framing of this client; before there is one, a whole line."""
        return reply(header, text, self._framing.ending if self._framing is not None else b"\n")

    def told(self, answer: Answer) -> Answer:
        """The answer when its turn has come: by then a message before it may have been lost."""
        lost = answer.own_reason and self._session.lost
        return self.reply(FAIL, SESSION_INTERRUPTED) if lost else answer

    def refused(self, messages: int) -> Answer:
        """The replies to messages that could not be written. It stops a session."""
        first, other = (self.reply(FAIL, self._session.lose(NOT_WRITTEN)).data for _ in range(2))
        return Answer(first + other * (messages - 1))

    def opened(self, id: str, number: int, form: Form) -> Answer:
        """Answer an `Open`: the session is open, ``number`` is that of its last message (0: none).

        What the client has asked for, if anything, is greater.
        """
        assert isinstance(self._asked, Open)
        self._session.open()
        form.open(id, number + 1 if self._asked.number is None else self._asked.number)
        return self.reply(SESS, str(number))

    def refuse_open(self, reason: str) -> Answer:
        """Answer an `Open`: it is refused, and so is every message until the next one."""
        self._session.refuse()
        return self.reply(FAIL, reason)

    def taken_over(self) -> None:
        """The session is that of another connection from now on: messages are refused."""
        self._session.take_over(TAKEN_OVER)


_NEEDS_ANSWER = (Terminate, Open)
_CAPITAL = re.compile(rb"[A-Z]")
