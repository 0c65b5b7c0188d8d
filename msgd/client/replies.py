"""Replies that are one line: all but the echoes."""

from __future__ import annotations

from msgd.wire.client import ProtocolError, Reply
from msgd.wire.headers import FAIL, PONG, PWIV, PWNO, PWOK, SESS

# The replies that are one line, and whether a text belongs to each.
_REPLIES = {PONG: False, PWOK: False, PWNO: False, PWIV: False, FAIL: True, SESS: True}
_REPLY_BYTES = 1024


def one_line(data: bytes) -> bytes:
    """The reply to one request, or its beginning, is one short line."""
    if len(data.partition(b"\n")[0]) > _REPLY_BYTES:
        raise ProtocolError
    if not any(header.startswith(data[:4]) for header in _REPLIES):
        raise ProtocolError
    return data


def one_reply(line: bytes) -> Reply:
    header, text = line[:4], line[5:]
    if _REPLIES.get(header) != (line[4:5] == b" ") or len(line) == 5:
        raise ProtocolError
    return Reply(header, text)


def session_number(digits: bytes) -> int:
    """The number that a SESS tells; raises `ProtocolError`."""
    if not digits.isdigit() or len(digits) > 19 or (digits.startswith(b"0") and len(digits) > 1):
        raise ProtocolError
    return int(digits)
