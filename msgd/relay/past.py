"""Shipping the days that msgd has closed, the oldest first, each with its sum at the end."""

from __future__ import annotations

import asyncio
import logging
import time

from msgd.archive import source as files
from msgd.archive.final import read_final
from msgd.archive.source import Day
from msgd.relay.blocks import Finished
from msgd.relay.cursor import DAMAGED, Look, damage, look, say_again, sums
from msgd.relay.errors import Doubt
from msgd.relay.finished import FinishedDays
from msgd.relay.program import Program
from msgd.relay.publisher import Publisher
from msgd.relay.standing import Standing
from msgd.relay.today import Today

_SCAN_SECONDS = 5.0  # between two looks at the directory
_TELL_SECONDS = 2.0  # between two `done` messages
_UNREADABLE_SECONDS = 600.0  # before a damaged file is read again


class Past:
    """The days besides today's."""

    def __init__(
        self,
        publisher: Publisher,
        finished: FinishedDays,
        today: Today,
        program: Program,
        standing: Standing,
    ) -> None:
        self._publisher, self._finished, self._today = publisher, finished, today
        self._program, self._standing = program, standing
        self._directory = publisher.directory
        self._settled: dict[str, Look] = {}  # days with nothing to do
        self._unreadable: dict[str, float] = {}  # days -> when to try again, monotonic

    def forget(self) -> None:
        """All days are to be held against the stream again."""
        self._settled.clear()

    async def ship(self) -> None:
        """Ship until asked to stop. Raises ApiError, Doubt, Denied."""
        scanned, today = 0.0, ""
        while not self._program.stopping.is_set():
            if self._today.day and (time.monotonic() >= scanned or self._today.day != today):
                today, scanned = self._today.day, time.monotonic() + _SCAN_SECONDS
                for day in self.scan(today):
                    await self._ship_day(day)
                    if self._program.stopping.is_set():
                        break
                await self._finished.tell()
            if scanned and not self._standing.waiting and not self._standing.since:
                self._standing.trouble.over()
            await self._program.sleep(0.2)

    def scan(self, today: str) -> list[str]:
        """The days besides today's that are to be shipped, the oldest first. Raises Doubt.

        Where the clock was set back there are later ones too: msgd has closed them all the same.
        """
        try:
            found = files.days(self._directory)
        except OSError as error:
            raise Doubt(f"{self._directory}: {error.strerror}") from error
        certain = self._today.is_certain
        looks = {
            day: look(self._directory, day)
            for day in found
            if day != today and (certain or day < today) and not self._is_open(day)
        }
        todo = [day for day, seen in looks.items() if self._settled.get(day) != seen]
        for day in set(self._standing.waiting) - set(looks):
            if day < today:
                self._standing.say_once(
                    f"{day}.log: was deleted before all of it was shipped; "
                    "what is missing cannot be shipped any more",
                    logging.ERROR,
                )
        self._standing.waiting = {day: looks[day].size for day in todo}
        self._standing.warn(todo)
        now = time.monotonic()
        return [day for day in todo if self._unreadable.get(day, 0) <= now]

    def _is_open(self, day: str) -> bool:
        """Whether msgd writes to this day's file, of which not all is final then."""
        final = read_final(self._directory)
        return final is not None and final.day == day

    async def _ship_day(self, day: str) -> None:
        seen, done = look(self._directory, day), self._finished.get(day)
        if done is None or not seen.same_as(done):
            try:
                with Day(self._directory, day) as opened:
                    done = await self._ship_all(opened, done, seen.mtime)
            except FileNotFoundError:
                return  # retention has deleted it, which the next scan finds
            except DAMAGED as error:
                self._standing.say_once(
                    f"{day}.log: {damage(error)}; it is tried again", logging.ERROR
                )
                self._unreadable[day] = time.monotonic() + _UNREADABLE_SECONDS
                return
            if done is None:
                return
            self._finished.add(day, done)
            await self._finished.tell(_TELL_SECONDS)
        self._settled[day] = seen
        self._standing.waiting.pop(day, None)

    async def _ship_all(self, day: Day, done: Finished | None, mtime: int) -> Finished | None:
        """Publish what is missing of a day, and sum it up; None when asked to stop."""
        progress = await self._publisher.resume(day, done)
        while True:
            if not day.plain:
                await asyncio.to_thread(lambda: day.base)
            end = day.size
            if self._is_open(day.day):  # looked at after the size, as it may be so from now on
                return None
            while progress.offset < end:
                if self._program.stopping.is_set():
                    return None
                if not await self._publisher.publish(progress, day, end):
                    return None
            found = await asyncio.to_thread(sums, day, end, done.size if done else -1)
            part = progress.part
            if done is None or done.generation < part.generation or found.begin == done.sha256:
                return Finished(part.generation, found.size, found.sha256, mtime)
            progress, done = progress.again(), None
            say_again(day.day, progress.part.generation, "its SHA-256 is another")
