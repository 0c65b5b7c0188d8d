"""How much may still be written, so that a part of the file system stays free."""

from __future__ import annotations

import errno
import os
import time
from bisect import bisect_right
from contextlib import suppress
from itertools import accumulate
from typing import Protocol

from msgd.archive.dayfile import Batch

_PLENTY = 1 << 60
_LOOK_SECONDS = 1.0  # others write to the file system, too


class KeepFree(Protocol):
    """What is to stay free; 0 bytes of any size for no limit."""

    def of(self, size: int) -> int:
        """How many bytes that is on a file system of ``size`` bytes."""


class Room:
    """Looks at the file system now and then, and before anything that might not fit."""

    def __init__(self, directory: str, keep_free: KeepFree | None) -> None:
        self.keep_free = keep_free  # may be changed at any time
        self._directory = directory
        self._left = 0
        self._look_at = 0.0

    def fit(self, batch: Batch) -> tuple[Batch, OSError | None]:
        """The first entries of the batch that may be written, and why not all of them."""
        sizes = [sum(map(len, entry)) for entry in batch]
        if self._take(sum(sizes)):
            return batch, None
        fitting = bisect_right([*accumulate(sizes)], self._left)
        self._left = 0  # the next batch looks anew
        return batch[:fitting], OSError(errno.ENOSPC, "less than limits.keep_free is free")

    def _take(self, size: int) -> bool:
        now = time.monotonic()
        if size > self._left or now >= self._look_at:
            self._look()
            self._look_at = now + _LOOK_SECONDS
        if size > self._left:
            return False
        self._left -= size
        return True

    def _look(self) -> None:
        """What is free for everybody: a part may be kept for root (statvfs(3), f_bavail)."""
        self._left = _PLENTY
        with suppress(OSError):  # whoever writes is told more
            found = os.statvfs(self._directory)
            keep = self.keep_free.of(found.f_blocks * found.f_frsize) if self.keep_free else 0
            if found.f_blocks and keep:  # some file systems do not tell their size
                self._left = max(found.f_bavail * found.f_frsize - keep, 0)
