"""Deleting and compressing the copies as msgd does, by the same code: only what was proven."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import date

from msgd.archive.days import elapsed
from msgd.archive.housekeeper import Housekeeper
from msgd.relay.copies import Copies
from msgd.relay.options import Collect
from msgd.relay.program import Program

log = logging.getLogger("msgd")

_SECONDS = 600.0  # between two looks at what is old
_NEXT_KEEPER_SECONDS = 0.3
_DAY_SECONDS = 86_400


class Housekeeping:
    """A housekeeper for each node's folder."""

    def __init__(self, copies: Copies, config: Collect, program: Program) -> None:
        self._copies, self._config, self._program = copies, config, program
        self._keepers: dict[str, Housekeeper] = {}
        self._calendar = Calendar()

    async def run(self) -> None:
        """Keep house until asked to stop."""
        try:
            if self._config.keep_days or self._config.compress != "none":
                await self._run()
        finally:
            for keeper in self._keepers.values():
                keeper.stop()

    async def _run(self) -> None:
        due, keep_days = 0.0, self._config.keep_days
        while not self._program.stopping.is_set():
            if time.monotonic() >= due:
                due = time.monotonic() + _SECONDS
                keep_days = 0 if self._calendar.has_jumped() else self._config.keep_days
                await self._wish()
            for keeper in [*self._keepers.values()]:  # one after the other: each is a process
                keeper.step(keep_days, self._config.compress)
                await self._program.sleep(_NEXT_KEEPER_SECONDS)
            await self._program.sleep(1)

    async def _wish(self) -> None:
        """A new keeper each time: its day follows what is proven, which is no calendar."""
        for node in await asyncio.to_thread(self._copies.nodes):
            if node not in self._keepers or not self._keepers[node].running:
                self._keepers[node] = Housekeeper(self._copies.folder(node))
                self._keepers[node].wish(await asyncio.to_thread(self._copies.first_unproven, node))


class Calendar:
    """Sees that the clock has jumped: then nothing is deleted before the next day."""

    def __init__(self) -> None:
        self._seen = date.today(), elapsed()
        self._jumped: date | None = None

    def has_jumped(self) -> bool:
        """Whether it has come to today by jumping over a day."""
        (last, at), self._seen = self._seen, (date.today(), elapsed())
        today, now = self._seen
        if (today - last).days > (now - at) // _DAY_SECONDS + 1:
            log.warning("the clock has jumped from %s to %s; nothing is deleted today", last, today)
            self._jumped = today
        return self._jumped == today
