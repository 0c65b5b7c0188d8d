"""Line framing: one message a line; the lines that come together are handled together."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from io import SEEK_END, BytesIO
from itertools import accumulate, chain, compress, repeat

from msgd.wire.events import Answer, Dropped, Event, Records, Terminate
from msgd.wire.headers import (
    FAIL,
    HEADERS,
    INTERRUPTED,
    MESG,
    PING,
    TERM,
    TOO_LONG,
    UNKNOWN,
    encode_message,
)
from msgd.wire.requests import longest, record, reply, request
from msgd.wire.text import escape, is_plain, unsafe_lines

# Lines are handled in pieces that stay in the processor's cache from the first check to the
# joined records. Above 30,000 bytes CPython's search also sets up tables for every match.
PIECE_BYTES = 28_000

_HEADERS = frozenset(header for header in HEADERS if HEADERS[header].sender != "server")
_HEADER = operator.itemgetter(slice(4))
_BEGINNING = operator.itemgetter(slice(5))
_TEXT = operator.itemgetter(slice(5, None))
_TEXT_HEADERS = frozenset((b"MESG ", b"MORE "))


class LineFraming:
    """One message a line; MORE carries the lines of a message of several lines."""

    __slots__ = (
        "_events",
        "_held",
        "_limit",
        "_lost",
        "_message",
        "_size",
        "_skip",
        "_tail",
        "_taken_up",
    )
    ending = b"\n"

    def __init__(self, message_bytes: int) -> None:
        self._limit = message_bytes
        self._tail = bytearray()  # the beginning of a line whose end has not come
        self._skip = False  # that line is too long and answered: its rest is not kept
        self._message: bytearray | None = None  # the lines of MORE, until their MESG comes
        self._size = 0  # the bytes of text in it
        self._lost = False  # it is too long and answered: its other lines are not kept
        self._held: BytesIO | None = None  # the lines that wait behind a Terminate
        self._taken_up = 0  # bytes of them that wait no more
        self._events: list[Event] = []

    def receive(self, data: bytes, begin: bytes) -> list[Event]:
        if self._skip:
            _, feed, data = data.partition(b"\n")
            self._skip = not feed
        start, end = 0, data.rfind(b"\n") + 1
        if end and self._tail:  # complete that line alone: no copy of all that came with it
            start = data.index(b"\n") + 1
            self._tail += data[:start]
            line = bytes(self._tail)
            self._tail.clear()
            self._lines(line, 0, len(line), begin)
        self._lines(data, start, end, begin)
        if end < len(data):
            self._keep(data[end:], begin)
        return self._taken()

    def resume(self, begin: bytes, most: int) -> list[Event]:
        """Take up so many bytes of the lines that wait, or the next line; stop at a `Terminate`."""
        held, self._held = self._held, None
        if held is not None:
            held.seek(self._taken_up)
            until = self._taken_up + most
            while self._held is None and held.tell() < until and (line := held.readline()):
                self._line(line, begin)
            taken_up = held.tell()
            if taken_up < held.seek(0, SEEK_END) or self._held is not None:
                self._hold(held, taken_up)
        return self._taken()

    @property
    def holds(self) -> bool:
        """Whether lines wait for `resume`, or for the verdict on a password."""
        return self._held is not None

    def _hold(self, lines: BytesIO, taken_up: int) -> None:
        """Let these lines, and all that follow, wait for the verdict on a password."""
        self._held, self._taken_up = lines, taken_up

    def end(self, begin: bytes) -> list[Event]:
        size = len(self._tail) + len(self._message or b"")
        return [Dropped(size)] if size else []

    def _taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _keep(self, tail: bytes, begin: bytes) -> None:
        """Keep the beginning of a line, within bounds: a line too long is answered at once."""
        self._tail += tail
        if len(self._tail) > longest(self._limit) + len(b"\r"):
            self._line(bytes(self._tail) + b"\n", begin)
            self._tail.clear()
            self._skip = True

    def _lines(self, data: bytes, start: int, end: int, begin: bytes) -> None:
        """Handle the whole lines between the two offsets, piece by piece.

        A piece of several lines is no longer than one message may be: none of its lines is
        too long, whatever they are.
        """
        size = min(PIECE_BYTES, self._limit + len(b"MESG \n"))
        while start < end:
            stop = end
            if end - start > size:
                stop = data.rfind(b"\n", start, start + size) + 1 or data.index(b"\n", start) + 1
            piece = data[start:stop]
            self._piece(piece.replace(b"\r\n", b"\n") if b"\r" in piece else piece, begin)
            start = stop

    def _piece(self, lines: bytes, begin: bytes) -> None:
        """Lines that are handled together: in blocks where they can be, else one by one."""
        if len(lines) > self._limit + len(b"MESG \n"):  # then it is a single line
            self._line(lines, begin)
            return
        if self._idle and is_plain(lines) and self._block(lines, begin):
            return
        for part, unsafe in _parted(lines, unsafe_lines(lines)):
            if not unsafe:
                self._safe(part, begin)
            elif not (self._idle and (self._block(escape(part), begin) or self._unknown(part))):
                self._each(BytesIO(part), begin)

    @property
    def _idle(self) -> bool:
        """Whether the next line begins a request that can be handled at once."""
        return self._message is None and self._held is None

    def _block(self, lines: bytes, begin: bytes) -> bool:
        """Take the lines as one block if each is a whole message: its echo is the block itself.

        Only C code runs once a line in here. The length of the joined records proves that
        every line had its header.
        """
        texts = [b"", *map(bytes.removeprefix, BytesIO(lines), repeat(b"MESG "))]
        messages = len(texts) - 1
        records = begin.join(texts)
        if len(records) - len(lines) != messages * (len(begin) - len(b"MESG ")):
            return False
        self._events.append(Records(records, lines, messages))
        return True

    def _safe(self, lines: bytes, begin: bytes) -> None:
        """Lines that need no escape."""
        if self._idle and self._block(lines, begin):
            return
        for part, other in _parted(lines, _other_lines(lines)):
            if other or self._held is not None:
                if not (self._idle and self._unknown(part)):
                    self._each(BytesIO(part), begin)
            elif not (self._idle and self._block(part, begin)):
                self._messages(BytesIO(part).readlines(), begin)

    def _unknown(self, lines: bytes) -> bool:
        """Refuse the lines as one block, if none of them begins as a request does."""
        headers = [*map(_HEADER, BytesIO(lines))]
        if not _HEADERS.isdisjoint(headers):
            return False
        self._events.append(Answer(_UNKNOWN_REPLY * len(headers)))
        return True

    def _messages(self, lines: list[bytes], begin: bytes) -> None:
        """MORE and MESG lines that need no escape.

        What lies between the end of a message that is under way and the last end is one block
        of whole messages; no Python code runs once a line of it.
        """
        headers = [*map(_BEGINNING, lines)]
        last = len(lines) - headers[::-1].index(b"MESG ") if b"MESG " in headers else 0
        first = headers.index(b"MESG ") + 1 if last and self._message is not None else 0
        self._each(lines[:first], begin)
        if first < last:
            # What a line of the archive begins with is settled by the header before it.
            begins = map({b"MESG ": begin, b"MORE ": b"\t"}.__getitem__, headers[first:last])
            pairs = zip([begin, *begins], map(_TEXT, lines[first:last]), strict=False)
            archive, echo = b"".join(chain.from_iterable(pairs)), b"".join(lines[first:last])
            self._events.append(Records(archive, echo, headers[first:last].count(b"MESG ")))
        self._each(lines[last:], begin)

    def _each(self, lines: Iterable[bytes], begin: bytes) -> None:
        for line in lines:
            self._line(line, begin)

    def _line(self, line: bytes, begin: bytes) -> None:
        """Any line, with its line feed."""
        if self._held is not None:
            self._held.write(line)
        elif line[:5] in (b"MESG ", b"MORE "):
            self._text(line, begin)
        else:
            event = self._other(line[:-1])
            self._events.append(event)
            if isinstance(event, Terminate):
                self._hold(BytesIO(), 0)

    def _text(self, line: bytes, begin: bytes) -> None:
        """A line of MORE or MESG: the latter ends the message."""
        if self._message is None:
            self._message, self._size, self._lost = bytearray(), 0, False
        self._size += len(line) - len(b"MESG \n")
        if not self._lost:
            self._message += line[5:]
            # Line feeds do not count, but are bounded too, or empty lines would fill the memory.
            if max(self._size, len(self._message) - self._size - 1) > self._limit:
                self._lost = True
                self._message.clear()
                self._events.append(reply(FAIL, TOO_LONG, b"\n"))
        if line.startswith(MESG):
            if not self._lost:
                text = escape(bytes(self._message[:-1]))
                self._events.append(Records(record(text, begin), encode_message(text), 1))
            self._message = None

    def _other(self, line: bytes) -> Event:
        """Any other request; it ends a message whose MESG has not come, which is dropped."""
        interrupted, self._message = self._message is not None, None
        if interrupted and line[:4] in (PING, TERM):
            return reply(FAIL, INTERRUPTED, b"\n")
        return request(line, _HEADERS, b"\n")


_UNKNOWN_REPLY = reply(FAIL, UNKNOWN, b"\n").data


def _parted(lines: bytes, odd: Iterable[int]) -> Iterator[tuple[bytes, bool]]:
    """Part the runs of lines that begin at these offsets (True) from those between (False)."""
    start = end = 0
    for at in odd:
        if at > end:
            if start < end:
                yield lines[start:end], True
            yield lines[end:at], False
            start = at
        end = lines.index(b"\n", at) + 1
    if start < end:
        yield lines[start:end], True
    if end < len(lines):
        yield lines[end:], False


def _other_lines(lines: bytes) -> Iterator[int]:
    """Where those lines begin that are neither MESG nor MORE."""
    split = BytesIO(lines).readlines()
    other = map(operator.not_, map(_TEXT_HEADERS.__contains__, map(_BEGINNING, split)))
    return compress(accumulate(map(len, split), initial=0), other)
