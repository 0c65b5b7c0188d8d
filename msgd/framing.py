"""The two framings: where a message ends, and what becomes of it.

A framing takes the bytes behind the handshake, cut anywhere, and returns events: records for
the archive with the echo that they are owed, answers, and wishes.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from io import SEEK_END, BytesIO
from itertools import accumulate, chain, compress, repeat
from typing import NamedTuple

from msgd.headers import (
    ARGUMENT,
    FAIL,
    HEADERS,
    INTERRUPTED,
    MESG,
    MORE,
    NO_SPACE,
    PASSWORD_BYTES,
    PING,
    PONG,
    PWIV,
    TERM,
    TOO_LONG,
    UNKNOWN,
    encode_message,
    well_formed,
)
from msgd.text import escape, is_plain, unsafe_lines

# Lines are handled in pieces that stay in the processor's cache from the first check to the
# joined records. Above 30,000 bytes CPython's search also sets up tables for every match.
PIECE_BYTES = 28_000

_LINE_HEADERS = frozenset(header for header in HEADERS if HEADERS[header].sender != "server")
_BARE_HEADERS = _LINE_HEADERS - {MORE}
_HEADER = operator.itemgetter(slice(4))
_BEGINNING = operator.itemgetter(slice(5))
_TEXT = operator.itemgetter(slice(5, None))
_TEXT_HEADERS = frozenset((b"MESG ", b"MORE "))


class Records(NamedTuple):
    """Messages as the archive holds them, and the echo that is due once they are in it."""

    archive: bytes
    echo: bytes
    messages: int


class Answer(NamedTuple):
    """Bytes that the client is owed as they are, behind the echoes before them."""

    data: bytes


class Terminate(NamedTuple):
    """TERM with a well-formed password. What follows waits until `ServerProtocol.resume`."""

    password: bytes


class Dropped(NamedTuple):
    """The stream ended in the middle of a message: what there was of it is not archived."""

    size: int


class Close(NamedTuple):
    """Nothing more will be read from this client: send what is due to it, then close."""


Event = Records | Answer | Terminate | Dropped | Close


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
        if len(self._tail) > _longest(self._limit) + len(b"\r"):
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
        if not _LINE_HEADERS.isdisjoint(headers):
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
                self._events.append(Records(_record(text, begin), encode_message(text), 1))
            self._message = None

    def _other(self, line: bytes) -> Event:
        """Any other request; it ends a message whose MESG has not come, which is dropped."""
        interrupted, self._message = self._message is not None, None
        if interrupted and line[:4] in (PING, TERM):
            return reply(FAIL, INTERRUPTED, b"\n")
        return _request(line, _LINE_HEADERS, b"\n")


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
        if len(self._message) > _longest(self._limit) + len(b"\r\n"):
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
            return [_request(message, _BARE_HEADERS, b"")]
        if len(message) - len(b"MESG ") > self._limit:
            return [reply(FAIL, TOO_LONG, b""), Close()]
        text = escape(message[5:])
        return [Records(_record(text, begin), b"MESG " + text, 1)]

    end = quiet


def _longest(message_bytes: int) -> int:
    """The longest request, without its line end: a password may be longer than a message."""
    return len(b"MESG ") + max(message_bytes, PASSWORD_BYTES)


def reply(header: bytes, text: str, ending: bytes) -> Answer:
    """A reply: the header, the text behind one space where there is any, the ending."""
    return Answer(header + (b" " + text.encode() if text else b"") + ending)


_UNKNOWN_REPLY = reply(FAIL, UNKNOWN, b"\n").data


def _record(text: bytes, begin: bytes) -> bytes:
    """A record; each further line of it begins with a TAB, so that none passes for a record."""
    return begin + text.replace(b"\n", b"\n\t") + b"\n"


def _request(message: bytes, expected: frozenset[bytes], ending: bytes) -> Event:
    """What is neither MESG nor MORE with its text. These headers are known in this framing."""
    header, rest = message[:4], message[4:]
    if header == PING and rest[:1] in (b"", b" "):
        return reply(FAIL, ARGUMENT, ending) if rest else reply(PONG, "", ending)
    if header == TERM and rest[:1] in (b"", b" "):
        return Terminate(rest[1:]) if well_formed(rest[1:]) else reply(PWIV, "", ending)
    no_space = header in expected and header != PING and rest[:1] != b" "
    return reply(FAIL, NO_SPACE if no_space else UNKNOWN, ending)


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
