"""msgd-relay ship: publishes this machine's archive, as far as it is final.

Two works run beside each other over one connection: `Today.follow` publishes what today's file
gains, `Past.ship` the days before it, the oldest first. Nothing is kept on disk: where to go on is
read from the stream, after each start and after each doubt.
"""

from __future__ import annotations

import logging
import os

from msgd.relay.answers import WRONG_SEQUENCE, ApiError, explain
from msgd.relay.engine import Engine
from msgd.relay.errors import Doubt
from msgd.relay.finished import FinishedDays
from msgd.relay.options import Config
from msgd.relay.past import Past
from msgd.relay.program import Program, together
from msgd.relay.publisher import Publisher
from msgd.relay.standing import Standing
from msgd.relay.today import Today

log = logging.getLogger("msgd")

_MANY_CONFLICTS = 20


class Ship:
    """The program; `run` ends when it is asked to stop."""

    def __init__(self, config: Config, engine: Engine, program: Program) -> None:
        self._engine, self._program = engine, program
        self._node = config.node
        self._directory = os.path.realpath(config.archive)
        self._standing = Standing(program, config.keep_days)
        publisher = Publisher(engine, config.node, self._directory, self._standing)
        self._finished = FinishedDays(publisher)
        self._today = Today(publisher, self._finished, program, self._standing)
        self._past = Past(publisher, self._finished, self._today, program, self._standing)
        self._standing.today = lambda: self._today.unshipped
        self._conflicts = 0

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
                pause = self._standing.trouble.begins(explain(error, self._engine.stream))
            finally:
                await self._engine.close()
                self._today.forget()
            await self._program.sleep(pause)

    async def _serve(self) -> None:
        if await self._finished.claim():
            self._past.forget()
        await together(self._today.follow(), self._past.ship())

    def _count_conflict(self, error: ApiError) -> None:
        """Once is a lost acknowledgement, or a relay that was not dead."""
        self._conflicts += error.code in WRONG_SEQUENCE
        if self._conflicts >= _MANY_CONFLICTS:
            self._standing.say_once("another relay ships this archive too: harmless, and no use")
