"""Counting and comparing in blocks of lines, without looking at each."""

from __future__ import annotations

from msgd.wire.client import ProtocolError
from msgd.wire.headers import MESG


def same(expected: bytes, at: int, data: bytes, start: int) -> int:
    """How many bytes of the data are what is expected there, up to a FAIL; else `ProtocolError`."""
    size = min(len(expected) - at, len(data) - start)
    piece = data if size == len(data) else data[start : start + size]
    if expected.startswith(piece, at):
        return size
    size = piece.find(b"\nF") + 1  # no line of an echo begins so
    if not size or not expected.startswith(piece[:size], at):
        raise ProtocolError
    return size


def count(header: bytes, data: bytes, start: int, end: int) -> int:
    """How many of these lines begin with the header; no text holds a line feed."""
    return data.startswith(header, start, end) + data.count(b"\n" + header, start, end)


def last_message(data: bytes, start: int, end: int) -> int:
    """Where the last message ends of those that are whole between the two."""
    end = data.rfind(b"\n", start, end) + 1
    if end <= start:
        return start
    last = max(data.rfind(b"\n" + MESG, start, end) + 1, start)
    return data.index(b"\n", last) + 1 if data.startswith(MESG, last) else start


def message_end(data: bytes, at: int) -> int:
    """Where the message ends of which the byte before `at` is a part."""
    line = data.rfind(b"\n", 0, at - 1) + 1
    while not data.startswith(MESG, line):
        line = data.index(b"\n", line) + 1
    return data.index(b"\n", line) + 1


def bytes_of(data: bytes, start: int, messages: int) -> int:
    """How many bytes the first messages take, of the lines that begin here."""
    lines = data[start:]
    last = (b"\n" + lines).split(b"\n" + MESG, messages)[-1]
    return len(lines) - len(last) + last.index(b"\n") + 1
