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
        "_archive",
        "_echoes",
        "_events",
        "_feeds",
        "_form",
        "_limit",
        "_lost",
        "_message",
        "_messages",
        "_piece_bytes",
        "_session",
        "_size",
        "_skip",
        "_tail",
        "held",
    )
    ending = b"\n"

    def __init__(self, message_bytes: int, session: Session) -> None:
        self._limit = message_bytes
        self._piece_bytes = min(PIECE_BYTES, message_bytes + len(b"MESG \n"))
        self._session = session
        self._tail = bytearray()  # the beginning of a line whose end has not come
        self._skip = False  # that line is too long and answered: its rest is not kept
        self._message: bytearray | None = None  # the lines of MORE, escaped, until their MESG comes
        self._size = 0  # the bytes of text in it, as they came
        self._feeds = 0  # the lines in it
        self._lost = False  # it is too long and answered: its other lines are not kept
        self.held = 0  # bytes that are kept, as the last call has left them

    def receive(self, data: bytes, form: Form) -> tuple[list[Event], int]:
        """Take all of it, or up to the end of a request that needs an answer before the next.

        Returns what came of it, and how much that was.
        """
        # What a call makes is let go of at its end: thousands of clients are idle.
        self._form: Form = form
        self._events: list[Event] = []
        self._archive: list[bytes] = []  # records behind these events
        self._echoes: list[bytes] = []
        self._messages = 0
        start, end, stopped = 0, data.rfind(b"\n") + 1, False
        if self._skip or self._tail:
            start = data.find(b"\n") + 1
            stopped = start > 0 and self._first(data[:start])
        while start < end and not stopped:
            start = self._blocks(data, start, end)
            if start < end:
                start, stopped = self._piece(data, start, end)
        if not stopped:
            start = len(data)
            if end < start and not self._skip:
                self._keep(data[end:])
        self.held = len(self._tail) + (len(self._message) if self._message else 0)
        if self._archive:
            self._gather()
        events = self._events
        del self._form, self._events, self._archive, self._echoes
        return events, start

    def _gather(self) -> None:
        """Whatever comes now stands behind these records."""
        last = last_number(self._form)
        self._events.append(Records(self._archive, self._echoes, self._messages, last))
        self._archive, self._echoes, self._messages = [], [], 0

    def _add_event(self, event: Event) -> None:
        if self._archive:
            self._gather()
        self._events.append(event)

    def _add_records(self, archive: bytes, echo: bytes, messages: int) -> None:
        self._archive.append(archive)
        self._echoes.append(echo)
        self._messages += messages

    def end(self, form: Form) -> list[Event]:
        return [Dropped(self.held)] if self.held else []

    def _first(self, rest: bytes) -> bool:
        """The rest of a line whose beginning came before: no copy of all that came with it."""
        if self._skip:
            self._skip = False
            return False
        line = bytes(self._tail + rest)
        self._tail.clear()
        return self._line(line)

    def _keep(self, tail: bytes) -> None:
        """Keep the beginning of a line, within bounds: a line too long is answered at once."""
        self._tail += tail
        if len(self._tail) > longest(self._limit) + len(b"\r"):
            self._line(bytes(self._tail) + b"\n")
            self._tail.clear()
            self._skip = True

    def _blocks(self, data: bytes, start: int, end: int) -> int:
        """Take pieces of whole lines as long as each line is a whole message; where that ends.

        Their echo is what was sent, at once: each piece is let go of while it is in the cache. No
        piece is longer than one message may be: no message in it is too long.
        """
        if not self._idle:
            return start
        first, size = start, self._piece_bytes
        while start < end:
            stop = end if end - start <= size else data.rfind(b"\n", start, start + size) + 1
            lines = data[start:stop]
            if not lines.startswith(MESG):
                break
            shown = lines if is_plain(lines) else _shown(lines)
            archive, messages = self._block(shown) if shown else (None, 0)
            if archive is None:
                break
            if shown is not lines:
                if first < start:
                    self._echoes.append(data[first:start])
                self._echoes.append(shown)
                first = stop
            self._archive.append(archive)
            self._messages += messages
            start = stop
        if first < start:
            self._echoes.append(data[first:start])
        return start

    def _block(self, lines: bytes) -> tuple[bytes | None, int]:
        """The records of these lines, or None unless each is a whole message; how many lines.

        Only C code runs once a line in here. The length of all texts proves that every line had
        its header.
        """
        texts = [b"", *map(bytes.removeprefix, BytesIO(lines), repeat(b"MESG "))]
        messages = len(texts) - 1
        return self._form.block(texts, len(lines) - messages * len(b"MESG ")), messages

    def _piece(self, data: bytes, start: int, end: int) -> tuple[int, bool]:
        """Some of the whole lines between the offsets, which are not all messages of one line.

        Returns the offset behind them, and whether the last of them needs an answer. A piece of
        several lines is no longer than one message may be, as above.
        """
        stop = end
        if end - start > self._piece_bytes:
            stop = data.rfind(b"\n", start, start + self._piece_bytes) + 1
            if not stop:
                stop = data.index(b"\n", start) + 1
                return stop, self._line(data[start:stop])
            last = data.rfind(b"\nMESG ", start, stop)  # cut no message, if that can be
            stop = data.index(b"\n", last + 1) + 1 if last >= 0 else stop
        return self._lines(data[start:stop], start)

    def _lines(self, lines: bytes, start: int) -> tuple[int, bool]:
        """Lines that begin at this offset: runs of messages, and others one by one."""
        at = 0
        while at < len(lines):
            end = self._together(lines, at)
            if end == at:
                end = lines.index(b"\n", at) + 1
                if self._line(lines[at:end]):
                    return start + end, True
            at = end
        return start + len(lines), False

    def _together(self, lines: bytes, at: int) -> int:
        """Take those lines from this offset on that can be taken together; where they end."""
        if lines.startswith(_MESSAGE, at):
            run = _MESSAGES.match(lines, at) if self._idle else None
            if run is not None:
                self._run(run[0])
        else:  # a flood of nonsense must not cost more than it costs to send
            run = _NONSENSE.match(lines, at) if self._message is None else None
            if run is not None:
                refused = refusal(UNKNOWN, b"\n").data
                self._add_event(Answer(refused * run[0].count(b"\n")))
        return at if run is None else run.end()

    @property
    def _idle(self) -> bool:
        """Whether whole messages can go into the archive together."""
        return self._message is None and not self._session.refusal

    def _run(self, lines: bytes) -> None:
        """Whole messages, of one line or several."""
        if not is_plain(lines):
            lines = _archived(lines)
        if lines.index(b"\n") + 1 == len(lines):
            self._add_records(self._form.message(lines[5:-1]), lines, 1)
            return
        if b"\nMORE " not in lines and lines.startswith(MESG):
            block, messages = self._block(lines)
            assert block is not None
            self._add_records(block, lines, messages)
            return
        whole = _WHOLE.findall(lines)
        archive = []
        for message in whole:
            head, feed, last = message[5:-1].rpartition(b"\nMESG ")
            text = head.replace(b"\nMORE ", b"\n") + feed[:1] + last
            archive.append(self._form.message(text))
        self._add_records(b"".join(archive), lines, len(whole))

    def _line(self, line: bytes) -> bool:
        """A line by itself, with its line feed; returns whether it needs an answer first."""
        line = line[:-1].removesuffix(b"\r")
        if line.startswith(_MESSAGE):
            self._text(line)
            return False
        event = self._other(line)
        self._add_event(event)
        return event.__class__ is Terminate or event.__class__ is Open

    def _text(self, line: bytes) -> None:
        """A line of a message: MESG ends it."""
        if self._message is None:
            self._message, self._lost = bytearray(), False
            self._size = self._feeds = 0
        if not (self._lost or self._session.refusal):
            self._add(line[5:])
        if line.startswith(MESG):
            if not self._lost:
                self._end(bytes(self._message[:-1]))
            self._message = None

    def _end(self, text: bytes) -> None:
        """A message is complete."""
        if self._session.refusal:
            self._add_event(self._fail(self._session.refusal))
            return
        self._add_records(self._form.message(text), encode_message(text), 1)

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
            self._add_event(self._fail(TOO_LONG))
            return
        self._feeds += 1
        self._message += escape(text) + b"\n"

    def _fail(self, reason: str) -> Answer:
        """A message is not archived."""
        first = not self._session.refusal
        return refusal(self._session.fail(reason), b"\n")._replace(own_reason=first)

    def _other(self, line: bytes) -> Event:
        """Any other request; it ends a message whose MESG has not come, which is dropped."""
        header = line[:4]
        if header in (MESG, MORE):
            self._message = None
            return self._fail(NO_SPACE)
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


def _shown(lines: bytes) -> bytes:
    """Whole lines, which need an escape; nothing, where they are not all messages of one line.

    Where that is dear to find out later: no text is taken apart twice.
    """
    if not lines.isascii() and lines.count(b"\nMESG ") + 1 != lines.count(b"\n"):
        return b""
    return _archived(lines)


def _archived(lines: bytes) -> bytes:
    """Whole lines as the archive shows them. No escape reaches over the end of a line."""
    return escape(lines.replace(b"\r\n", b"\n") if b"\r" in lines else lines)


_MESSAGE = (b"MESG ", b"MORE ")
_WHOLE = re.compile(rb"(?:MORE .*+\n)*+MESG .*+\n")
_MESSAGES = re.compile(rb"(?:(?:MORE .*+\n)*+MESG .*+\n)++")
_NONSENSE = re.compile(rb"(?:(?!MESG|MORE|PING|SESS|TERM).*+\n)++")
