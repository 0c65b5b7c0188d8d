"""Files that are held by flock(2), and name their holder's process.

The kernel lets go of the lock however its holder ends. Whether a process lives is never guessed
from the number in the file, which another process may have by now. Only the owner may open the
file: a lock that others can take is one that they can keep msgd from.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from types import TracebackType

from msgd.errors import Fatal

_MODE = 0o600
_NAME = ".msgd.lock"


class LockFile:
    """One file that this process holds."""

    def __init__(self, path: str, held: str) -> None:
        """Raises `Fatal` where another process holds it, OSError for anything else.

        ``held`` is what to say then; ``{}`` in it stands for the holder's process id.
        """
        self.path = os.path.abspath(path)  # a daemon changes to /
        self._held = held
        self.fd = self._acquire()

    def _acquire(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        while True:
            fd = os.open(self.path, flags, _MODE)
            try:
                self._take(fd)
                if os.path.samestat(os.fstat(fd), os.lstat(self.path)):
                    return fd
            except FileNotFoundError:
                pass  # its last holder removed it behind our open(2)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _take(self, fd: int) -> None:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise OSError(errno.ENXIO, "not a regular file with one name", self.path)
        named = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Fatal(self._words(named)) from None
        self.check(named)
        with suppress(OSError):  # whatever the umask, and what an older msgd has left
            os.fchmod(fd, _MODE)

    def _words(self, named: str) -> str:
        if not named:
            return self._held.format("not yet known")
        try:
            os.kill(int(named), 0)
        except (ValueError, OverflowError, ProcessLookupError):
            return f"{self.path}: another process holds this lock; fuser(1) tells which"
        except PermissionError:
            pass  # it lives, and is another user's
        return self._held.format(named)

    def check(self, named: str) -> None:
        """Whether the file may be overwritten, judged by what is in it; raises `Fatal`."""

    def in_place(self) -> bool:
        """Whether the name still leads to the file that is held."""
        try:
            return os.path.samestat(os.fstat(self.fd), os.lstat(self.path))
        except OSError:
            return False


class Lock(LockFile):
    """The lock of a directory that only one process may write to. The file stays for the next."""

    def __init__(self, directory: str) -> None:
        """Raises `Fatal` where another process holds the lock, OSError for anything else."""
        held = f"{directory}: another msgd (pid {{}}) writes there; "
        held += "stop it, or choose another log_directory"
        super().__init__(os.path.join(directory, _NAME), held)
        self.name_holder()

    def name_holder(self) -> None:
        """Write this process's id into the file; to be done again after a fork.

        The length is always the same, so that a disk that fills later does not matter. On one
        that is full from the beginning the file names nobody.
        """
        with suppress(OSError):
            os.pwrite(self.fd, b"%-19d\n" % os.getpid(), 0)

    def renew(self) -> None:
        """Lock again where the directory has been made anew; raises as the constructor."""
        if not self.in_place():
            fd = self._acquire()
            os.close(self.fd)
            self.fd = fd
            self.name_holder()

    def release(self) -> None:
        """Let the next one have it. Removing the file would race with that one."""
        os.close(self.fd)


class PidFile(LockFile):
    """The pid file of the classic way to run a daemon, held as pidfile_open(3bsd) does it.

    It names this process for as long as the context lasts.
    """

    def __init__(self, path: str) -> None:
        """Lock the file; `write` fills it. Raises `Fatal`."""
        self._named = path
        try:
            super().__init__(path, f"pid file {path}: msgd is already running, pid {{}}")
            os.ftruncate(self.fd, 0)
        except OSError as error:
            raise Fatal(f"pid file {path}: {error.strerror}") from None

    def check(self, named: str) -> None:
        if named and not named.isdecimal():
            raise Fatal(f"pid file {self._named}: what is in this file is not a pid")

    def write(self) -> None:
        """Name this process; to be done by the one that stays. Raises `Fatal`."""
        try:
            os.pwrite(self.fd, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            raise Fatal(f"pid file {self._named}: {error.strerror}") from None

    def __enter__(self) -> PidFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the file, if it still is ours, and only then let go of it."""
        if self.in_place():
            with suppress(OSError):
                os.unlink(self.path)
        os.close(self.fd)
