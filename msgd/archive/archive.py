"""The archive: one file a day, which only grows.

Records are appended to a batch; `Archive.commit` writes the batch with one write and, with
``sync: always``, one fdatasync. What commit has taken may be echoed, and nothing else.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from contextlib import suppress

from msgd.archive.dayfile import DayFile, explain
from msgd.archive.days import is_day_file
from msgd.errors import Fatal
from msgd.process.lockfile import Lock

log = logging.getLogger("msgd")

CURRENT = "current.log"
DIRECTORY_MODE = 0o750
_FULL = (errno.ENOSPC, errno.EDQUOT)


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
