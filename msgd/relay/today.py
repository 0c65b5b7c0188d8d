"""Shipping what today's file gains, as far as `.msgd.final` says that it is final."""

from __future__ import annotations

from contextlib import suppress
from datetime import date

from msgd.archive import source as files
from msgd.archive.final import FINAL, Final, read_final
from msgd.archive.source import Day
from msgd.relay.cursor import DAMAGED, Progress, damage
from msgd.relay.finished import FinishedDays
from msgd.relay.program import Program
from msgd.relay.publisher import Publisher
from msgd.relay.standing import Standing

LOOK_SECONDS = 0.01  # between two looks at the file


class Today:
    """The day that msgd writes to."""

    def __init__(
        self, publisher: Publisher, finished: FinishedDays, program: Program, standing: Standing
    ) -> None:
        self.day = ""  # "" while it is not known
        self._publisher, self._finished = publisher, finished
        self._program, self._standing = program, standing
        self._directory = publisher.directory
        self._file: Day | None = None
        self._progress: Progress | None = None
        self._shipped: Final | None = None  # there is nothing to do while it says this

    @property
    def is_certain(self) -> bool:
        """Whether `.msgd.final` has named the day; else it is guessed."""
        return self._file is not None

    @property
    def unshipped(self) -> int:
        """Bytes."""
        if self._file is None or self._progress is None:
            return 0
        return max(self._file.size - self._progress.offset, 0)

    def forget(self) -> None:
        """Where it goes on is to be read from the stream again."""
        self._progress = self._shipped = None
        if self._file is not None:
            self._file.close()
            self._file = None

    async def follow(self) -> None:
        """Ship until asked to stop. Raises ApiError, Doubt, Denied."""
        while not self._program.stopping.is_set():
            try:
                published = await self._follow_once()
            except DAMAGED as error:
                self._standing.say_once(f"today's: {damage(error)}")
                self.forget()
                published = False
            if not published:
                await self._program.sleep(LOOK_SECONDS)

    async def _follow_once(self) -> bool:
        """Publish one block, if there is one."""
        day = self._file or self._open()
        if day is None:
            return False
        size = day.size
        final = read_final(self._directory)  # after the size: what was cut back is not counted
        if final is not None and final == self._shipped:
            return False
        if final is None or final.day != day.day or not day.in_place(self._directory):
            self.forget()
            return False
        end = min(size, day.base + final.offset)
        if self._progress is None or size < self._progress.offset:
            self._progress = await self._publisher.resume(day, self._finished.get(day.day))
        progress = self._progress
        self._standing.seen(progress.offset, end)
        if progress.offset >= end:
            if progress.offset == day.base + final.offset:
                self._shipped = final
            return False
        await self._publisher.publish(progress, day, end)
        return True

    def _open(self) -> Day | None:
        """The file that `.msgd.final` names; None where that is not there (yet)."""
        final = read_final(self._directory)
        if final is None:
            self._standing.say_once(
                f"{self._directory}/{FINAL}: is not there: nothing of today's is shipped "
                "until msgd has written it (does it run, and is it recent?)"
            )
            self.day = min(max(files.days(self._directory), default=""), date.today().isoformat())
            return None
        if self.day != final.day:
            self.day = final.day
            self._standing.new_day()
        with suppress(FileNotFoundError):
            self._file = Day(self._directory, final.day)
        return self._file
