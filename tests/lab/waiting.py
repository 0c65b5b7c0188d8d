"""Waiting for a condition; no test ever sleeps and hopes."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 60.0  # the deadline of every wait; nothing waits that long unless it is broken


def wait_for(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until the condition holds; fail when it does not in time."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"{what} did not come about"
        time.sleep(0.005)
