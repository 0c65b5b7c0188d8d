"""A password is verified in a process of its own: scrypt is slow, and the loop waits for nobody."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from msgd.password import verify
from msgd.wire.headers import FAIL, PWNO, PWOK


class Verification:
    """`verify` in a process of its own."""

    def __init__(self, password: bytes, stored: str) -> None:
        """Raises OSError where there can be no more processes."""
        self._verdict, child_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._pid = os.fork()
        except OSError:
            os.close(self._verdict)
            os.close(child_end)
            raise
        if self._pid == 0:
            _verify_and_exit(password, stored, child_end)
        os.close(child_end)

    def poll(self) -> bytes | None:
        """The header of the answer, or None while there is none."""
        try:
            verdict = os.read(self._verdict, 1)
        except BlockingIOError:
            return None
        self._reap()
        return {b"1": PWOK, b"0": PWNO}.get(verdict, FAIL)

    def cancel(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        os.close(self._verdict)
        os.waitpid(self._pid, 0)


def _verify_and_exit(password: bytes, stored: str, verdict: int) -> None:
    """The forked child: it must hold nothing of the daemon's open, above all not the lock."""
    with suppress(BaseException):
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for fd in map(int, os.listdir("/proc/self/fd")):
            if fd not in (2, verdict):
                with suppress(OSError):
                    os.close(fd)
        os.write(verdict, b"1" if verify(password, stored) else b"0")
    os._exit(0)
