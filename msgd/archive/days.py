"""Days: which one it is, to the microsecond (RFC 3339), and the names of their files."""

from __future__ import annotations

import time


class Clock:
    """Reads the wall clock; formats a second once, however often it is asked within it."""

    def __init__(self, time_zone: str) -> None:
        """``time_zone`` is ``local`` (as in tzset(3)) or ``utc``."""
        self._broken_down = time.gmtime if time_zone == "utc" else time.localtime
        self._second = -1
        self._head = self._offset = b""
        self.today = ""  # the day of the last stamp
        time.tzset()  # a reload follows a changed TZ

    def stamp(self) -> bytes:
        """Now, such as ``2026-11-23T02:51:07.123456+00:00``."""
        second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._format(second)
        return b"%b%06d%b" % (self._head, nanoseconds // 1000, self._offset)

    def _format(self, second: int) -> None:
        now = self._broken_down(second)
        sign, offset = "-" if now.tm_gmtoff < 0 else "+", abs(now.tm_gmtoff) // 60
        self._head = time.strftime("%Y-%m-%dT%H:%M:%S.", now).encode()
        self._offset = f"{sign}{offset // 60:02d}:{offset % 60:02d}".encode()
        self.today = time.strftime("%Y-%m-%d", now)
        self._second = second


def elapsed() -> float:
    """Seconds that have really passed since the machine was started, asleep or not.

    Two of them tell how much time has passed, wherever the wall clock was set meanwhile.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def is_day(text: str) -> bool:
    """Whether this is a day, as YYYY-MM-DD."""
    parts = text.split("-")
    return [len(part) for part in parts] == [4, 2, 2] and text.replace("-", "").isdecimal()
