"""A wall clock that the test sets: libfaketime, under the real daemon."""

from __future__ import annotations

import os
from pathlib import Path

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


class FakeClock:
    """The wall clock of the programs that are started with `env`. The monotonic one is real."""

    def __init__(self, folder: Path, now: str) -> None:
        """``now`` is ``YYYY-MM-DD hh:mm:ss``, in the time zone of the program."""
        self._file = folder / "faketime"
        self.set(now)

    def set(self, now: str) -> None:
        """The clock jumps there, and goes on at its usual pace from the program's view."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{now}\n")
        os.replace(new, self._file)

    def env(self, zone: str = "UTC") -> dict[str, str]:
        assert LIBRARY is not None
        return {
            "TZ": zone,
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
