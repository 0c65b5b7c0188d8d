"""The archive: one file a day, which only grows.

Records are appended to a batch; `Archive.commit` writes the batch with one write and, with
``sync: always``, one fdatasync. What commit has taken may be echoed, and nothing else.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from bisect import bisect_right
from contextlib import suppress
from itertools import accumulate

from msgd.errors import Fatal
from msgd.lock import Lock

log = logging.getLogger("msgd")

CURRENT = "current.log"
DIRECTORY_MODE, FILE_MODE = 0o750, 0o640
_IOV_MAX = os.sysconf("SC_IOV_MAX")
_FULL = (errno.ENOSPC, errno.EDQUOT)

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


class Archive:
    """The day files in one directory, of which one is open."""

    def __init__(self, directory: str, sync: str) -> None:
        """Lock the directory (an absolute path), which is made where missing; raises `Fatal`."""
        self.directory = directory
        self.sync = sync  # "always", "second" or "never"
        self.day = ""  # of the open file
        self.refusing = ""  # why records are refused; "" while they are not
        self._works = True  # whether the last batch was taken
        self._refused_at = 0.0
        self._file: DayFile | None = None
        self._batch: list[bytes] = []
        self._unsynced = False
        # One, given up while a directory is synced: clients may have taken every other descriptor.
        self._spare = [_spare_descriptor()]
        try:
            _make_directory(directory)
            self.lock = Lock(directory)
        except OSError as error:
            raise Fatal(explain(error, directory)) from error

    def start(self, day: str) -> None:
        """Mend the newest file and open today's; raises `Fatal` unless it is a full disk.

        A full disk passes by itself, and its messages are refused until then.
        """
        try:
            self._mend_newest(day)
            self._open(day)
        except OSError as error:
            if error.errno not in _FULL:
                raise Fatal(explain(error, self._path(day))) from error
            self._refuse(error, day)

    def _mend_newest(self, day: str) -> None:
        """A crash on another day may have left a torn line at the end of its file.

        That is where current.log leads to: the newest file, unless the clock was set back.
        """
        names = [name for name in os.listdir(self.directory) if is_day_file(name)]
        last = {max(names, default=""), os.path.basename(self._current())}
        for name in last.intersection(names) - {f"{day}.log"}:
            DayFile(os.path.join(self.directory, name)).close()

    def _current(self) -> str:
        """Where current.log leads to; nowhere if it is no symbolic link."""
        try:
            return os.readlink(os.path.join(self.directory, CURRENT))
        except OSError:
            return ""

    def filenos(self) -> list[int]:
        """The descriptors that it needs over a fork."""
        today = [self._file.fileno()] if self._file is not None else []
        return [self.lock.fd, *today, *self._spare]

    def append(self, records: bytes) -> None:
        """Add an entry, one record or several, to the batch."""
        self._batch.append(records)

    def commit(self, day: str) -> int:
        """Write the batch to the file of this day; the first so many entries are in it then.

        With ``sync: always`` they are on stable storage. The others are not in the archive,
        and no part of them is. Raises `Fatal`.
        """
        batch, self._batch = self._batch, []
        if not batch:
            return 0
        try:
            kept, error = self._opened(day).append(batch)
        except OSError as failure:
            kept, error = 0, failure
        if kept:
            self._unsynced = True
            if self.sync == "always":
                self.flush()
        if error is not None:
            self._refuse(error, day)
        else:
            self._works = True
        return kept

    def flush(self) -> None:
        """Put all records on stable storage; raises `Fatal`."""
        if self._unsynced and self._file is not None:
            self._file.sync()
        self._unsynced = False

    def roll(self, day: str) -> None:
        """Go on to this day's file, so that a finished day's is no longer open."""
        closed = self._file is None
        try:
            self._opened(day)
            self._works |= closed  # where writing has failed, only a write shows that it works
        except OSError as error:
            self._refuse(error, day)

    def reopen(self, day: str) -> None:
        """Close and open the file, as SIGHUP asks."""
        works = self._works or self._file is None  # a file that opens need not take records
        self._close_file()
        self.roll(day)
        self._works &= works

    def close(self) -> None:
        """Flush (unless ``sync: never``), close, and release the directory; raises `Fatal`."""
        self._close_file()
        self._close_spare()
        self.lock.release()

    def _opened(self, day: str) -> DayFile:
        """The file of this day; raises OSError.

        It is looked for under its name every time: an echo for a record in a file that was
        deleted or moved away would be a lie.
        """
        if self._file is not None and day == self.day:
            if self._file.is_in_place():
                return self._file
            log.warning("%s: was moved or deleted; making a new one", self._file.path)
        return self._open(day)

    def _open(self, day: str) -> DayFile:
        self._close_file()
        self.lock.renew()
        opened = DayFile(self._path(day))
        try:
            self._point_current(day)
            self._sync_directory()
        except OSError:
            opened.close()
            raise
        self._file, self.day = opened, day
        return opened

    def _close_file(self) -> None:
        if self._file is not None:
            if self.sync != "never":
                self.flush()
            self._file.close()
        self._file, self._unsynced = None, False

    def _point_current(self, day: str) -> None:
        """Let current.log lead to this day's file: at every moment it leads to one of them."""
        link, new = (os.path.join(self.directory, name) for name in (CURRENT, f".{CURRENT}.new"))
        target = f"{day}.log"
        if os.path.lexists(link) and not os.path.islink(link):
            log.warning("%s: is not a symbolic link; left as it is", link)
        elif not os.path.islink(link) or os.readlink(link) != target:
            with suppress(FileNotFoundError):
                os.unlink(new)
            os.symlink(target, new)
            os.rename(new, link)

    def _sync_directory(self) -> None:
        """A new file is kept only when its directory is (fsync(2))."""
        if self.sync == "never":
            return
        self._close_spare()
        try:
            _fsync(self.directory)
        finally:
            with suppress(OSError):  # then there is none until a directory is synced again
                self._spare.append(_spare_descriptor())

    def _close_spare(self) -> None:
        while self._spare:
            os.close(self._spare.pop())

    def _path(self, day: str) -> str:
        return os.path.join(self.directory, f"{day}.log")

    def _refuse(self, error: OSError, day: str) -> None:
        """Say so once, not once a message; and once more when the reason changes."""
        reason = explain(error, self._path(day))
        if self.refusing != reason:
            log.error("%s; messages are refused until then", reason)
        self.refusing, self._works, self._refused_at = reason, False, time.monotonic()

    def settle(self) -> None:
        """Say that records are taken again, once that has been so for a second.

        On a device that is almost full short records still fit where long ones do not: without
        the second each of them would be news.
        """
        if self.refusing and self._works and time.monotonic() - self._refused_at >= 1:
            log.warning("%s: is being written again", self._path(self.day))
            self.refusing = ""


def is_day_file(name: str) -> bool:
    """Whether this is the name of an uncompressed day file."""
    day, dot, ending = name.partition(".")
    return ending == "log" and is_day(day) and bool(dot)


def is_day(text: str) -> bool:
    """Whether this is a day, as YYYY-MM-DD."""
    parts = text.split("-")
    return [len(part) for part in parts] == [4, 2, 2] and text.replace("-", "").isdecimal()


def _make_directory(directory: str) -> None:
    made, path = [], directory
    while not os.path.isdir(path):
        made.append(path)
        path = os.path.dirname(path)
    if made:
        os.makedirs(directory, DIRECTORY_MODE)
        os.chmod(directory, DIRECTORY_MODE)  # whatever the umask
    for path in made:
        _fsync(os.path.dirname(path))


def _fsync(directory: str) -> None:
    """Put on stable storage which names are in it; raises `Fatal`, or OSError before it begins."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        raise Fatal(f"{directory}: fsync: {error.strerror}") from error
    finally:
        os.close(fd)


def _spare_descriptor() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
