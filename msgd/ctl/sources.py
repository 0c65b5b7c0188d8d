"""Files, pipes and texts as a source of messages: blocks of lines, ready for the wire."""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple

from msgd.client import blocks
from msgd.client.client import BLOCK_BYTES
from msgd.client.inflight import Block

# A text longer than this is refused here, not by the server: memory has to end somewhere, and a
# line cut off would be another message.
LONGEST_TEXT = 16 << 20


class _Segment(NamedTuple):
    """Messages that stand on consecutive lines of a file."""

    name: str
    messages: int  # how many there were before
    lines: int  # of the same file, before


Unsent = Callable[[str, dict[str, object], str], None]


def _say_nothing(place: str, position: dict[str, object], reason: str) -> None: ...


class Text:
    """One message, from the command line."""

    refused = 0
    failure = None
    on_unsent: Unsent = staticmethod(_say_nothing)

    def __init__(self, text: bytes) -> None:
        self.ended = False
        self._text = text

    def total_bytes(self) -> int | None:
        return None

    def fileno(self) -> int | None:
        return None

    def read(self) -> Block:
        self.ended = True
        return blocks.of_text(self._text)

    def bytes_of(self, messages: int) -> int:
        return 0

    def position(self, number: int) -> dict[str, object]:
        return {}

    def place(self, number: int) -> str:
        return "the message"

    def places(self, first: int, last: int) -> str:
        return self.place(first)

    def exhausted(self) -> bool:
        return self.ended


class Files:
    """Files one after the other: each line a message, or each file one (`whole`).

    ``-`` is standard input. `ended` may be set from outside: then nothing more is read. It also
    ends where a file cannot be read, for the reason in `failure`; the first raises OSError.
    """

    def __init__(self, names: Sequence[str], whole: bool = False) -> None:
        self.ended = False
        self.failure: OSError | None = None
        self.on_unsent: Unsent = _say_nothing  # told of what is too long, with place and reason
        self._bytes_read = 0
        self._names = names
        self._whole = whole
        self.refused = 0  # texts that are too long to be sent
        self._segments: list[_Segment] = []
        self._opened = 0  # files
        self._messages = 0
        self._skipping = False  # the rest of a line that is too long
        self._tail = bytearray()
        self._file = -1
        self._open_next()
        if self.failure is not None:
            raise self.failure

    def total_bytes(self) -> int | None:
        """The size of all of the files; None where one of them is a pipe or a terminal."""
        found = [os.stat(0 if name == "-" else name) for name in self._names]
        if all(stat.S_ISREG(status.st_mode) for status in found):
            return sum(status.st_size for status in found)
        return None

    def fileno(self) -> int | None:
        return None if self._regular else self._file

    def read(self) -> Block:
        try:
            data = os.read(self._file, BLOCK_BYTES)
        except OSError as error:
            self._fail(error, self._segments[-1].name)
            return blocks.of_lines(b"")
        self._bytes_read += len(data)
        block = self._take(data) if data else self._end_file()
        hopeless = self._whole and self._skipping  # the rest, which may be endless, is not wanted
        if hopeless:
            self._refuse()
        self._messages += block.messages
        if hopeless or not data:
            self._open_next()
        return block

    def bytes_of(self, messages: int) -> int:
        """About how many bytes the first messages take in the files."""
        return self._bytes_read * messages // max(self._messages, 1)

    def position(self, number: int) -> dict[str, object]:
        """Where the message with this number stands: its file and its line."""
        index = bisect_left(self._segments, number, key=attrgetter("messages")) - 1
        segment = self._segments[index]
        position: dict[str, object] = {}
        if segment.name != "-":
            position["file"] = segment.name
        if not self._whole:
            position["line"] = number - segment.messages + segment.lines
        return position

    def place(self, number: int) -> str:
        """The same for people."""
        match self.position(number):
            case {"file": file, "line": line}:
                return f"{file}:{line}"
            case {"line": line}:
                return f"line {line}"
            case {"file": file}:
                return f"{file}"
        return "the message"

    def places(self, first: int, last: int) -> str:
        """From the message with the one number to the one with the other."""
        begin, end = self.place(first), self.place(last)
        return begin if first == last else f"{begin} to {end}"

    def exhausted(self) -> bool:
        """Whether nothing is left to be read, as far as one can tell without waiting."""
        if self._tail or self._skipping:
            return False
        if self._file < 0 or not self._regular:
            return self.failure is None and self._opened == len(self._names) and self._file < 0
        ahead = os.fstat(self._file).st_size - os.lseek(self._file, 0, os.SEEK_CUR)
        return ahead <= 0 and self._opened == len(self._names)

    def _open_next(self) -> None:
        if self._file > 0:
            os.close(self._file)
        self._file = -1
        if self._opened == len(self._names):
            self.ended = True
            return
        name = self._names[self._opened]
        try:
            self._file = 0 if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            self._file = -1
            self._fail(error, name)
            return
        self._regular = stat.S_ISREG(os.fstat(self._file).st_mode)
        self._opened += 1
        self._segments.append(_Segment(name, self._messages, 0))

    def _fail(self, error: OSError, name: str) -> None:
        error.filename = "standard input" if name == "-" else name
        self.ended, self.failure = True, error

    def _take(self, data: bytes) -> Block:
        """The whole lines up to the end of this data; its last, unfinished one is kept."""
        if self._skipping:
            data = self._skip(data)
        end = 0 if self._whole else data.rfind(b"\n") + 1
        lines = bytes(self._tail) + data[:end] if end else b""
        if end:
            self._tail.clear()
        if not self._skipping:
            self._tail += data[end:]
        if len(self._tail) > LONGEST_TEXT:
            self._tail.clear()
            self._skipping = True
        return blocks.of_lines(lines)

    def _end_file(self) -> Block:
        if self._skipping:
            self._refuse()
            return blocks.of_lines(b"")
        tail = bytes(self._tail)
        self._tail.clear()
        if self._whole:
            return blocks.of_text(tail)
        return blocks.of_lines(tail + b"\n" if tail else b"")

    def _skip(self, data: bytes) -> bytes:
        """What comes behind the line that is too long."""
        end = data.find(b"\n") + 1
        if end:
            self._refuse()
        return data[end:] if end else b""

    def _refuse(self) -> None:
        """The line that is too long ends here: the numbers of messages go on without it."""
        number = self._messages + 1
        reason = f"longer than {LONGEST_TEXT} bytes"
        self.on_unsent(self.place(number), self.position(number), reason)
        self.refused += 1
        self._skipping = False
        name, messages, lines = self._segments[-1]
        lines += self._messages - messages + 1
        self._segments.append(_Segment(name, self._messages, lines))
