"""Clients that misbehave in every way at once cost nobody else more than a moment."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import pytest

from tests.campaign import outbreak, siege, sleepers, worst
from tests.conftest import Start


@pytest.mark.thorough
def test_a_siege(start: Start, tmp_path: Path) -> None:
    result = siege.lay(start, tmp_path, lambda sent: sent < 10)
    assert result.peak < result.bound
    assert result.busy_after < 0.2
    assert result.busy_stuck < 0.2


@pytest.mark.parametrize("genes", worst.known(), ids=repr)
def test_the_worst_traffic_costs_a_bounded_number_of_calls(genes: worst.Genes) -> None:
    """And twice as much of it costs twice as much: of what a search has found (worst.txt)."""
    half, whole = (count_calls(worst.traffic(genes)[: n << 10]) for n in (8, 16))
    assert whole < 9 * (16 << 10)
    assert whole < 2.2 * half + 100


def count_calls(data: bytes) -> int:
    """Calls of functions of Python, and of C, while the protocol takes this."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        worst.run(data, worst.BITE)
    finally:
        sys.setprofile(before)
    return calls


QUICK = "hellos", "session"  # over TLS, and in a session


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind in QUICK else pytest.mark.thorough)
        for kind in sleepers.KINDS
    ],
)
def test_an_outbreak(start: Start, tmp_path: Path, kind: str) -> None:
    result = outbreak.lay(start, tmp_path, kind, 200, lambda sent: sent < 30)
    assert result.peak < result.bound
