"""The soak of the campaign, for a moment: clients of every kind, and two days."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaign import soak
from tests.conftest import Start
from tests.lab import fake

pytestmark = pytest.mark.skipif(fake.LIBRARY is None, reason="libfaketime is not installed")


@pytest.mark.thorough
def test_every_number_adds_up(start: Start, tmp_path: Path) -> None:
    said: list[str] = []
    result = soak.soak(start, tmp_path / "run", 2, said.append, day_seconds=1)
    assert result.startswith("2 days; ")
    assert any("idle at the end" in line for line in said)
