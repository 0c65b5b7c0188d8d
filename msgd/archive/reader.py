"""Reads day files again: records, with what a crash has left behind told apart from them.

    for record in read(path): ...              # one file, plain or gzip
    for record in read_days(directory): ...    # all days that are there, over midnight

What counts as a record is said in msgd-protocol(7), "After a crash". In short: a line that ends
with CAN is none, and from the first record that is not whole, or holds a NUL, nothing counts up to
the next CAN. A line that somebody else has written into the file is passed over.

The work is done for a block at a time: some 0.3 million records of 100 bytes a second.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple, cast

from msgd.archive.records import CAN
from msgd.archive.source import BLOCK, Day, days

_RECORD = re.compile(
    rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d) "
    rb"(\d[\d.]*:\d+|\[[^] \n]+\]:\d+|unix:\d+)(?:@([^ /\n]+))?"
    rb"(?:/([A-Za-z0-9][\w.-]{0,63}):(\d{3,19})(?:\+([1-9]\d*))?)? "
    rb"([^\n]*(?:\n\t[^\n]*)*)\n",
    re.MULTILINE,
)


class Record(NamedTuple):
    """One record. Texts are bytes, as they stand in the file."""

    stamp: bytes  # 2026-11-23T02:51:07.123456+00:00
    origin: bytes  # 127.0.0.1:40312, [::1]:40312, unix:4711
    name: bytes  # that the client has proved; b"" where it has not
    session: bytes  # its id; b"" outside of a session
    number: int  # in the session; 0 outside of one
    text: bytes  # its lines with line feeds between them, without the TABs
    offset: int  # where it begins in the day's bytes
    end: int  # where the next one begins


class NotARecord(ValueError):
    """A line that is neither a record nor the continuation of one, nor marked by CAN."""


class Reader:
    """Takes the bytes of one day, in blocks of any size, apart into records."""

    def __init__(self, offset: int = 0, *, strict: bool = False) -> None:
        """``offset`` is where a record begins. With ``strict`` a line that is no record is an
        error, `NotARecord`, unless a crash explains it.
        """
        self._strict = strict
        self._offset = offset  # of what is kept
        self._kept: list[bytes] = []  # the beginning of a record that may go on
        self._damaged = False  # nothing counts up to the next CAN

    def feed(self, block: bytes) -> Iterator[Record]:
        """The records that are known to be over: behind each of them another line has begun."""
        begin = self._last_begin(block)
        if begin < 0:
            self._kept.append(block)
            return
        data = b"".join((*self._kept, block[:begin]))
        self._kept = [block[begin:]] if begin < len(block) else []
        at, self._offset = self._offset, self._offset + len(data)
        yield from self._records(data, at)

    def end(self) -> Iterator[Record]:
        """The last record, once nothing more comes. An unfinished line is none.

        A record that it continues is not whole, unless that is a session's and says so itself.
        """
        data, self._kept = b"".join(self._kept), []
        at = data.rfind(b"\n") + 1
        rest = data[at:]
        if rest and self._strict and not self._damaged:
            raise NotARecord(f"an unfinished line at {self._offset + at}: {rest[-80:]!r}")
        for record in self._records(data[:at], self._offset):
            if record.session or not rest.startswith(b"\t"):
                yield record

    def _last_begin(self, block: bytes) -> int:
        """Where the last line begins that does not continue a record; -1 if none does."""
        at = len(block) - 1
        while (at := block.rfind(b"\n", 0, max(at, 0))) >= 0:
            if block[at + 1 : at + 2] != b"\t":
                return at + 1
        follows = not self._kept or self._kept[-1].endswith(b"\n")
        return 0 if follows and block and not block.startswith(b"\t") else -1

    def _records(self, data: bytes, offset: int) -> Iterator[Record]:
        sound = b"\0" not in data and CAN not in data
        at = 0
        for found in _RECORD.finditer(data):
            begin, end = found.span()
            if begin != at:
                self._strange(data[at:begin], offset + at)
            at = end
            stamp, origin, name, session, number, further, text = found.groups()
            lines = text.count(b"\n") if b"\n" in text else 0
            surplus = b""
            if number is not None and lines > (due := int(further or 0)):
                text, surplus = _split(text, due)
                end -= len(surplus)
            if not sound:
                self._marks(data[begin:end])
            if number is not None and lines < int(further or 0):
                self._damaged |= sound or CAN + b"\n" not in found[0]
            elif not (self._damaged or (not sound and CAN in text)):
                yield Record(
                    stamp, origin, name or b"", session or b"", int(number or 0),
                    text.replace(b"\n\t", b"\n") if lines else text,
                    offset + begin, offset + end,
                )  # fmt: skip
            if surplus:
                self._strange(surplus, offset + end)
        if at != len(data):
            self._strange(data[at:], offset + at)

    def _marks(self, lines: bytes) -> None:
        for line in lines.splitlines():
            if line.endswith(CAN):
                self._damaged = False
            elif b"\0" in line:
                self._damaged = True

    def _strange(self, lines: bytes, offset: int) -> None:
        """What stands between two records."""
        for line in lines.splitlines():
            self._marks(line)
            if self._strict and not self._damaged and not line.endswith(CAN):
                raise NotARecord(f"neither record nor continuation at {offset}: {line[:80]!r}")


def _split(text: bytes, further: int) -> tuple[bytes, bytes]:
    """A text with this number of further lines, and what somebody has written behind it."""
    lines = text.split(b"\n")
    surplus = b"".join(line + b"\n" for line in lines[further + 1 :])
    return b"\n".join(lines[: further + 1]), surplus


def records(blocks: Iterable[bytes], offset: int = 0, *, strict: bool = False) -> Iterator[Record]:
    """The records in these blocks, which follow each other from offset on; see `Reader`."""
    reader = Reader(offset, strict=strict)
    for block in blocks:
        yield from reader.feed(block)
    yield from reader.end()


def read(path: str | os.PathLike[str], *, strict: bool = False) -> Iterator[Record]:
    """The records of one file, plain or gzip (by its name). Raises OSError, and what gzip does."""
    opened = gzip.open(path) if os.fspath(path).endswith(".gz") else open(path, "rb")  # noqa: SIM115
    with cast(BinaryIO, opened) as file:
        yield from records(iter(lambda: file.read(BLOCK), b""), strict=strict)


def read_days(
    directory: str | os.PathLike[str], since: str = "", *, strict: bool = False
) -> Iterator[Record]:
    """The records of all days from ``since`` (YYYY-MM-DD) on. Offsets count within each day.

    A day of which both the plain file and its gzip are there is read once. Raises as `read`.
    """
    for day in days(os.fspath(directory)):
        if day >= since:
            with Day(os.fspath(directory), day) as source:
                yield from records(source.blocks(), strict=strict)
