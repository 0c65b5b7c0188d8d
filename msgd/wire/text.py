"""The text rules: what stands in the archive as it is, and what becomes a visible escape.

Text is UTF-8. TAB and the line feeds between the lines of one message are kept. Every other
control character (Unicode category Cc), the line and paragraph separators, the bidirectional
controls, and every byte that is not valid UTF-8 become an escape such as ``\\x1b``, ``\\u2028``
or ``\\xff``: nothing that a client sends can forge a record or steer a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from io import BytesIO

_CONTROLS = bytes(byte for byte in range(0x20) if byte not in b"\t\n") + b"\x7f"
_BEYOND_ASCII = "\u0080-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_UNSAFE = re.compile(f"([{re.escape(_CONTROLS.decode())}{_BEYOND_ASCII}])")
# escape() makes these visible; the rest of this file only finds quickly where they are.

# The same beyond ASCII, as UTF-8, by the byte that each begins with. Most text has none of these
# bytes, which takes 0.01 ns a byte to see; a pattern takes 0.3.
_UNSAFE_UTF8 = {
    b"\xc2": re.compile(rb"\xc2[\x80-\x9f]"),
    b"\xd8": re.compile(rb"\xd8(?=\x9c)"),
    b"\xe2": re.compile(rb"\xe2(?:\x80[\x8e\x8f\xa8-\xae]|\x81[\xa6-\xa9])"),
}


def is_plain(data: bytes) -> bool:
    """Whether the archive takes these bytes as they are: nothing in them needs an escape."""
    return not _has_controls(data) and (data.isascii() or _is_plain_utf8(data))


def _has_controls(data: bytes) -> bool:
    # A search for each of the 31 bytes takes 0.23 ns a byte, translate 0.55; but a short
    # piece is done before the 31 searches have begun.
    if len(data) < 2048:
        return len(data.translate(None, _CONTROLS)) != len(data)
    for control in _CONTROLS:  # noqa: SIM110 (a generator would double the time)
        if control in data:
            return True
    return False


def _is_plain_utf8(data: bytes) -> bool:
    if not _is_utf8(data):
        return False
    return not any(head in data and unsafe.search(data) for head, unsafe in _UNSAFE_UTF8.items())


def escape(text: bytes) -> bytes:
    """The text as the archive shows it. Backslashes that were sent stay as they are."""
    if is_plain(text):
        return text
    parts = _UNSAFE.split(text.decode("utf-8", "backslashreplace"))
    parts[1::2] = map(_visible, parts[1::2])
    return "".join(parts).encode()


@cache
def _visible(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def typed(text: str) -> bytes:
    """What a user has typed, as UTF-8, whatever the locale; what was no text there as it came."""
    return text.encode("utf-8", "surrogateescape")


def unsafe_lines(lines: bytes) -> list[int]:
    """Where, in whole lines, those begin that need an escape: offsets in ascending order."""
    if is_plain(lines):
        return []
    return sorted({lines.rfind(b"\n", 0, at) + 1 for at in _unsafe_offsets(lines)})


def _unsafe_offsets(lines: bytes) -> Iterator[int]:
    """At least one offset in each line that needs an escape, in no order."""
    for control in _CONTROLS:
        at = lines.find(control)
        while at >= 0:
            yield at
            at = lines.find(control, lines.index(b"\n", at))
    if not lines.isascii():
        if not _is_utf8(lines):
            yield from _bad_utf8(lines)
        for pattern in _UNSAFE_UTF8.values():
            for found in pattern.finditer(lines):
                yield found.start()


def _bad_utf8(lines: bytes) -> Iterator[int]:
    start = 0
    for line in BytesIO(lines):
        if not _is_utf8(line):
            yield start
        start += len(line)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
