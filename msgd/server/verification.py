"""A password is verified in a process of its own: scrypt is slow, and the loop waits for nobody."""

from __future__ import annotations

import logging
import os
import signal

from msgd.password import verify
from msgd.process import children
from msgd.process.log import Seldom
from msgd.wire.headers import FAIL, PWNO, PWOK

_HEADERS = {b"1": PWOK, b"0": PWNO}
_unable = Seldom(logging.ERROR, "a password could not be verified: %s")


class Verification:
    """`verify` in a process of its own."""

    seconds = 0.0  # of a processor that it took, once there is an answer

    def __init__(self, password: bytes, stored: str) -> None:
        """Raises OSError where there can be no more processes."""
        self._verdict, child_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._pid = children.fork()
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
            verdict = os.read(self._verdict, 512)
        except BlockingIOError:
            return None
        status = self._reap()
        if verdict not in _HEADERS:
            _unable(verdict.decode(errors="replace") or f"its process ended with status {status}")
        return _HEADERS.get(verdict, FAIL)

    def cancel(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> int:
        os.close(self._verdict)
        status, self.seconds = children.reap(self._pid)
        return status


def _verify_and_exit(password: bytes, stored: str, verdict: int) -> None:
    """The forked child: it must hold nothing of the daemon's open, above all not the lock."""
    try:
        os.closerange(3, verdict)
        os.closerange(verdict + 1, os.sysconf("SC_OPEN_MAX"))
        os.write(verdict, b"1" if verify(password, stored) else b"0")
    except BaseException as error:
        os.write(verdict, f"{type(error).__name__}: {error}".encode()[:512])
    finally:
        os._exit(0)
