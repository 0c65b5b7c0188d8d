"""What the two framings have in common: single requests, and the replies to them."""

from __future__ import annotations

from functools import cache

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


@cache
def refusal(reason: str, ending: bytes) -> Answer:
    """FAIL with one of the fixed reasons; the one reply that may be owed by the million."""
    return reply(FAIL, reason, ending)


def request(message: bytes, ending: bytes) -> Event:
    """A request that is neither a message nor opens a session."""
    header, rest = message[:4], message[4:]
    if header not in (PING, TERM):
        return refusal(UNKNOWN, ending)
    if header == PING and rest[:1] in (b"", b" "):
        return refusal(ARGUMENT, ending) if rest else reply(PONG, "", ending)
    if header == TERM and rest[:1] in (b"", b" "):
        return Terminate(rest[1:]) if well_formed(rest[1:]) else reply(PWIV, "", ending)
    return refusal(NO_SPACE if header == TERM else UNKNOWN, ending)
