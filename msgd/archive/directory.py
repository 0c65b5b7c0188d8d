"""The log directory: made where missing, kept open, and synced when it has a new name in it."""

from __future__ import annotations

import logging
import os
from contextlib import suppress

from msgd.archive.dayfile import FULL
from msgd.errors import Fatal

log = logging.getLogger("msgd")

MODE = 0o750


class Directory:
    """Kept open: clients may have taken every other descriptor when a new day begins."""

    def __init__(self, path: str) -> None:
        """Make it where missing; raises OSError, `Fatal`."""
        self.path = path
        self.fd = -1
        _make(path)
        _warn_of_others(path)
        self.renew()

    def renew(self) -> None:
        """It may have been removed and made anew, or moved away and back; raises OSError."""
        there = os.stat(self.path)
        if self.fd < 0 or not os.path.samestat(os.fstat(self.fd), there):
            self.close()
            self.fd = _open(self.path)

    def sync(self) -> None:
        """Put on stable storage which names are in it: a new file is kept only then (fsync(2)).

        Raises `Fatal`, or OSError on a full disk.
        """
        _sync(self.fd, self.path)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


def _make(directory: str) -> None:
    made, path = [], directory
    while not os.path.isdir(path):
        made.append(path)
        path = os.path.dirname(path)
    if made:
        os.makedirs(directory, MODE)
        with suppress(OSError):  # not every file system has modes
            os.chmod(directory, MODE)  # whatever the umask
    for path in made:
        parent = os.path.dirname(path)
        fd = _open(parent)
        try:
            _sync(fd, parent)
        finally:
            os.close(fd)


def _warn_of_others(directory: str) -> None:
    """Whoever can write to the directory can remove and replace what is archived."""
    status = os.stat(directory)
    if status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
        log.warning("%s: other users can write there, and so change or remove the archive; let it "
                    "belong to msgd's user, with mode 0750", directory)  # fmt: skip


def _open(directory: str) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _sync(fd: int, directory: str) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise Fatal(f"{directory}: fsync: {error.strerror}") from error
