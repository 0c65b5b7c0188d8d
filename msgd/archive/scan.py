"""Finds the last number of each session in the bytes of a day file, and whether its end is whole.

It reads as `reader` does, several times as fast, and keeps nothing but numbers: a start after a
crash waits for it. What counts is said in msgd-protocol(7), "After a crash".
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgd.archive.records import CAN, MARK

# The key of a session is what the origin holds behind the address: b"/id" or b"@name/id".
_HEAD = re.compile(
    rb"\n\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d "
    rb"(?:[\d.]+:\d+|\[[^] \n]+\]:\d+|unix:\d+)"
    rb"((?:@[^ /\n]+)?/[A-Za-z0-9][\w.-]{0,63}):(\d{3,19})(?:\+([1-9]\d*))? "
)


class Scan:
    """Takes the bytes in blocks of any size, from the beginning of a record on."""

    def __init__(self) -> None:
        self.last: dict[bytes, int] = {}  # by key, the one used last at the end
        self._rest = [b"\n"]  # an unfinished line, with the line feed before it
        self._damaged = False  # nothing counts up to the next mark
        self._due = 0  # further lines of the record of `_key`, which counts when they are there
        self._key, self._number = b"", 0

    def feed(self, block: bytes) -> None:
        end = block.rfind(b"\n")
        if end < 0:
            self._keep(block)
            return
        self._rest.append(block[:end])
        lines, self._rest = b"".join(self._rest), []
        self._keep(block[end:])
        if self._damaged or self._due or b"\0" in lines or CAN in lines or not self._run(lines):
            self._go_through(lines)

    def _keep(self, part: bytes) -> None:
        """Of a line with a NUL only its end matters: a disk may give back a gigabyte of them."""
        if b"\0" in part:
            part = b"\n\0" + part[-1:]
            self._rest = []
        self._rest.append(part)

    def _run(self, lines: bytes) -> bool:
        """Whole lines without damage, as nearly all are; whether no record has further lines."""
        found = _HEAD.findall(lines)
        if any(further for _, _, further in found):
            return False
        latest: dict[bytes, bytes] = {}
        for key, number, _ in found:
            latest.pop(key, None)
            latest[key] = number
        for key, number in latest.items():
            self._count(key, int(number))
        return True

    def _go_through(self, lines: bytes) -> None:
        for line in lines.split(b"\n")[1:]:
            if line.endswith(CAN):
                self._damaged, self._due = False, 0
            elif not self._damaged:
                self._take(line)

    def _take(self, line: bytes) -> None:
        if b"\0" in line or (self._due and not line.startswith(b"\t")):
            self._damaged, self._due = True, 0
        elif self._due:
            self._due -= 1
            if not self._due:
                self._count(self._key, self._number)
        elif found := _HEAD.match(b"\n" + line):
            self._key, self._number = found[1], int(found[2])
            self._due = int(found[3] or 0)
            if not self._due:
                self._count(self._key, self._number)

    def _count(self, key: bytes, number: int) -> None:
        self.last.pop(key, None)
        self.last[key] = number

    @property
    def whole(self) -> bool:
        """Whether nothing is left unfinished by what was fed."""
        return not self._damaged and not self._due and b"".join(self._rest) == b"\n"


def split(key: bytes) -> tuple[str, str]:
    """Owner and id."""
    owner, _, session = key.decode("utf-8", "replace").partition("/")
    return owner.removeprefix("@"), session


def scan(blocks: Iterable[bytes]) -> Scan:
    found = Scan()
    for block in blocks:
        found.feed(block)
    return found


def mark_is_needed(tail: bytes) -> bool | None:
    """Whether a file that ends so must be marked; None where more of it must be seen.

    That is so where the last line that begins a record is not in the tail.
    """
    if not tail.endswith(b"\n"):
        return bool(tail)
    if tail.endswith(MARK):
        return False
    begin = len(tail) - 1
    while (begin := tail.rfind(b"\n", 0, begin)) >= 0:
        if tail[begin + 1 : begin + 2] != b"\t":
            return not scan([tail[begin + 1 :]]).whole
    return None
