"""One daemon a directory: a lock that the kernel releases however its holder ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

from msgd.errors import Fatal

_NAME = ".msgd.lock"


class Lock:
    """Holds flock(2) on a file in the directory; the file names the holder's process."""

    def __init__(self, directory: str) -> None:
        """Raises `Fatal` where another process holds the lock, OSError for anything else."""
        self._directory = directory
        self._path = os.path.join(directory, _NAME)
        self.fd = self._acquire()
        self.name_holder()

    def _acquire(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._path, flags, 0o640)
        with suppress(OSError):  # whatever the umask; somebody else's file stays as it is
            os.fchmod(fd, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(fd, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            if not isinstance(error, BlockingIOError):
                raise
            raise Fatal(
                f"{self._directory}: another msgd (pid {holder}) writes there; "
                "stop it, or choose another log_directory"
            ) from error
        return fd

    def name_holder(self) -> None:
        """Write this process's id into the file; to be done again after a fork.

        Always as many bytes, so that they fit once they have fitted. On a disk that is full
        from the beginning there is only no name for others to show.
        """
        with suppress(OSError):
            os.pwrite(self.fd, b"%-19d\n" % os.getpid(), 0)

    def renew(self) -> None:
        """Lock again where the directory has been made anew; raises as the constructor."""
        held = os.fstat(self.fd)
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        if found is None or not os.path.samestat(held, found):
            fd = self._acquire()
            os.close(self.fd)
            self.fd = fd
            self.name_holder()

    def release(self) -> None:
        """Let the next one have it. The file stays: removing it would race with the next."""
        os.close(self.fd)
