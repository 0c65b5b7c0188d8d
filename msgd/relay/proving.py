"""Holding the copies of finished days against what their node says: size and SHA-256."""

from __future__ import annotations

import asyncio
import logging
from datetime import date, timedelta

from msgd.relay.badfiles import BadFiles
from msgd.relay.blocks import DONE, PREFIX, Finished, Message, Part, parse_subject, read_done
from msgd.relay.copies import Copies, Proof
from msgd.relay.program import Program

log = logging.getLogger("msgd")

_PROVE_SECONDS = 0.5  # between two looks at what is not yet proven


class Proving:
    """What is to be proven, and the work of it, beside the rest: many long days take minutes."""

    def __init__(self, copies: Copies, bad: BadFiles, keep_days: int, program: Program) -> None:
        self._copies, self._bad, self._keep_days = copies, bad, keep_days
        self._program = program
        self._unproven: dict[Part, Finished] = {}

    @property
    def number(self) -> int:
        """Days that are not yet proven."""
        return len(self._unproven)

    def note(self, message: Message) -> None:
        """Take the finished days of a `done` message."""
        node = message.subject.removeprefix(f"{PREFIX}.").removesuffix(DONE)
        for day, finished in read_done(message.data).items():
            part = parse_subject(f"{PREFIX}.{node}.{day}.{finished.generation}")
            if part is None or not is_kept(day, self._keep_days):
                continue
            proof = self._copies.proof(part)
            if proof != Proof(finished.size, finished.sha256):
                self._unproven[part] = finished

    async def run(self) -> None:
        """Prove until asked to stop."""
        while not self._program.stopping.is_set():
            for part, finished in [*self._unproven.items()]:
                await asyncio.to_thread(self._prove, part, finished)
                if self._program.stopping.is_set():
                    break
            await self._program.sleep(_PROVE_SECONDS)

    def _prove(self, part: Part, finished: Finished) -> None:
        """Once all of the copy is there."""
        path, differing = self._copies.path(part), self._bad.differing
        try:
            if part not in differing and self._copies.size(part) < finished.size:
                return
            right = self._copies.prove(part, finished.size, finished.sha256)
        except OSError as error:
            self._bad.say_once(f"{path}: {error.strerror or error}")
            return
        if self._unproven.get(part) == finished:
            del self._unproven[part]
        if right:
            self._copies.note_proof(part, Proof(finished.size, finished.sha256))
            log.info("%s: is what %s has", path, part.node)
        elif part not in differing:
            self._bad.set_aside(part, f"its SHA-256 is not that of {part.node}'s file")


def is_kept(day: str, keep_days: int) -> bool:
    """Whether retention lets us have this day."""
    return not keep_days or day >= (date.today() - timedelta(keep_days)).isoformat()
