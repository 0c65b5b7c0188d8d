"""One collected file: a block is written where the file ends, or it is there already, which is
compared, or it waits for what is missing. Nothing that differs is ever overwritten.
"""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

from msgd.archive.source import Day
from msgd.relay.errors import Doubt

log = logging.getLogger("msgd")

FILE_MODE = 0o640
READ_AT_ONCE = 1 << 20


class Put(Enum):
    """What became of a block."""

    WRITTEN = "written"
    HELD = "held"  # it was there already
    MISSING = "missing"  # what comes before it is not there


class Differs(Exception):
    """The file holds something else where the block belongs."""

    def __init__(self, at: int) -> None:
        super().__init__(f"byte {at}")
        self.at = at


class Place(NamedTuple):
    """Where a block belongs in a file of a certain size."""

    compare: int  # so many bytes of it are there already, and must be the same
    missing: bool  # there is a gap before it


def place(size: int, offset: int, length: int) -> Place:
    """For a block of this length at this offset."""
    if offset > size:
        return Place(0, missing=True)
    return Place(min(size - offset, length), missing=False)


def first_difference(one: bytes, other: bytes) -> int:
    """The first place at which two texts of the same length differ; -1 if they do not."""
    if one == other:
        return -1
    low, high = 0, len(one)  # they agree before low, and differ before high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle)
    return low


class Copy:
    """One collected file, open for a batch of blocks."""

    def __init__(self, folder: str, name: str) -> None:
        """Open it, or make it. Raises OSError, and Doubt while it is being compressed."""
        self.path = os.path.join(folder, name)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._is_new = not os.path.lexists(self.path)
        self._dirty = False
        self._fd = os.open(self.path, flags, FILE_MODE)
        try:
            # Retention, which compresses, holds the same lock.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(self._fd), os.lstat(self.path)):
                raise BlockingIOError
            if self._is_new:
                os.fchmod(self._fd, FILE_MODE)  # whatever the umask
            self._base = packed_size(folder, name)
        except (BlockingIOError, FileNotFoundError):
            os.close(self._fd)
            raise Doubt(f"{self.path}: is being compressed") from None
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def size(self) -> int:
        return self._base + os.fstat(self._fd).st_size

    def put(self, offset: int, data: bytes) -> Put:
        """Write the block where it belongs. Raises Differs, OSError."""
        size = self.size
        compare, missing = place(size, offset, len(data))
        if missing:
            return Put.MISSING
        if compare:
            compare = self._compare(offset, data[:compare], size)
        if compare == len(data):
            return Put.HELD
        self._dirty = True
        at, rest = offset + compare - self._base, memoryview(data)[compare:]
        while rest:
            written = os.pwrite(self._fd, rest, at)
            at, rest = at + written, rest[written:]
        return Put.WRITTEN

    def _compare(self, offset: int, data: bytes, size: int) -> int:
        """How many bytes of data are there; what a power cut has left is cut off before."""
        skip = max(self._base - offset, 0)  # what is in the gzip was proven
        found = os.pread(self._fd, len(data) - skip, offset + skip - self._base)
        at = first_difference(found, data[skip : skip + len(found)])
        if at < 0:
            return skip + len(found)
        at += offset + skip
        if not self._only_nuls(at - self._base):
            raise Differs(at)
        os.ftruncate(self._fd, at - self._base)
        log.warning("%s: cut off the NULs that a power cut has left, from byte %d", self.path, at)
        return at - offset

    def _only_nuls(self, at: int) -> bool:
        while data := os.pread(self._fd, READ_AT_ONCE, at):
            if data.strip(b"\0"):
                return False
            at += len(data)
        return True

    def sync(self) -> None:
        """Put what was written on stable storage. Raises OSError."""
        if self._dirty:
            os.fdatasync(self._fd)
            self._dirty = False
        if self._is_new:
            sync_directory(os.path.dirname(self.path))

    def close(self) -> None:
        """Nothing is left of a file that was made in vain."""
        if self._is_new and not os.fstat(self._fd).st_size:
            with suppress(OSError):
                os.unlink(self.path)
        os.close(self._fd)


def open_day(folder: str, name: str) -> Day:
    return Day(folder, name.removesuffix(".log"))


def packed_size(folder: str, name: str) -> int:
    """Bytes of the day that come before the plain file's first. Raises OSError, as gzip does."""
    if not os.path.exists(os.path.join(folder, f"{name}.gz")):
        return 0
    with open_day(folder, name) as day:
        return day.base


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
