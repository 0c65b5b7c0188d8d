"""Whole lines, or a whole text, as blocks that are ready for the wire."""

from __future__ import annotations

from msgd.client.inflight import Block
from msgd.wire.headers import MESG, encode_message

_HEADER = MESG + b" "


def of_lines(lines: bytes) -> Block:
    """Each of these whole lines is a message; no message without a line."""
    if b"\r" in lines:
        lines = lines.replace(b"\r\n", b"\n")
    wire = _HEADER + lines[:-1].replace(b"\n", b"\n" + _HEADER) + b"\n" if lines else b""
    return Block(wire, lines.count(b"\n"))


def of_text(text: bytes) -> Block:
    """A text is one message. The line feed that ends its last line is no part of it."""
    return Block(encode_message(text.replace(b"\r\n", b"\n").removesuffix(b"\n")), 1)
