"""What the daemon says of itself to its manager (sd_notify(3)), and when it looks after itself."""

from __future__ import annotations

from msgd.process import log, systemd
from msgd.server.timers import Alarm

BUSY_SECONDS, IDLE_SECONDS = 1.0, 10.0


class Status:
    """Counts, and the pulse: once a second while something happens, else now and then."""

    def __init__(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self.archived = self.refused = 0  # messages, since the start or midnight
        self._next = 0.0
        watchdog = systemd.watchdog_seconds()
        self._watched = watchdog is not None
        self._idle = min(IDLE_SECONDS, (watchdog or IDLE_SECONDS * 3) / 3)
        self._said = ""

    def __str__(self) -> str:
        return f"{self.archived} messages archived today, {self.refused} refused"

    def new_day(self) -> None:
        self.archived = self.refused = 0

    def next(self) -> float:
        """When `report` is due, in seconds of the monotonic clock."""
        return self._next

    def soon(self, now: float) -> None:
        """Something has happened: report it within a second."""
        due = now + min(BUSY_SECONDS, self._idle)
        if due < self._next:
            self._next = due
            self._alarm.at(due)

    def report(self, clients: int, trouble: str, now: float) -> None:
        """Tell the manager, if there is news; and that the loop is alive, in any case.

        And what neither the manager nor the log had room for before is tried again.
        """
        log.catch_up()
        systemd.notify()
        text = f"{clients} clients; {self}" + (f"; {trouble}" if trouble else "")
        if text != self._said:
            systemd.notify(f"STATUS={text}")
        if self._watched:
            systemd.notify("WATCHDOG=1")
        self._said, self._next = text, now + self._idle
        if trouble:
            self.soon(now)
