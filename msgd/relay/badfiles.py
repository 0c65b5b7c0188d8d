"""The collected files that somebody has to look at: each is told once, and left alone."""

from __future__ import annotations

import logging

from msgd.relay.blocks import Part
from msgd.relay.copies import Copies

log = logging.getLogger("msgd")


class BadFiles:
    """Those that differ, and those that lack what the stream has lost."""

    def __init__(self, copies: Copies) -> None:
        self.differing: set[Part] = set()  # the file and the stream do not agree
        self.short: dict[Part, int] = {}  # of which the stream has lost what comes next -> size
        self._copies = copies
        self._said: set[str] = set()

    @property
    def number(self) -> int:
        return len(self.differing) + len(self.short)

    def set_aside(self, part: Part, words: str) -> None:
        """Nothing is written to it any more."""
        self.differing.add(part)
        self.say_once(
            f"{self._copies.path(part)}: {words}; nothing is overwritten and nothing more written: "
            f"compare it with {part.day}.log on {part.node}; to collect it again, move it away "
            "and start msgd-relay again"
        )

    def note_short(self, part: Part, size: int) -> None:
        """The stream has no longer what comes behind this size."""
        self.short[part] = size
        self.say_once(
            f"{self._copies.path(part)}: what comes behind byte {size} is no longer in the "
            f"stream: stop msgd-relay collect, copy {part.day}.log from {part.node} to there, "
            "and start it again"
        )

    def say_once(self, words: str, level: int = logging.ERROR) -> None:
        if words not in self._said:
            log.log(level, "%s", words)
            self._said.add(words)
