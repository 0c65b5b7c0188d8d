"""How far behind `ship` is, told in three ways: STATUS, figures, and warnings in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta

from msgd.relay.program import Program, Rate
from msgd.relay.trouble import Trouble

log = logging.getLogger("msgd")

_WARN_DAYS = 2  # before retention deletes what was not shipped


class Standing:
    """What is shipped, what is not, and what is said of it."""

    def __init__(self, program: Program, keep_days: int) -> None:
        """``keep_days`` is msgd's own, 0 if it keeps all."""
        self.trouble = Trouble()
        self.waiting: dict[str, int] = {}  # past days to ship -> bytes on the disk
        self.since = 0.0  # the oldest byte of today that is not shipped came then or later,
        # monotonic; 0 while there is none
        self._mark = 0  # all before this offset was there
        self._marked = 0.0  # at this time
        self.today: Callable[[], int] = int  # bytes of today that are not shipped
        self.rate = Rate()
        self.figures = Figures(program)
        self._keep_days = keep_days
        self._said: set[str] = set()
        program.status = self.status
        program.before_metrics = self._look_up

    def published(self, size: int) -> None:
        """The stream has taken a block."""
        self.trouble.over()
        self.rate.add()
        self.figures.blocks.value += 1
        self.figures.bytes.value += size

    def seen(self, offset: int, end: int) -> None:
        """Today is shipped up to offset, and there is more up to end."""
        if offset >= end:
            self.since = 0.0
        elif not self.since or offset >= self._mark:
            now = time.monotonic()
            self.since = self._marked if self.since else now
            self._mark, self._marked = end, now

    def new_day(self) -> None:
        """What is seen from now on is another file."""
        self.since = 0.0

    def say_once(self, words: str, level: int = logging.WARNING) -> None:
        if words not in self._said:
            log.log(level, "%s", words)
            self._said.add(words)

    def warn(self, days: list[str]) -> None:
        """Say which of these days retention will delete soon."""
        for day in days:
            if (left := self._days_left(day)) is not None and left <= _WARN_DAYS:
                when = "at the next midnight" if left <= 1 else f"in {left} days"
                self.say_once(
                    f"{day}.log: has not been shipped wholly, and msgd's keep_days of "
                    f"{self._keep_days} deletes it {when}"
                )

    def _days_left(self, day: str) -> int | None:
        """Midnights until retention deletes this day; None where it never does."""
        if not self._keep_days:
            return None
        return (date.fromisoformat(day) + timedelta(self._keep_days + 1) - date.today()).days

    def _behind(self) -> tuple[int, float]:
        """Bytes, and seconds since the oldest of them came."""
        size = sum(self.waiting.values()) + self.today()
        if self.waiting:
            midnight = date.fromisoformat(min(self.waiting)) + timedelta(1)
            since = datetime.combine(midnight, datetime.min.time()).timestamp()
            return size, max(time.time() - since, 0.0)
        since = self.since
        return size, time.monotonic() - since if since else 0.0

    def status(self) -> str:
        """For the service manager."""
        size, seconds = self._behind()
        text = f"{size} bytes and {seconds:.0f} s behind; {self.rate():.0f} blocks a second"
        if self.waiting:
            text += f"; {len(self.waiting)} past days to ship"
        return f"{text}; {self.trouble.words}" if self.trouble.words else text

    def _look_up(self) -> None:
        figures = self.figures
        figures.behind_bytes.value, figures.behind_seconds.value = self._behind()
        figures.days.value = len(self.waiting)
        figures.trouble.value = int(bool(self.trouble.words))
        oldest = min(self.waiting, default="")
        left = self._days_left(oldest) if oldest else None
        figures.oldest.value = datetime.fromisoformat(oldest).timestamp() if oldest else 0
        figures.deleted_in.value = left * 86400 if left is not None else -1


class Figures:
    """For the monitoring system."""

    def __init__(self, program: Program) -> None:
        counter, gauge = program.registry.counter, program.registry.gauge
        self.blocks = counter("msgd_relay_published_blocks", "Blocks that the stream has taken.")
        self.bytes = counter("msgd_relay_published_bytes", "Their bytes.", "bytes")
        self.behind_bytes = gauge(
            "msgd_relay_behind_bytes", "Bytes on the disk that are not shipped.", "bytes"
        )
        self.behind_seconds = gauge(
            "msgd_relay_behind_seconds", "Age of the oldest of them.", "seconds"
        )
        self.days = gauge("msgd_relay_unshipped_days", "Past days that are not shipped wholly.")
        self.oldest = gauge(
            "msgd_relay_oldest_unshipped_day_timestamp_seconds",
            "When the oldest of them began, in seconds of the epoch; 0 if there is none.",
            "seconds",
        )
        self.deleted_in = gauge(
            "msgd_relay_unshipped_deleted_in_seconds",
            "Until retention may delete the oldest of them; -1 if it never does.",
            "seconds",
        )
        self.trouble = gauge(
            "msgd_relay_trouble", "1 while the servers do not do what they should, else 0."
        )
