"""The days that are shipped wholly, as the node's `done` message tells them to the collector."""

from __future__ import annotations

import time

from msgd.relay.blocks import Finished, read_done, write_done
from msgd.relay.publisher import Publisher


class FinishedDays:
    """What the stream has of them, and what is not yet told."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._days: dict[str, Finished] = {}
        self._sequence = 0  # of the message
        self._untold: dict[str, Finished] = {}
        self._told = 0.0  # when the last message was published, monotonic

    def get(self, day: str) -> Finished | None:
        return self._days.get(day)

    async def claim(self) -> bool:
        """Make sure that this node's subjects are ours; the message says so from now on.

        Of two that begin at the same time one gets an error here, as both expect no message.
        Returns whether the stream has lost what it had.
        """
        told = await self._publisher.last_done()
        before, self._sequence = self._sequence, told.sequence if told else 0
        self._days = read_done(told.data) if told else {}
        for day, finished in self._untold.items():
            self._remember(day, finished)
        if told is None:
            await self._tell()
        return self._sequence < before

    def add(self, day: str, finished: Finished) -> None:
        """To be told."""
        self._remember(day, finished)
        self._untold[day] = finished

    def _remember(self, day: str, finished: Finished) -> None:
        self._days.pop(day, None)  # the newest last
        self._days[day] = finished

    async def tell(self, seconds: float = 0.0) -> None:
        """Publish the message if there is news, not more often than that."""
        late = time.monotonic() - self._told >= seconds
        full = len(self._untold) >= self._publisher.done_days // 2
        if self._untold and (late or full):
            await self._tell()

    async def _tell(self) -> None:
        data = write_done(self._days, self._publisher.done_days)
        told = [*self._untold]
        self._sequence = await self._publisher.publish_done(data, self._sequence)
        self._told = time.monotonic()
        for day in told:
            self._untold.pop(day, None)
