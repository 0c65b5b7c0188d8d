"""Line framing: one message a line; the lines that come together are handled together."""

from __future__ import annotations

import re
from io import BytesIO
from itertools import repeat

from msgd.wire.events import (
    Answer,
    Dropped,
    Event,
    Form,
    Open,
    Records,
    Terminate,
    last_number,
    records,
)
from msgd.wire.headers import (
    INTERRUPTED,
    MALFORMED,
    MESG,
    MORE,
    NO_SPACE,
    PING,
    SESS,
    TERM,
    TOO_LONG,
    UNKNOWN,
    encode_message,
)
from msgd.wire.requests import longest, refusal, request
from msgd.wire.session import Session, opening
from msgd.wire.text import escape, is_plain

# Lines are handled in pieces that stay in the processor's cache from the first check to the
# joined records. Above 30,000 bytes CPython's search also sets up tables for every match.
PIECE_BYTES = 28_000


class LineFraming:
    """One message a line; MORE carries the lines of a message of several lines."""

    __slots__ = (
        "_events",
        "_feeds",
        "_limit",
        "_lost",
        "_message",
        "_session",
        "_size",
        "_skip",
        "_tail",
    )
    ending = b"\n"

    def __init__(self, message_bytes: int, session: Session) -> None:
        self._limit = message_bytes
        self._session = session
        self._tail = bytearray()  # the beginning of a line whose end has not come
        self._skip = False  # that line is too long and answered: its rest is not kept
        self._message: bytearray | None = None  # the lines of MORE, escaped, until their MESG comes
        self._size = 0  # the bytes of text in it, as they came
        self._feeds = 0  # the lines in it
        self._lost = False  # it is too long and answered: its other lines are not kept
        self._events: list[Event] = []

    @property
    def held(self) -> int:
        return len(self._tail) + len(self._message or b"")

    def receive(self, data: bytes, form: Form) -> tuple[list[Event], int]:
        """Take all of it, or up to the end of a request that needs an answer before the next.

        Returns what came of it, and how much that was.
        """
        taken = self._take(data, form)
        events, self._events = self._events, []
        return events, taken

    def _take(self, data: bytes, form: Form) -> int:
        start = 0
        if self._skip or self._tail:
            start = data.find(b"\n") + 1
            if start and self._first(data[:start], form):
                return start
        end = data.rfind(b"\n") + 1
        while start < end:
            start, stopped = self._piece(data, start, end, form)
            if stopped:
                return start
        if end < len(data) and not self._skip:
            self._keep(data[end:], form)
        return len(data)

    def end(self, form: Form) -> list[Event]:
        return [Dropped(self.held)] if self.held else []

    def _first(self, rest: bytes, form: Form) -> bool:
        """The rest of a line whose beginning came before: no copy of all that came with it."""
        if self._skip:
            self._skip = False
            return False
        line = bytes(self._tail + rest)
        self._tail.clear()
        return self._line(line, form)

    def _keep(self, tail: bytes, form: Form) -> None:
        """Keep the beginning of a line, within bounds: a line too long is answered at once."""
        self._tail += tail
        if len(self._tail) > longest(self._limit) + len(b"\r"):
            self._line(bytes(self._tail) + b"\n", form)
            self._tail.clear()
            self._skip = True

    def _piece(self, data: bytes, start: int, end: int, form: Form) -> tuple[int, bool]:
        """Some of the whole lines between the offsets, together where they can be.

        Returns the offset behind them, and whether the last of them needs an answer. A piece of
        several lines is no longer than one message may be: no message in it is too long.
        """
        stop, size = end, min(PIECE_BYTES, self._limit + len(b"MESG \n"))
        if end - start > size:
            stop = data.rfind(b"\n", start, start + size) + 1 or data.index(b"\n", start) + 1
            last = data.rfind(b"\nMESG ", start, stop)  # cut no message, if that can be
            stop = data.index(b"\n", last + 1) + 1 if last >= 0 else stop
        if stop - start <= size:
            return self._lines(data[start:stop], start, form)
        return stop, self._line(data[start:stop], form)

    def _lines(self, lines: bytes, start: int, form: Form) -> tuple[int, bool]:
        """Lines that begin at this offset: as one block, if they can be, or runs of messages."""
        if self._idle and self._block(lines, form):
            return start + len(lines), False
        at = 0
        while at < len(lines):
            end = self._together(lines, at, form)
            if end == at:
                end = lines.index(b"\n", at) + 1
                if self._line(lines[at:end], form):
                    return start + end, True
            at = end
        return start + len(lines), False

    def _together(self, lines: bytes, at: int, form: Form) -> int:
        """Take those lines from this offset on that can be taken together; where they end."""
        if lines.startswith(_MESSAGE, at):
            run = _MESSAGES.match(lines, at) if self._idle else None
            if run is not None:
                self._run(run[0], form)
        else:  # a flood of nonsense must not cost more than it costs to send
            run = _NONSENSE.match(lines, at) if self._message is None else None
            if run is not None:
                refused = refusal(UNKNOWN, b"\n").data
                self._events.append(Answer(refused * run[0].count(b"\n")))
        return at if run is None else run.end()

    @property
    def _idle(self) -> bool:
        """Whether whole messages can go into the archive together."""
        return self._message is None and not self._session.refusal

    def _block(self, lines: bytes, form: Form) -> bool:
        """Take lines together if each is a whole message: their echo is these lines.

        Only C code runs once a line in here. The length of the joined records proves that
        every line had its header.
        """
        if not lines.startswith(MESG):
            return False
        if not is_plain(lines):
            if not lines.isascii() and lines.count(b"\nMESG ") + 1 != lines.count(b"\n"):
                return False  # no text is taken apart twice
            lines = _archived(lines)
        texts = [b"", *map(bytes.removeprefix, BytesIO(lines), repeat(b"MESG "))]
        messages = len(texts) - 1
        archive, added = form.block(texts)
        if len(archive) - len(lines) != added - messages * len(b"MESG "):
            return False
        self._events.append(records(archive, lines, messages, form))
        return True

    def _run(self, lines: bytes, form: Form) -> None:
        """Whole messages, of one line or several."""
        if self._block(lines, form):
            return
        lines = _archived(lines)
        archive, messages = [], _WHOLE.findall(lines)
        for message in messages:
            head, feed, last = message[5:-1].rpartition(b"\nMESG ")
            text = head.replace(b"\nMORE ", b"\n") + feed[:1] + last
            archive.append(form.message(text))
            form.advance(1)
        event = Records(b"".join(archive), lines, len(messages), last_number(form))
        self._events.append(event)

    def _line(self, line: bytes, form: Form) -> bool:
        """A line by itself, with its line feed; returns whether it needs an answer first."""
        line = line[:-1].removesuffix(b"\r")
        if line.startswith(_MESSAGE):
            self._text(line, form)
            return False
        event = self._other(line)
        self._events.append(event)
        return event.__class__ is Terminate or event.__class__ is Open

    def _text(self, line: bytes, form: Form) -> None:
        """A line of a message: MESG ends it."""
        if self._message is None:
            self._message, self._lost = bytearray(), False
            self._size = self._feeds = 0
        if not (self._lost or self._session.refusal):
            self._add(line[5:])
        if line.startswith(MESG):
            if not self._lost:
                self._end(bytes(self._message[:-1]), form)
            self._message = None

    def _end(self, text: bytes, form: Form) -> None:
        """A message is complete."""
        if self._session.refusal:
            self._fail(self._session.refusal)
            return
        self._events.append(records(form.message(text), encode_message(text), 1, form))

    def _add(self, text: bytes) -> None:
        """Keep a line of a message, within bounds: a message too long is answered at once.

        It is escaped as it comes, so that the end of a long message is not much work at once.
        """
        assert self._message is not None
        self._size += len(text)
        # Line feeds do not count, but are bounded too, or empty lines would fill the memory.
        if max(self._size, self._feeds) > self._limit:
            self._lost = True
            self._message.clear()
            self._fail(TOO_LONG)
            return
        self._feeds += 1
        self._message += escape(text) + b"\n"

    def _fail(self, reason: str) -> None:
        """A message is not archived."""
        self._events.append(refusal(self._session.fail(reason), b"\n"))

    def _other(self, line: bytes) -> Event:
        """Any other request; it ends a message whose MESG has not come, which is dropped."""
        header = line[:4]
        if header in (MESG, MORE):
            self._message = None
            return refusal(self._session.fail(NO_SPACE), b"\n")
        interrupted, self._message = self._message is not None, None
        if interrupted:
            self._session.fail(INTERRUPTED)
        if header == SESS:
            return self._open(line[4:], interrupted)
        if interrupted and header in (PING, TERM):
            return refusal(INTERRUPTED, b"\n")
        return request(line, b"\n")

    def _open(self, rest: bytes, interrupted: bool) -> Event:
        """SESS; where it is refused no message goes into the archive until the next one."""
        reason = INTERRUPTED if interrupted else MALFORMED if rest[:1] == b" " else NO_SPACE
        asked = opening(rest[1:]) if reason == MALFORMED else None
        if asked is None:
            self._session.refuse()
            return refusal(reason, b"\n")
        return asked


def _archived(lines: bytes) -> bytes:
    """Whole lines as the archive shows them. No escape reaches over the end of a line."""
    return escape(lines.replace(b"\r\n", b"\n") if b"\r" in lines else lines)


_MESSAGE = (b"MESG ", b"MORE ")
_WHOLE = re.compile(rb"(?:MORE .*+\n)*+MESG .*+\n")
_MESSAGES = re.compile(rb"(?:(?:MORE .*+\n)*+MESG .*+\n)++")
_NONSENSE = re.compile(rb"(?:(?!MESG|MORE|PING|SESS|TERM).*+\n)++")
