"""What the daemon says of itself to its manager (sd_notify(3)), and when it looks after itself."""

from __future__ import annotations

import logging
import time
from math import inf

from msgd.process import log, systemd
from msgd.server.figures import WRITE_SECONDS, Figures
from msgd.server.timers import Alarm

_log = logging.getLogger("msgd")

EXPIRY_SECONDS = 14 * 86400.0  # before the certificate expires: time to say so
BUSY_SECONDS, IDLE_SECONDS = 1.0, 10.0


class Status:
    """Counts, and the pulse: once a second while something happens, else now and then."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self.archived = self.refused = 0  # messages, since the start or midnight
        self.figures = Figures()
        self._written = -inf  # when the figures were written
        self.expires = inf  # the certificate: seconds of the epoch
        self._warned = False  # of that, today
        self._next = 0.0
        watchdog = systemd.watchdog_seconds()
        self._watched = watchdog is not None
        self._idle = min(IDLE_SECONDS, (watchdog or IDLE_SECONDS * 3) / 3)
        self._busy = min(BUSY_SECONDS, self._idle)
        self._said = ""

    def __str__(self) -> str:
        return f"{self.archived} messages archived today, {self.refused} refused"

    def kept(self, messages: int, size: int) -> None:
        """Messages are archived, in records of this many bytes."""
        self.archived += messages
        self.figures.messages.value += messages
        self.figures.bytes.value += size

    def refuse(self, answer: bytes) -> None:
        """An answer that begins with FAIL, or several of them, for the same reason each."""
        reason, _, _ = answer.removeprefix(b"FAIL ").partition(b"\n")
        self.figures.refused(reason.decode(), max(1, answer.count(b"\n")))

    def write(self, path: str | None, directory: str, now: float) -> None:
        """Write the figures, if it is time to, for the file system of this directory."""
        if path and now - self._written >= WRITE_SECONDS:
            self._written = now
            expires = self.expires if self.expires < inf else 0
            self.figures.certificate_expiry.value = expires
            self.figures.write(path, directory)

    def new_day(self) -> None:
        self.archived = self.refused = 0
        self._warned = False

    def next(self) -> float:
        """When `report` is due, in seconds of the monotonic clock."""
        return self._next

    def soon(self, now: float) -> None:
        """Something has happened: report it within a second."""
        due = now + self._busy
        if due < self._next:
            self._next = due
            self._alarm.at(due)

    def _expiry(self) -> str:
        """What there is to say of the certificate, when it is about time; once a day in the log."""
        left = self.expires - time.time()
        if left > EXPIRY_SECONDS:
            return ""
        day = time.strftime("%Y-%m-%d", time.gmtime(self.expires))
        words = f"the certificate {'expires' if left > 0 else 'expired'} on {day}"
        if not self._warned:
            self._warned = True
            _log.warning("%s; renew it, then reload", words)
        return words

    def report(self, clients: int, trouble: str, now: float) -> None:
        """Tell the manager, if there is news; and that the loop is alive, in any case.

        And what neither the manager nor the log had room for before is tried again.
        """
        log.catch_up()
        systemd.notify()
        parts = (f"{clients} clients", str(self), trouble, self._expiry())
        text = "; ".join(filter(None, parts))
        if text != self._said:
            systemd.notify(f"STATUS={text}")
        if self._watched:
            systemd.notify("WATCHDOG=1")
        self._said, self._next = text, now + self._idle
        if trouble:
            self.soon(now)
