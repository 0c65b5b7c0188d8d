"""Publishing under this node's subjects: what is shipped of today, of past days, and of which days
all is shipped.

Never is more than one publish in flight, as each names the sequence that it expects.
"""

from __future__ import annotations

import asyncio
import socket

from msgd.archive.source import Day
from msgd.relay.blocks import (
    EXPECTED,
    SOURCE,
    Finished,
    Message,
    Part,
    done_days,
    done_subject,
    headers,
    source,
)
from msgd.relay.cursor import Progress, check_source, resume
from msgd.relay.engine import Engine
from msgd.relay.standing import Standing


class Publisher:
    """One node's way into the stream."""

    def __init__(self, engine: Engine, node: str, directory: str, standing: Standing) -> None:
        """``directory`` is the archive's, ``standing`` is told what the stream has taken."""
        self.directory = directory
        self._engine, self._node, self._standing = engine, node, standing
        self._source = source(_machine(), directory)
        self._free = asyncio.Lock()  # while nothing is in flight

    async def resume(self, day: Day, done: Finished | None) -> Progress:
        """Where the stream says that this day goes on. Raises Doubt, Denied, as `Day.read`."""
        part = Part(self._node, day.day, done.generation if done else 1)
        last = await self._engine.last_generation(part)
        if last is not None:
            self._check(last)
        if day.plain:
            return resume(self._node, day, last, done)
        return await asyncio.to_thread(resume, self._node, day, last, done)

    async def publish(self, progress: Progress, day: Day, end: int) -> bool:
        """Publish the next block of what is final, which is up to ``end``; false where there is
        none. Raises ApiError, Doubt, Denied, as `Day.read`; then the progress is not to be used
        any more.
        """
        most = self._engine.max_payload
        block = progress.block(day, end, most)
        if not block:
            return False
        async with self._free:
            sequence = await self._engine.publish(
                progress.part.subject,
                block,
                headers(progress.offset, self._source, progress.sequence),
                lambda: progress.read_ahead(day, end, most, len(block)),
            )
        progress.published(len(block), sequence)
        self._standing.published(len(block))
        return True

    async def last_done(self) -> Message | None:
        """The node's `done` message. Raises ApiError, Doubt; Denied where it is another's."""
        told = await self._engine.last(done_subject(self._node))
        if told is not None:
            self._check(told)
        return told

    async def publish_done(self, data: bytes, sequence: int) -> int:
        """Replace it, if the last one still has this sequence. Raises ApiError, Doubt, Denied."""
        expected = {SOURCE: self._source, EXPECTED: str(sequence)}
        async with self._free:
            return await self._engine.publish(done_subject(self._node), data, expected)

    @property
    def done_days(self) -> int:
        """How many days a `done` message can tell of."""
        return done_days(self._engine.max_payload)

    def _check(self, message: Message) -> None:
        check_source(message, self._node, self._source)


def _machine() -> str:
    """What stays the same for this machine, whatever its name."""
    try:
        with open("/etc/machine-id") as file:
            return file.read().strip() or socket.gethostname()
    except OSError:
        return socket.gethostname()
