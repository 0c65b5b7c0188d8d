"""Clients that misbehave in every way at once cost nobody else more than a moment."""

from __future__ import annotations

from tests.campaign import siege
from tests.conftest import Start


def test_a_siege(start: Start) -> None:
    result = siege.lay(start, lambda sent: sent < 10)
    assert result.peak < result.bound
