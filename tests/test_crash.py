"""A daemon that is killed, and a power cut: nothing that was echoed is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaign import crash, loop, power
from tests.conftest import Start
from tests.lab import fake, mounts, tracing


def test_killed_at_random_moments(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    outcome = crash.campaign(start, folder, lambda so_far: so_far.cycles < 6, seed=1)
    assert outcome.echoed > 0


@pytest.mark.skipif(not tracing.is_installed(), reason="strace is not installed")
@pytest.mark.skipif(fake.LIBRARY is None, reason="libfaketime is not installed")
def test_power_cut_at_any_moment(start: Start, tmp_path: Path) -> None:
    calls, senders = power.record(start, tmp_path, messages=100)
    mended, looked_for = power.check_states(calls, senders, tmp_path / "disk", count=150, seed=3)
    assert mended > 0
    assert looked_for > 1000


@pytest.mark.skipif(not tracing.is_installed(), reason="strace is not installed")
@pytest.mark.skipif(fake.LIBRARY is None, reason="libfaketime is not installed")
@pytest.mark.parametrize("left_out", ["fdatasync", "fsync"])
def test_the_proof_sees_a_sync_that_is_left_out(
    start: Start, tmp_path: Path, left_out: str
) -> None:
    calls, senders = power.record(start, tmp_path, messages=5)
    without = [call for call in calls if call.name != left_out]
    with pytest.raises(AssertionError, match="echoed and lost"):
        power.check_states(without, senders, tmp_path / "disk", count=100, seed=3)


@pytest.mark.skipif(not mounts.can_mount_ext4(), reason="only root can mount a loop device")
def test_power_cut_on_a_real_file_system(start: Start, tmp_path: Path) -> None:
    cuts, tested = loop.campaign(start, tmp_path / "loop", lambda cuts: cuts < 3, seed=4)
    assert cuts == 3
    assert tested > 0
