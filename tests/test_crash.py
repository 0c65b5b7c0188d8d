"""A daemon that is killed, and a power cut: nothing that was echoed is lost."""

from __future__ import annotations

from pathlib import Path

from tests.campaign import crash
from tests.conftest import Start


def test_killed_at_random_moments(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    outcome = crash.campaign(start, folder, lambda so_far: so_far.cycles < 6, seed=1)
    assert outcome.echoed > 0
