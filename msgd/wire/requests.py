"""What the two framings have in common: single requests, and the replies to them."""

from __future__ import annotations

from msgd.wire.events import Answer, Event, Terminate
from msgd.wire.headers import (
    ARGUMENT,
    FAIL,
    NO_SPACE,
    PASSWORD_BYTES,
    PING,
    PONG,
    PWIV,
    TERM,
    UNKNOWN,
    well_formed,
)


def longest(message_bytes: int) -> int:
    """The longest request, without its line end: a password may be longer than a message."""
    return len(b"MESG ") + max(message_bytes, PASSWORD_BYTES)


def reply(header: bytes, text: str, ending: bytes) -> Answer:
    """A reply: the header, the text behind one space where there is any, the ending."""
    return Answer(header + (b" " + text.encode() if text else b"") + ending)


def record(text: bytes, begin: bytes) -> bytes:
    """A record; each further line of it begins with a TAB, so that none passes for a record."""
    return begin + text.replace(b"\n", b"\n\t") + b"\n"


def request(message: bytes, expected: frozenset[bytes], ending: bytes) -> Event:
    """What is neither MESG nor MORE with its text. These headers are known in this framing."""
    header, rest = message[:4], message[4:]
    if header == PING and rest[:1] in (b"", b" "):
        return reply(FAIL, ARGUMENT, ending) if rest else reply(PONG, "", ending)
    if header == TERM and rest[:1] in (b"", b" "):
        return Terminate(rest[1:]) if well_formed(rest[1:]) else reply(PWIV, "", ending)
    no_space = header in expected and header != PING and rest[:1] != b" "
    return reply(FAIL, NO_SPACE if no_space else UNKNOWN, ending)
