"""A wall clock that the test sets: libfaketime, under the real daemon."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


class FakeClock:
    """The wall clock of the programs that are started with `env`. The monotonic one is real."""

    def __init__(self, folder: Path, now: str) -> None:
        self._file = folder / "faketime"
        self.set(now)

    def set(self, now: str) -> None:
        """The clock jumps to ``YYYY-MM-DD hh:mm:ss``, in UTC, and stands there."""
        seconds = int(datetime.fromisoformat(f"{now}+00:00").timestamp())
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds}\n")
        os.replace(new, self._file)

    def env(self, zone: str = "UTC") -> dict[str, str]:
        assert LIBRARY is not None
        return {
            "TZ": zone,
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_FMT": "%s",
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
