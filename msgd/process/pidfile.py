"""The pid file of the classic way to run a daemon, held as pidfile_open(3bsd) does it.

Whether its process lives is never guessed from the number in it, which another process may have
by now: the living hold flock(2) on the file, and the kernel releases that however they end.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from types import TracebackType

from msgd.errors import Fatal


class PidFile:
    """A file that names this process for as long as the context lasts."""

    def __init__(self, path: str) -> None:
        """Lock the file; `write` fills it. Raises Fatal where a living process holds it."""
        self._path = os.path.abspath(path)  # a daemon changes to /
        try:
            self.fd = self._lock()
        except OSError as error:
            raise Fatal(f"pid file {path}: {error.strerror}") from None

    def _lock(self) -> int:
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._check(fd)
                if os.path.samestat(os.fstat(fd), os.stat(self._path)):
                    os.ftruncate(fd, 0)
                    return fd
            except FileNotFoundError:
                pass  # its last holder removed it behind our open(2)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _check(self, fd: int) -> None:
        """Take the lock, and make sure that this is a pid file, which may be overwritten."""
        found = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Fatal(
                f"pid file {self._path}: msgd is already running, pid {found or 'not yet known'}"
            ) from None
        if found and not found.isdecimal():
            raise Fatal(f"pid file {self._path}: what is in this file is not a pid")

    def write(self) -> None:
        """Name this process; to be done by the one that stays. Raises Fatal."""
        try:
            os.pwrite(self.fd, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            raise Fatal(f"pid file {self._path}: {error.strerror}") from None

    def __enter__(self) -> PidFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the file, if it still is ours, and only then let go of it."""
        with suppress(OSError):
            if os.path.samestat(os.fstat(self.fd), os.stat(self._path)):
                os.unlink(self._path)
        os.close(self.fd)
