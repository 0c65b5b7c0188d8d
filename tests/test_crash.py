"""A daemon that is killed, and a power cut: nothing that was echoed is lost."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.campaign import crash, loop, power
from tests.conftest import Start
from tests.lab import fake, mounts, tracing

thorough = pytest.mark.thorough


@pytest.mark.parametrize("kills", [2, pytest.param(6, marks=thorough)])
def test_killed_at_random_moments(start: Start, tmp_path: Path, kills: int) -> None:
    folder = tmp_path / "killed"
    outcome = crash.campaign(start, folder, lambda so_far: so_far.cycles < kills, seed=1)
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


@thorough
@pytest.mark.skipif(not mounts.can_mount_ext4(), reason="only root can mount a loop device")
def test_power_cut_on_a_real_file_system(start: Start, tmp_path: Path) -> None:
    cuts, tested = loop.campaign(start, tmp_path / "loop", lambda cuts: cuts < 3, seed=4)
    assert cuts == 3
    assert tested > 0


# How one msgd ends, and when the next one starts.
LIVES = [
    ("2026-03-01", "2026-03-02", "stopped"),  # over midnight
    ("2026-03-02", "2026-03-02", "killed"),
    ("2026-03-02", "2026-03-04", "killed"),
    ("2026-03-03", "2026-03-01", "killed"),  # the clock is set back, to a day that is compressed
    ("2026-03-05", "2026-03-06", "killed, and the state is lost"),
    ("2026-03-01", "2026-03-07", "stopped, and today's file is moved away"),
    ("2026-03-07", "2026-03-08", "killed"),
]


@pytest.mark.skipif(fake.LIBRARY is None, reason="libfaketime is not installed")
@pytest.mark.parametrize(
    "sync", ["always", *(pytest.param(sync, marks=thorough) for sync in ("second", "never"))]
)
def test_a_session_goes_on_whatever_happens(start: Start, tmp_path: Path, sync: str) -> None:
    config = f"listen: 127.0.0.1\nsync: {sync}\ncompress: gzip\n"
    clock = fake.FakeClock(tmp_path, "2026-03-01 12:00:00")
    archive, last = tmp_path / "msgd" / "archive", 0
    for day, later, end in LIVES:
        clock.set(f"{day} 12:00:00")
        msgd = start(config, folder=tmp_path / "msgd", env=clock.env())
        for now in day, later:
            clock.set(f"{now} 13:00:00")
            with msgd.line_client() as client:
                assert client.ask(b"SESS nightly\n") == b"SESS %d\n" % last
                client.send(b"MESG a\nMORE b\nMESG c\n")
                client.expect(b"MESG a\nMORE b\nMESG c\n")
            last += 2
            msgd.signal(signal.SIGHUP)
        if end.startswith("killed"):
            msgd.kill()
        else:
            assert msgd.stop() == 0
        if "state" in end:
            (archive / ".msgd.state").unlink()
        if "moved" in end:
            (archive / f"{later}.log").rename(tmp_path / "elsewhere")
            last -= 2  # it is as if these had never been: nothing but the archive is believed
