"""The bytes of a day, wherever they lie, and how far they are final.

A day is in DAY.log, and once it is compressed in DAY.log.gz. Both are there for a moment while
retention replaces one by the other, and after a crash in that moment: then the plain file is the
end of what the gzip holds. Both are there for longer where the clock was set back to a day that
was compressed already: then the plain file goes on behind the gzip. A reader sees one row of bytes
in each case, and an offset in it never changes its meaning.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from types import TracebackType

BLOCK = 256 << 10  # bytes that are read at once

_DAY_FILE = re.compile(r"(\d{4}-\d\d-\d\d)\.log(\.gz)?", re.ASCII)


def days(directory: str) -> list[str]:
    """The days of which there is a file, the oldest first. Raises OSError."""
    found = map(_DAY_FILE.fullmatch, os.listdir(directory))
    return sorted({match[1] for match in found if match and _is_date(match[1])})


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


class Day:
    """The bytes of one day. Reading forward is cheap; going back in a gzip, further than the
    beginning of what was read last, begins it anew.
    """

    def __init__(self, directory: str, day: str) -> None:
        """Open the day's file or files. Raises OSError; FileNotFoundError where none is there."""
        self.day = day
        self.packed: gzip.GzipFile | None = None
        self._fd = -1  # the plain file
        self._base: int | None = 0  # bytes before it; None: not yet known
        self._last, self._last_at = b"", 0  # what was read last of the gzip, and where it begins
        plain = os.path.join(directory, f"{day}.log")
        # The plain file first: retention makes the gzip before it removes the plain file.
        with suppress(FileNotFoundError):
            self._fd = _open(plain)
        try:
            self._file = open(_open(f"{plain}.gz"), "rb")  # noqa: SIM115
            self.packed, self._base = gzip.GzipFile(fileobj=self._file), None
        except FileNotFoundError:
            if self._fd < 0:
                raise
        self.files = _identity(self._fd), _identity(self.packed.fileno() if self.packed else -1)

    def in_place(self, directory: str) -> bool:
        """Whether the day's files are still those that were opened (they may have grown)."""
        plain = os.path.join(directory, f"{self.day}.log")
        return self.files == (_identity(plain), _identity(f"{plain}.gz"))

    def blocks(self, offset: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from offset on, up to end or up to the last one that is there now."""
        while end is None or offset < end:
            block = self.read(offset, BLOCK if end is None else min(BLOCK, end - offset))
            if not block:
                return
            yield block
            offset += len(block)

    def read(self, offset: int, most: int) -> bytes:
        """Up to ``most`` bytes; b"" at the end. Raises OSError, EOFError, zlib.error."""
        in_gzip = self.packed is not None and (self._base is None or offset < self._base)
        if in_gzip and (data := self._unpacked(offset, most)):
            return data
        if self._fd < 0:
            return b""
        return os.pread(self._fd, most, max(offset - self.base, 0)) if offset >= self.base else b""

    def _unpacked(self, offset: int, most: int) -> bytes:
        assert self.packed is not None
        skip = offset - self._last_at
        if not 0 <= skip < len(self._last):
            self.packed.seek(offset)
            self._last, self._last_at, skip = self.packed.read(most), offset, 0
        return self._last[skip : skip + most]

    @property
    def base(self) -> int:
        """How many bytes come before the plain file's first: 0 unless a gzip is there."""
        if self._base is None:
            assert self.packed is not None
            size = self._packed_size()
            if self._fd < 0:
                self._base = size
            else:
                skip = size - os.fstat(self._fd).st_size
                self._base = skip if skip >= 0 and self._is_tail(skip) else size
        return self._base

    @property
    def size(self) -> int:
        """Bytes that are there now. For a gzip, all of it is unpacked at the first time."""
        return self.base + (os.fstat(self._fd).st_size if self._fd >= 0 else 0)

    @property
    def plain(self) -> bool:
        """Whether there is no gzip."""
        return self.packed is None

    def _packed_size(self) -> int:
        assert self.packed is not None
        while self.packed.read(BLOCK):
            pass
        return self.packed.tell()

    def _is_tail(self, skip: int) -> bool:
        """Whether the gzip, from there on, holds just what the plain file does."""
        assert self.packed is not None
        self.packed.seek(skip)
        at = 0
        while block := os.pread(self._fd, BLOCK, at):
            if self.packed.read(len(block)) != block:
                return False
            at += len(block)
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self.packed is not None:
            self.packed.close()
            self._file.close()

    def __enter__(self) -> Day:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _open(path: str) -> int:
    """Only regular files, and no symbolic link; raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _identity(file: int | str) -> tuple[int, int] | None:
    try:
        found = os.fstat(file) if isinstance(file, int) else os.lstat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino
