"""msgd-relay ship: publishes this machine's archive, as far as it is final.

Two works run beside each other over one connection: `_follow` publishes what today's file gains,
`_ship_past` the days before it, the oldest first. Between them there is never more than one
publish in flight, as each names the sequence that it expects. Nothing is kept on disk: where to go
on is read from the stream, after each start and after each doubt.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import zlib
from datetime import date

from msgd.archive import source as files
from msgd.archive.final import FINAL, Final, read_final
from msgd.archive.source import Day
from msgd.relay.blocks import (
    EXPECTED,
    SOURCE,
    Finished,
    Part,
    done_days,
    done_subject,
    headers,
    read_done,
    source,
    write_done,
)
from msgd.relay.engine import WRONG_SEQUENCE, ApiError, Engine
from msgd.relay.errors import Doubt
from msgd.relay.options import Config
from msgd.relay.program import Program, together
from msgd.relay.shipping import Look, Progress, check_source, look, resume, say_again, sums
from msgd.relay.standing import Standing

log = logging.getLogger("msgd")

LOOK_SECONDS = 0.01  # between two looks at today's file
_SCAN_SECONDS = 5.0  # between two looks at the directory
_TELL_SECONDS = 2.0  # between two `done` messages
_UNREADABLE_SECONDS = 600.0  # before a damaged file is read again
_MANY_CONFLICTS = 20

_DAMAGED = (OSError, EOFError, zlib.error)  # a file that cannot be read


class Ship:
    """The program; `run` ends when it is asked to stop."""

    def __init__(self, config: Config, engine: Engine, program: Program) -> None:
        self._engine, self._program = engine, program
        self._node = config.node
        self._directory = os.path.realpath(config.archive)
        self._source = source(_machine(), self._directory)
        self._publishing = asyncio.Lock()
        self._today = ""  # the day that `_follow` has; "" while it is not known
        self._file: Day | None = None
        self._progress: Progress | None = None  # today's
        self._shipped: Final | None = None  # there is nothing to do while it says this
        self._done: dict[str, Finished] = {}
        self._done_sequence = 0
        self._unsaid: dict[str, Finished] = {}  # not yet told to the collector
        self._settled: dict[str, Look] = {}  # past days with nothing to do
        self._unreadable: dict[str, float] = {}  # past days -> when to try again, monotonic
        self._conflicts = 0
        self._told = 0.0  # when the last `done` was published, monotonic
        self._standing = Standing(program, config.keep_days)
        self._standing.today = self._unshipped

    async def run(self) -> None:
        """Ship until asked to stop. Raises Denied."""
        log.info("shipping %s as node %s", self._directory, self._node)
        while not self._program.stopping.is_set():
            pause = 0.0
            try:
                await self._engine.connect()
                await self._serve()
            except Doubt as doubt:
                pause = self._standing.trouble.begins(str(doubt))
            except ApiError as error:
                self._count_conflict(error)
                pause = self._standing.trouble.begins(str(self._engine.explain(error)))
            finally:
                await self._engine.close()
                self._forget()
            await self._program.sleep(pause)

    def _count_conflict(self, error: ApiError) -> None:
        """Once is a lost acknowledgement, or a relay that was not dead."""
        self._conflicts += error.code in WRONG_SEQUENCE
        if self._conflicts >= _MANY_CONFLICTS:
            self._standing.say_once("another relay ships this archive too: harmless, and no use")

    async def _serve(self) -> None:
        await self._claim()
        await together(self._follow(), self._ship_past())

    def _forget(self) -> None:
        self._progress = self._shipped = None
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    async def _claim(self) -> None:
        """Make sure that this node's subjects are ours; the `done` message says so from now on.

        Of two that begin at the same time one gets an error here, as both expect no message.
        """
        told = await self._engine.last(done_subject(self._node))
        if told is not None:
            check_source(told, self._node, self._source)
        sequence = told.sequence if told else 0
        if sequence < self._done_sequence:  # the stream has lost what it had
            self._settled.clear()
        self._done = read_done(told.data) if told else {}
        self._done_sequence = sequence
        for day, finished in self._unsaid.items():
            self._remember(day, finished)
        if told is None:
            await self._tell()

    async def _follow(self) -> None:
        while not self._program.stopping.is_set():
            try:
                published = await self._follow_once()
            except _DAMAGED as error:
                self._standing.say_once(f"today's: {_words(error)}")
                self._forget()
                published = False
            if not published:
                await self._program.sleep(LOOK_SECONDS)

    async def _follow_once(self) -> bool:
        """Publish one block of today, if there is one."""
        first = read_final(self._directory)
        if first is not None and first == self._shipped:
            return False
        day = self._open_today(first)
        if day is None:
            return False
        size = day.size
        final = read_final(self._directory)  # after the size: see SCALE, `.msgd.final`
        if final is None or final.day != day.day or not day.in_place(self._directory):
            return False
        end = min(size, day.base + final.offset)
        if self._progress is None or size < self._progress.offset:
            self._progress = await self._resume(day, self._done.get(day.day))
        progress = self._progress
        self._standing.seen(progress.offset, end)
        if progress.offset >= end:
            if progress.offset == day.base + final.offset:
                self._shipped = final
            return False
        await self._publish(progress, day, end)
        return True

    def _open_today(self, final: Final | None) -> Day | None:
        """The file that `.msgd.final` names; None where that is not there (yet)."""
        if final is None:
            self._standing.say_once(
                f"{self._directory}/{FINAL}: is not there: nothing of today's is shipped "
                "until msgd has written it (does it run, and is it recent?)"
            )
            self._today = min(
                max(files.days(self._directory), default=""), date.today().isoformat()
            )
            return None
        if (
            self._file is None
            or self._file.day != final.day
            or not self._file.in_place(self._directory)
        ):
            self._forget()
            if self._today != final.day:
                self._today = final.day
                self._standing.new_day()
            try:
                self._file = Day(self._directory, final.day)
            except FileNotFoundError:
                return None
        return self._file

    async def _resume(self, day: Day, done: Finished | None) -> Progress:
        last = await self._engine.last_generation(
            Part(self._node, day.day, done.generation if done else 1)
        )
        if last is not None:
            check_source(last, self._node, self._source)
        if day.plain:
            return resume(self._node, day, last, done)
        return await asyncio.to_thread(resume, self._node, day, last, done)

    async def _publish(self, progress: Progress, day: Day, end: int) -> bool:
        """Publish the next block; false where there is none."""
        block = progress.block(day, end, self._engine.max_payload)
        if not block:
            return False
        async with self._publishing:
            sequence = await self._engine.publish(
                progress.part.subject,
                block,
                headers(progress.offset, self._source, progress.sequence),
            )
        progress.published(len(block), sequence)
        self._standing.published(len(block))
        return True

    async def _ship_past(self) -> None:
        scanned, today = 0.0, ""
        while not self._program.stopping.is_set():
            if self._today and (time.monotonic() >= scanned or self._today != today):
                today, scanned = self._today, time.monotonic() + _SCAN_SECONDS
                for day in self._scan(today):
                    await self._ship_day(day)
                    if self._program.stopping.is_set():
                        break
                await self._tell_later(0)
            if scanned and not self._standing.waiting and not self._standing.since:
                self._standing.trouble.over()
            await self._program.sleep(0.2)

    def _scan(self, today: str) -> list[str]:
        """The days besides today's that are to be shipped, the oldest first.

        Where the clock was set back there are later ones too: msgd has closed them all the same.
        """
        try:
            found = files.days(self._directory)
        except OSError as error:
            raise Doubt(f"{self._directory}: {error.strerror}") from error
        known = self._file is not None
        looks = {
            day: look(self._directory, day)
            for day in found
            if day != today and (known or day < today) and not self._is_open(day)
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
        seen, done = look(self._directory, day), self._done.get(day)
        if done is None or not seen.same_as(done):
            try:
                with Day(self._directory, day) as opened:
                    done = await self._ship_all(opened, done, seen.mtime)
            except FileNotFoundError:
                return  # retention has deleted it, which the next scan finds
            except _DAMAGED as error:
                self._standing.say_once(
                    f"{day}.log: {_words(error)}; it is tried again", logging.ERROR
                )
                self._unreadable[day] = time.monotonic() + _UNREADABLE_SECONDS
                return
            if done is None:
                return
            self._remember(day, done)
            self._unsaid[day] = done
            await self._tell_later(_TELL_SECONDS)
        self._settled[day] = seen
        self._standing.waiting.pop(day, None)

    async def _ship_all(self, day: Day, done: Finished | None, mtime: int) -> Finished | None:
        """Publish what is missing of a past day, and sum it up; None when asked to stop."""
        progress = await self._resume(day, done)
        while True:
            if not day.plain:
                await asyncio.to_thread(lambda: day.base)
            end = day.size
            if self._is_open(day.day):  # looked at after the size, as it may be so from now on
                return None
            while progress.offset < end:
                if self._program.stopping.is_set() or not await self._publish(progress, day, end):
                    return None
            found = await asyncio.to_thread(sums, day, end, done.size if done else -1)
            part = progress.part
            if done is None or done.generation < part.generation or found.begin == done.sha256:
                return Finished(part.generation, found.size, found.sha256, mtime)
            progress, done = progress.again(), None
            say_again(day.day, progress.part.generation, "its SHA-256 is another")

    def _unshipped(self) -> int:
        """Bytes of today."""
        if self._file is None or self._progress is None:
            return 0
        return max(self._file.size - self._progress.offset, 0)

    def _remember(self, day: str, finished: Finished) -> None:
        self._done.pop(day, None)  # the newest last
        self._done[day] = finished

    async def _tell_later(self, seconds: float) -> None:
        """Publish `done` if there is news, not more often than that."""
        late = time.monotonic() - self._told >= seconds
        full = len(self._unsaid) >= done_days(self._engine.max_payload) // 2
        if self._unsaid and (late or full):
            await self._tell()

    async def _tell(self) -> None:
        data = write_done(self._done, done_days(self._engine.max_payload))
        said = [*self._unsaid]
        async with self._publishing:
            self._done_sequence = await self._engine.publish(
                done_subject(self._node),
                data,
                {SOURCE: self._source, EXPECTED: str(self._done_sequence)},
            )
        self._told = time.monotonic()
        for day in said:
            self._unsaid.pop(day, None)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _machine() -> str:
    """What stays the same for this machine, whatever its name."""
    try:
        with open("/etc/machine-id") as file:
            return file.read().strip() or socket.gethostname()
    except OSError:
        return socket.gethostname()
