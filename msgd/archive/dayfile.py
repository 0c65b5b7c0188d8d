"""The file of one day: it only grows, and a part of a record is cut off before anybody sees it."""

from __future__ import annotations

import errno
import logging
import os
import stat
from bisect import bisect_right
from contextlib import suppress
from itertools import accumulate

from msgd.errors import Fatal

log = logging.getLogger("msgd")

FILE_MODE = 0o640
_IOV_MAX = os.sysconf("SC_IOV_MAX")

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
    return f"{path}: {error.strerror or error}" + (f" ({hint})" if hint else "")


class DayFile:
    """The file of one day, open for appending."""

    def __init__(self, path: str) -> None:
        """Open the file, or make it; raises OSError for what is not a regular file."""
        self.path = path
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._fd, is_new = os.open(path, flags | os.O_CREAT | os.O_EXCL, FILE_MODE), True
        except FileExistsError:
            self._fd, is_new = os.open(path, flags), False
        try:
            if is_new:
                os.fchmod(self._fd, FILE_MODE)  # whatever the umask
            status = os.fstat(self._fd)
            self._identity = status.st_dev, status.st_ino
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.ENXIO, "not a regular file")
            self._mend(status.st_size)
        except OSError:
            self.close()
            raise

    def _mend(self, size: int) -> None:
        """End a line that a crash has left unfinished; nothing is ever deleted."""
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            _, error = self.append([b"\n"])
            if error is not None:
                raise error
            self.sync()
            log.warning("%s: ended a last line that a crash had left unfinished", self.path)

    def fileno(self) -> int:
        return self._fd

    def is_in_place(self) -> bool:
        """Whether the file's name still leads to it: it may have been moved or deleted."""
        try:
            status = os.lstat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def append(self, batch: list[bytes]) -> tuple[int, OSError | None]:
        """Write all of the batch, or a beginning of it, and say why not all.

        Returns how many of its entries the file now holds; never a part of one. Raises
        `Fatal` where a part of one has been written and cannot be cut off again.
        """
        written, error = self._write(batch, sum(map(len, batch)))
        if error is None:
            return len(batch), None
        sizes = [*accumulate(map(len, batch))]
        kept = bisect_right(sizes, written)
        self._cut_back(written - (sizes[kept - 1] if kept else 0))
        return kept, error

    def _write(self, batch: list[bytes], size: int) -> tuple[int, OSError | None]:
        written = 0
        try:
            if len(batch) <= _IOV_MAX:
                written = os.writev(self._fd, batch)
            if written < size:  # more than one call takes, or a device that is almost full
                data = memoryview(b"".join(batch))
                while written < size:
                    written += os.write(self._fd, data[written:])
        except OSError as error:
            return written, error
        return written, None

    def _cut_back(self, size: int) -> None:
        if size:
            try:
                # The descriptor stands behind what it wrote last (open(2), O_APPEND).
                os.ftruncate(self._fd, os.lseek(self._fd, 0, os.SEEK_CUR) - size)
            except OSError as error:
                raise Fatal(f"{self.path}: cannot cut off half a record: {error}") from error

    def sync(self) -> None:
        """Put what was written on stable storage; raises `Fatal`.

        Linux reports a failed write-back once and then forgets it (fsync(2)): a second try
        on this descriptor would succeed and prove nothing.
        """
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise Fatal(
                f"{self.path}: fdatasync: {error.strerror}: what it was for is not on stable "
                "storage and has not been echoed; check the device, then start msgd again"
            ) from error

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._fd)
