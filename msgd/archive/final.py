"""`.msgd.final`: how far the archive is final, told to other programs on the same machine.

It holds one line, always of the same length: the name of the day file, and the number of its
bytes that are committed. What lies before that offset is as certain as an echo.

    2026-11-23.log 00000000000067108912
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
from contextlib import suppress
from typing import NamedTuple

log = logging.getLogger("msgd")

FINAL = ".msgd.final"  # in the log directory
_FINAL = rb"(\d{4}-\d\d-\d\d)\.log (\d{20})\n"  # msgd itself never reads it
_FINAL_BYTES = len("YYYY-MM-DD.log ") + 20 + 1
_MODE = 0o640


class Final(NamedTuple):
    """Up to which offset of which day's plain file nothing changes any more."""

    day: str
    offset: int


def final_line(day: str, offset: int) -> bytes:
    """What `.msgd.final` holds: always as many bytes, so that one pwrite(2) renews it."""
    return b"%b.log %020d\n" % (day.encode(), offset)


def read_final(directory: str) -> Final | None:
    """What `.msgd.final` says now; None where it is missing or says nothing.

    The file is read until two readings agree, as nothing says that read(2) sees all of another
    process's write(2) or none of it. Raises OSError for what is not a missing file.
    """
    try:
        fd = os.open(os.path.join(directory, FINAL), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        line = os.pread(fd, _FINAL_BYTES, 0)
        for _ in range(100):
            again = os.pread(fd, _FINAL_BYTES, 0)
            if again == line:
                break
            line = again
            time.sleep(0)
    finally:
        os.close(fd)
    found = re.fullmatch(_FINAL, line)
    return Final(found[1].decode(), int(found[2])) if found else None


class FinalFile:
    """Writes it: never synced, and nothing that fails here holds up a message."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, FINAL)
        self._fd = -1
        self._begin = b""
        self._trouble = ""

    def fileno(self) -> int:
        """-1 while it is not open."""
        return self._fd

    def open(self, day: str, offset: int) -> None:
        """From here it speaks of this day's file, which may be another than before."""
        self.close()
        self._begin = f"{day}.log ".encode()
        try:
            self._fd = self._make()
            os.pwrite(self._fd, final_line(day, offset), 0)
            self._trouble = ""
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if self._trouble != str(error):
            log.warning("%s: %s; programs that follow the archive wait", self._path, error.strerror)
        self._trouble = str(error)
        self.close()
        with suppress(OSError):  # what it said last may be wrong for a file of the same name
            os.unlink(self._path)

    def check(self, day: str, offset: int) -> None:
        """Make it again where it could not be made, or was removed."""
        with suppress(OSError):
            if self._fd >= 0 and os.fstat(self._fd).st_nlink:
                return
        self.open(day, offset)

    def _make(self) -> int:
        """A file of our own, with one name."""
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with suppress(OSError):
            fd = os.open(self._path, flags)
            if is_plain(fd):
                return fd
            os.close(fd)
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        fd = os.open(self._path, flags | os.O_CREAT | os.O_EXCL, _MODE)
        with suppress(OSError):  # whatever the umask
            os.fchmod(fd, _MODE)
        return fd

    def renew(self, offset: int) -> None:
        """The file ends here now, and everything before is committed."""
        if self._fd >= 0:
            try:  # once a turn of the loop: `suppress` would cost as much as half of the write
                os.pwrite(self._fd, b"%b%020d\n" % (self._begin, offset), 0)
            except OSError:
                return

    def close(self) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
        self._fd = -1


def is_plain(fd: int) -> bool:
    """Whether it is a regular file with one name only: another name may be somebody else's."""
    status = os.fstat(fd)
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1
