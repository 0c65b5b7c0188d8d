"""The file of one day: it only grows, and a part of a record is cut off before anybody sees it.

Others may write to the file, cut it, move it or remove it at any time. What they leave is left as
it is, and our records begin on lines of their own.
"""

from __future__ import annotations

import errno
import logging
import os
from bisect import bisect_right
from contextlib import suppress
from itertools import accumulate, chain

from msgd.archive.final import is_plain
from msgd.archive.records import MARK
from msgd.archive.scan import mark_is_needed
from msgd.errors import Fatal

log = logging.getLogger("msgd")

FILE_MODE = 0o640
FULL = (errno.ENOSPC, errno.EDQUOT)
_IOV_MAX = os.sysconf("SC_IOV_MAX")
_JOIN_BYTES = 1 << 20  # of many entries, that may be copied together
_TAIL_BYTES = 4096  # looked at first for whether the end is whole

Batch = list[list[bytes]]  # entries, each of which is kept whole or not at all; in pieces

_HINTS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "raise the quota or free some space",
    errno.EACCES: "let the user that msgd runs as write there",
    errno.EPERM: "let the user that msgd runs as write there",
    errno.EROFS: "mount it read-write, or choose another log_directory",
    errno.ELOOP: "msgd writes to regular files only; move the symbolic link away",
    errno.EISDIR: "msgd writes to regular files only; move the directory away",
    errno.ENXIO: "msgd writes to regular files only; move it away",
    errno.ENOTDIR: "choose a log_directory that is a directory",
    errno.EEXIST: "choose a log_directory that is a directory",
    errno.ENOENT: "make the directory",
}


def explain(error: OSError, path: str) -> str:
    """One line: where, what, and how to mend it where that is known."""
    hint = _HINTS.get(error.errno or 0)
    where = error.filename if isinstance(error.filename, str) else path
    return f"{where}: {error.strerror or error}" + (f" ({hint})" if hint else "")


class DayFile:
    """The file of one day, open for appending."""

    def __init__(self, path: str, *, torn: bool = False) -> None:
        """Open the file, or make it; raises OSError for what is not a regular file.

        ``torn``: its end is known not to be whole.
        """
        self.path = path
        self.end = 0  # of the file, behind what was written last
        self.begin = 0  # of what was written last
        self._seen = 0  # its size, as it was looked at last
        self._mark = False  # whether the end is not whole, and a mark must come first
        self._identity = (0, 0)
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._fd, is_new = os.open(path, flags | os.O_CREAT | os.O_EXCL, FILE_MODE), True
        except FileExistsError:
            self._fd, is_new = os.open(path, flags), False
        try:
            self._begin(is_new, torn)
        except BaseException:
            self.close()
            raise

    def _begin(self, is_new: bool, torn: bool) -> None:
        if is_new:
            with suppress(OSError):  # whatever the umask; not every file system has modes
                os.fchmod(self._fd, FILE_MODE)
        status = os.fstat(self._fd)
        self._identity = status.st_dev, status.st_ino
        if not is_plain(self._fd):
            raise OSError(errno.ENXIO, "not a regular file with one name", self.path)
        self.end = self._seen = status.st_size
        self._mark = torn or self._is_torn()
        if self._mark:
            self._end_torn()

    def _is_torn(self) -> bool:
        """Whether the last record is not whole. Its beginning is looked for further and further
        back from the end.
        """
        size = _TAIL_BYTES
        while True:
            start = max(self.end - size, 0)
            tail = os.pread(self._fd, self.end - start, start)
            needed = mark_is_needed(tail if start else b"\n" + tail)
            if needed is not None or not start:
                return bool(needed)
            size *= 8

    def _end_torn(self) -> None:
        """Mark what a crash has left; nothing is ever deleted."""
        _, error = self.append([])
        if error is not None:
            raise error
        self.sync()
        log.warning("%s: marked an end that a crash had left unfinished", self.path)

    def fileno(self) -> int:
        return self._fd

    def is_in_place(self) -> bool:
        """Whether the file's name still leads to it: it may have been moved or deleted."""
        try:
            status = os.lstat(self.path)
        except OSError:
            return False
        self._seen = status.st_size
        return (status.st_dev, status.st_ino) == self._identity

    def append(self, batch: Batch) -> tuple[int, OSError | None]:
        """Write all of the batch, or a beginning of it, and say why not all.

        `is_in_place` is to be asked just before. Returns how many of its entries the file now
        holds; never a part of one. Raises `Fatal` where a part of one has been written and cannot
        be cut off again, OSError where the file cannot be looked at.
        """
        if self._seen != self.end:  # somebody else has cut the file, or written to it
            self.end = self._seen
            self._mark = self._is_torn()
        if self._mark:
            return self._append_behind_mark(batch)
        self.begin = self.end
        pieces = [*chain.from_iterable(batch)]
        size, written, error = sum(map(len, pieces)), 0, None
        try:
            if len(pieces) <= _IOV_MAX:
                written = os.writev(self._fd, pieces)
            elif size <= _JOIN_BYTES:  # which is faster than several calls
                written = os.write(self._fd, b"".join(pieces))
            if written < size:  # more than one call takes, or a device that is almost full
                written, error = self._write_rest(pieces, written)
        except OSError as failure:
            error = failure
        self.end = self._seen = self.end + written
        return (len(batch), None) if error is None else (self._keep_whole(batch, written), error)

    def _append_behind_mark(self, batch: Batch) -> tuple[int, OSError | None]:
        """The mark goes with the batch, so that nothing is ever seen of one without the other."""
        self._mark = False
        kept, error = self.append([[MARK], *batch])
        self._mark |= not kept
        return max(kept - 1, 0), error

    def _write_rest(self, pieces: list[bytes], written: int) -> tuple[int, OSError | None]:
        """As much as the device takes, without copying the pieces together."""
        sizes = [*accumulate(map(len, pieces))]
        try:
            while written < sizes[-1]:
                first = bisect_right(sizes, written)
                group: list[bytes | memoryview] = [*pieces[first : first + _IOV_MAX]]
                group[0] = memoryview(pieces[first])[written - sizes[first] :]
                written += os.writev(self._fd, group)
        except OSError as error:
            return written, error
        return written, None

    def _keep_whole(self, batch: Batch, written: int) -> int:
        """Cut off a part of an entry; how many are there whole."""
        sizes = [*accumulate(sum(map(len, entry)) for entry in batch)]
        kept = bisect_right(sizes, written)
        self._cut_back(written - (sizes[kept - 1] if kept else 0))
        return kept

    def _cut_back(self, size: int) -> None:
        """Cut off these last bytes, if they are ours and still the last."""
        if not size:
            return
        if os.fstat(self._fd).st_size != self.end:
            self._mark = True
            return
        try:
            os.ftruncate(self._fd, self.end - size)
        except OSError as error:
            raise Fatal(f"{self.path}: cannot cut off half a record: {error.strerror}") from error
        self.end = self._seen = self.end - size

    def sync(self) -> None:
        """Put what was written on stable storage; raises `Fatal`, or OSError on a full disk.

        Linux reports a failed write-back once and then forgets it (fsync(2)): a second try
        on this descriptor would succeed and prove nothing.
        """
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            if error.errno in FULL:
                raise
            raise Fatal(
                f"{self.path}: fdatasync: {error.strerror}: what it was for is not on stable "
                "storage and has not been echoed; check the device, then start msgd again"
            ) from error

    def take_back(self) -> None:
        """Cut off what was written last: it is not kept. Raises `Fatal`."""
        self._cut_back(self.end - self.begin)

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._fd)
