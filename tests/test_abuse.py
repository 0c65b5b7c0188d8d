"""Clients that misbehave in every way at once cost nobody else more than a moment."""

from __future__ import annotations

from pathlib import Path

from tests.campaign import siege
from tests.conftest import Start


def test_a_siege(start: Start, tmp_path: Path) -> None:
    result = siege.lay(start, tmp_path, lambda sent: sent < 10)
    assert result.peak < result.bound
    assert result.busy_after < 0.2
    assert result.busy_stuck < 0.2
