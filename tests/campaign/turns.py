"""The real daemon with a watch on its loop: how long each turn takes.

``python -m tests.campaign.turns FILE COMMAND…`` is a wrapper for `tests.lab.daemon.Daemon`. A turn
is what lies between two waits of the loop's selector. The counts live in a file that is mapped
into memory, so that they can be read at any time, and cost the daemon 2 us a turn.
"""

from __future__ import annotations

import mmap
import selectors
import sys
import time
from math import ceil, log2
from pathlib import Path
from typing import NamedTuple

from msgd import daemon

_STEPS, _BUCKETS = 16, 512  # so many buckets for twice the time: the error is 4.5 %, upwards
_BYTES = 8
_LOOK_SECONDS = 8e-6  # what takes no longer was a look without sleep that found nobody, no turn


def _bucket(seconds: float) -> int:
    return min(max(0, ceil(log2(max(seconds * 1e6, 1)) * _STEPS)), _BUCKETS - 1)


class Turns(NamedTuple):
    """How many turns took how long: of the clock on the wall, and of the processor."""

    wall: tuple[int, ...]
    processor: tuple[int, ...]

    def since(self, before: Turns) -> Turns:
        """Those that came after."""
        return Turns(
            *(
                tuple(now - then for now, then in zip(*pair, strict=True))
                for pair in zip(self, before, strict=True)
            )
        )

    def __str__(self) -> str:
        return (
            f"{sum(self.wall)} turns of the loop: p50 {_quantile(self.wall, 0.5):.4f} s, "
            f"p99 {_quantile(self.wall, 0.99):.4f} s, longest {_quantile(self.wall, 1):.4f} s "
            f"({_quantile(self.processor, 1):.4f} s of processor time)"
        )


def _quantile(counts: tuple[int, ...], part: float) -> float:
    """In seconds, rounded up to the end of its bucket."""
    left = part * sum(counts)
    for number, count in enumerate(counts):
        left -= count
        if left <= 0:
            return float(2 ** (number / _STEPS) / 1e6)
    return 0.0


def wrapper(file: Path) -> tuple[str, ...]:
    """For `Daemon`."""
    file.write_bytes(bytes(2 * _BUCKETS * _BYTES))
    return (sys.executable, "-m", "tests.campaign.turns", str(file))


def read(file: Path) -> Turns:
    """The turns that a daemon with this `wrapper` has taken so far."""
    counts = memoryview(file.read_bytes()).cast("Q")
    return Turns(tuple(counts[:_BUCKETS]), tuple(counts[_BUCKETS:]))


def _watch(path: str) -> None:
    with open(path, "r+b") as file:
        counts = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

    class Watched(selectors.EpollSelector):
        """Counts from the end of one wait to the beginning of the next."""

        began = (0.0, 0.0)

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            wall, processor = self.began
            if time.monotonic() - wall > _LOOK_SECONDS and wall:
                counts[_bucket(time.monotonic() - wall)] += 1
                counts[_BUCKETS + _bucket(time.thread_time() - processor)] += 1
            try:
                return super().select(timeout)
            finally:
                self.began = time.monotonic(), time.thread_time()

    selectors.DefaultSelector = Watched  # type: ignore[misc,assignment]


if __name__ == "__main__":
    _watch(sys.argv[1])
    sys.exit(daemon.main(sys.argv[sys.argv.index("msgd.daemon") + 1 :]))
