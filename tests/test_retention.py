"""Old days are deleted and finished days compressed, and at no moment is a day gone."""

from __future__ import annotations

import errno
import fcntl
import gzip
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from msgd.archive.housekeeper import Housekeeper
from tests.campaign import stall
from tests.campaign.packing import PROGRAM, TODAY, kill_while_compressing
from tests.conftest import Daemon, Start, wait_for
from tests.lab import fake, mounts

CONFIG = "listen: 127.0.0.1\n"

needs_clock = pytest.mark.skipif(fake.LIBRARY is None, reason="libfaketime is not installed")


def run(folder: Path, keep_days: int = 0, compress: str = "none", *spared: str) -> str:
    command = [sys.executable, "-I", PROGRAM, str(folder), TODAY, str(keep_days), compress]
    command += spared
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


ODD = [
    "2026-03-01.log.bak",
    "2026-03-1.log",
    "x2026-03-01.log",
    "notes",
    "2026-03-01",
    ".msgd.lock",
]


def test_only_finished_day_files_are_touched(tmp_path: Path) -> None:
    for name in (*ODD, "2026-03-10.log", "2026-03-11.log", "2026-04-01.log"):
        (tmp_path / name).write_text("a\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "2026-02-01.log").mkdir()
    (tmp_path / "2026-02-02.log").symlink_to("notes")
    (tmp_path / "current.log").symlink_to("2026-03-10.log")
    before = names(tmp_path)
    assert run(tmp_path, keep_days=1, compress="gzip") == ""
    assert names(tmp_path) == before


def test_days_older_than_the_limit_are_deleted(tmp_path: Path) -> None:
    for day in ("02-28", "03-06", "03-07", "03-08", "03-09", "03-10"):
        (tmp_path / f"2026-{day}.log").write_text("a\n")
    (tmp_path / "2026-03-05.log.gz").write_bytes(gzip.compress(b"a\n"))
    run(tmp_path, keep_days=3)
    assert names(tmp_path) == {f"2026-03-{day}.log" for day in ("07", "08", "09", "10")}


def test_compressing_keeps_bytes_mode_and_time(tmp_path: Path) -> None:
    day, data = tmp_path / "2026-03-01.log", random.Random(1).randbytes(3 << 20)
    day.write_bytes(data)
    day.chmod(0o640)
    os.utime(day, (1_000_000, 1_000_000))
    assert "compressed" in run(tmp_path, compress="gzip")
    packed = tmp_path / "2026-03-01.log.gz"
    assert names(tmp_path) == {packed.name}
    assert gzip.decompress(packed.read_bytes()) == data
    assert (packed.stat().st_mode & 0o777, packed.stat().st_mtime) == (0o640, 1_000_000)


def test_a_day_that_goes_on_after_it_was_compressed_keeps_both_parts(tmp_path: Path) -> None:
    (tmp_path / "2026-03-01.log.gz").write_bytes(gzip.compress(b"first\n"))
    (tmp_path / "2026-03-01.log").write_bytes(b"second\n")
    run(tmp_path, compress="gzip")
    assert names(tmp_path) == {"2026-03-01.log.gz"}
    assert gzip.decompress((tmp_path / "2026-03-01.log.gz").read_bytes()) == b"first\nsecond\n"


def test_a_day_without_messages_is_compressed_too(tmp_path: Path) -> None:
    (tmp_path / "2026-03-01.log").touch()
    assert run(tmp_path, compress="gzip") == f"<6>{tmp_path}/2026-03-01.log: compressed\n"
    assert gzip.decompress((tmp_path / "2026-03-01.log.gz").read_bytes()) == b""


def test_a_crash_between_the_gzip_and_the_deletion_doubles_nothing(tmp_path: Path) -> None:
    (tmp_path / "2026-03-01.log.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    (tmp_path / "2026-03-01.log").write_bytes(b"one\ntwo\n")
    run(tmp_path, compress="gzip")
    assert names(tmp_path) == {"2026-03-01.log.gz"}
    assert gzip.decompress((tmp_path / "2026-03-01.log.gz").read_bytes()) == b"one\ntwo\n"


@pytest.mark.parametrize("times", [0, 1000], ids=["new", "a second part"])
def test_killed_while_compressing_one_of_the_two_is_whole(tmp_path: Path, times: int) -> None:
    outcomes = kill_while_compressing(tmp_path, b"first\n" * times, 2 << 20, 3, seed=2)
    assert sum(outcomes.values()) == 3


def send(daemon: Daemon, text: bytes) -> None:
    with daemon.line_client() as client:
        assert client.ask(b"MESG " + text + b"\n") == b"MESG " + text + b"\n"


def old_days(folder: Path, *days: str) -> list[Path]:
    """Files that an earlier msgd has left."""
    archive = folder / "archive"
    archive.mkdir(parents=True)
    paths = [archive / f"{day}.log" for day in days]
    for path in paths:
        path.write_text(f"{path.stem}T12:00:00.000000+00:00 127.0.0.1:1 old\n")
    return paths


@needs_clock
def test_the_daemon_compresses_a_finished_day_and_deletes_an_old_one(
    start: Start, tmp_path: Path
) -> None:
    clock = fake.FakeClock(tmp_path, "2026-03-01 12:00:00")
    (old,) = old_days(tmp_path / "msgd", "2026-02-28")
    config = f"{CONFIG}compress: gzip\nkeep_days: 1\n"
    daemon = start(config, folder=tmp_path / "msgd", env=clock.env())
    send(daemon, b"one")
    wait_for(lambda: not old.exists())
    clock.set("2026-03-02 12:00:00")
    send(daemon, b"two")
    wait_for(lambda: not (daemon.log_directory / "2026-03-01.log").exists())
    day = daemon.log_directory / "2026-03-01.log.gz"
    assert gzip.decompress(day.read_bytes()).endswith(b" one\n")
    daemon.wait_log("2026-02-28.log.gz: deleted, older than 1 days")


@needs_clock
def test_a_clock_that_is_put_right_deletes_nothing_that_was_just_archived(
    start: Start, tmp_path: Path
) -> None:
    """A machine without a battery starts in 1970; then it hears what time it is."""
    clock = fake.FakeClock(tmp_path, "1970-01-01 00:00:10")
    (old,) = old_days(tmp_path / "msgd", "2026-01-01")
    config = f"{CONFIG}keep_days: 30\n"
    daemon = start(config, folder=tmp_path / "msgd", env=clock.env())
    send(daemon, b"one")
    clock.set("2026-03-10 12:00:00")
    send(daemon, b"two")
    daemon.wait_log("the clock has jumped from 1970-01-01 to 2026-03-10; nothing is deleted before")
    clock.set("2026-03-11 12:00:00")  # the next day: what was old before is old now
    send(daemon, b"three")
    daemon.wait_log(f"{old}: deleted, older than 30 days")
    assert [path.stem for path in daemon.files()] == ["1970-01-01", "2026-03-10", "2026-03-11"]


@needs_clock
def test_a_clock_that_jumps_ahead_for_a_while_deletes_nothing(start: Start, tmp_path: Path) -> None:
    clock = fake.FakeClock(tmp_path, "2026-03-10 12:00:00")
    (kept,) = old_days(tmp_path / "msgd", "2026-03-01")
    config = f"{CONFIG}keep_days: 30\ncompress: gzip\n"
    daemon = start(config, folder=tmp_path / "msgd", env=clock.env())
    daemon.wait_log(f"{kept}: compressed")
    clock.set("2036-03-10 12:00:00")
    send(daemon, b"in another decade")
    daemon.wait_log("2026-03-10.log: compressed")  # the run is over
    clock.set("2026-03-10 13:00:00")
    send(daemon, b"back")
    assert Path(f"{kept}.gz").exists()


def test_what_this_process_wrote_lately_is_spared_and_what_it_wrote_long_ago_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1e6
    monkeypatch.setattr("msgd.archive.housekeeper.elapsed", lambda: now)
    written = {"1970-01-01": now - 29 * 86400, "2026-01-01": now - 30 * 86400 - 1}
    assert Housekeeper("/", written)._spared(30) == ["1970-01-01"]


def test_a_day_that_comes_in_its_time_is_no_jump(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A daemon that looks late, as after a night asleep."""
    times = iter([5.0, 9.0, 3 * 86400.0 + 5, 3 * 86400.0 + 9])
    monkeypatch.setattr("msgd.archive.housekeeper.elapsed", lambda: next(times))
    keeper = Housekeeper("/")
    for day in "2026-03-01", "2026-03-02", "2026-03-05":
        keeper.wish(day)
    assert "jumped" not in caplog.text
    keeper.wish("2026-03-07")
    assert "the clock has jumped from 2026-03-05 to 2026-03-07" in caplog.text


def children(pid: int) -> list[int]:
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def halt_compression(daemon: Daemon, left: Path) -> int:
    """Stop the helper in the middle of its file, on a machine of any speed; its process id."""

    def is_in_the_middle() -> bool:
        for child in children(daemon.pid):
            os.kill(child, signal.SIGSTOP)
            if left.exists():
                return True
            os.kill(child, signal.SIGCONT)
        return False

    wait_for(is_in_the_middle)
    (child,) = children(daemon.pid)
    return child


@pytest.mark.thorough
@needs_clock
def test_a_clock_set_back_to_the_day_that_is_compressed(start: Start, tmp_path: Path) -> None:
    """What is archived in a day's file from then on must not be deleted with it."""
    clock = fake.FakeClock(tmp_path, "2026-03-02 12:00:00")
    folder = tmp_path / "msgd"
    day = folder / "archive" / "2026-03-01.log"
    day.parent.mkdir(parents=True)
    day.write_bytes(random.Random(4).randbytes(16 << 20) + b"\n")
    daemon = start(f"{CONFIG}compress: gzip\n", folder=folder, env=clock.env())
    halt_compression(daemon, folder / "archive" / ".2026-03-01.log.gz.new")
    clock.set("2026-03-01 12:00:00")
    send(daemon, b"back")
    assert not children(daemon.pid)
    assert day.read_bytes().endswith(b" back\n")
    clock.set("2026-03-02 12:00:00")
    send(daemon, b"forth")
    daemon.wait_log("2026-03-01.log: compressed")
    with gzip.open(f"{day}.gz") as unpacked:
        unpacked.seek(16 << 20)
        assert unpacked.read().endswith(b" back\n")


@needs_clock
@pytest.mark.skipif(not mounts.IS_ROOT, reason="only root can mount file systems")
def test_a_compression_that_fails_is_reported_and_tried_again_the_next_day(
    start: Start, tmp_path: Path
) -> None:
    clock = fake.FakeClock(tmp_path, "2026-03-02 12:00:00")
    folder = tmp_path / "small"
    data = random.Random(3).randbytes(512 << 10).replace(b"\0", b"\1")  # NULs are damage
    with mounts.tmpfs(folder / "archive", "768k"):
        day = folder / "archive" / "2026-03-01.log"
        day.write_bytes(data + b"\n")
        daemon = start(f"{CONFIG}compress: gzip\n", folder=folder, env=clock.env())
        daemon.wait_log("2026-03-01.log: .*No space left on device; tried again tomorrow")
        assert day.read_bytes() == data + b"\n"
        send(daemon, b"what it had begun does not keep the disk full")
        mounts.resize(daemon.log_directory, "4m")
        clock.set("2026-03-03 12:00:00")
        send(daemon, b"next day")
        daemon.wait_log("2026-03-01.log: compressed")
        assert gzip.decompress(day.with_suffix(".log.gz").read_bytes()) == data + b"\n"
        assert daemon.stop() == 0


@pytest.mark.thorough
def test_messages_are_archived_while_a_day_is_compressed(start: Start, tmp_path: Path) -> None:
    stalled = stall.measure(start, tmp_path / "stall", 8 << 20, seconds=0.1)
    assert stalled.during.waits


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), ImportError("Too many open files")]
)
def test_without_a_descriptor_for_retention_the_daemon_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("subprocess.Popen", fail)
    keeper = Housekeeper("/")
    keeper.wish("2026-03-02")
    keeper.step(1, "none")
    assert caplog.messages == ["retention: cannot start: Too many open files; tried again tomorrow"]
    assert not keeper.running


def a_long_run(start: Start, folder: Path) -> tuple[Daemon, Path, int]:
    """A daemon that is compressing, what is made there, and the helper, which is stopped."""
    (day,) = old_days(folder, "2026-03-01")
    day.write_bytes(random.Random(4).randbytes(16 << 20) + b"\n")
    daemon = start(f"{CONFIG}compress: gzip\n", folder=folder)
    left = day.with_name(f".{day.name}.gz.new")
    return daemon, left, halt_compression(daemon, left)


def test_what_a_killed_compression_has_left_goes_although_compression_is_off(
    start: Start, tmp_path: Path
) -> None:
    daemon, left, child = a_long_run(start, tmp_path / "msgd")
    daemon.kill()
    os.kill(child, signal.SIGKILL)
    assert left.exists()
    start(CONFIG, folder=tmp_path / "msgd")
    wait_for(lambda: not left.exists())


def test_what_is_still_being_compressed_stays(start: Start, tmp_path: Path) -> None:
    """The helper of a daemon that was killed goes on."""
    daemon, left, child = a_long_run(start, tmp_path / "msgd")
    daemon.kill()
    assert run(tmp_path / "msgd" / "archive") == ""
    assert left.exists()
    os.kill(child, signal.SIGKILL)


def test_a_child_that_does_not_end_holds_up_no_stop(start: Start, tmp_path: Path) -> None:
    daemon, _, child = a_long_run(start, tmp_path / "msgd")
    assert daemon.stop() == 0
    assert not Path(f"/proc/{child}").exists()


def test_a_child_that_cannot_even_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one does that waits for a disk that does not answer."""
    monkeypatch.setattr("msgd.archive.housekeeper._PROGRAM", str(tmp_path / "hangs.py"))
    monkeypatch.setattr("msgd.archive.housekeeper._STOP_SECONDS", 0.01)
    (tmp_path / "hangs.py").write_text("input()\nimport time\ntime.sleep(60)\n")
    monkeypatch.setattr("subprocess.Popen.kill", lambda _: None)
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(60)\n")
    keeper = Housekeeper(str(tmp_path))
    keeper.wish("2026-03-02")
    keeper.step(1, "none")
    child = keeper._child
    assert child is not None
    keeper.stop()
    assert f"process {child.pid} was killed and does not end; going on" in caplog.text
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


def test_its_lines_are_logged_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("msgd.archive.housekeeper._PROGRAM", str(tmp_path / "talks.py"))
    (tmp_path / "talks.py").write_text(
        "import sys, time\nprint('<6>a: deleted', flush=True)\n"
        "sys.stderr.write('unf')\nsys.stderr.flush()\ntime.sleep(60)\n"
    )
    keeper = Housekeeper(str(tmp_path))
    keeper.wish("2026-03-02")
    keeper.step(1, "none")

    def said() -> bool:
        keeper.step(1, "none")
        return "a: deleted" in caplog.messages

    wait_for(said)
    assert keeper.running
    keeper.stop()


@pytest.mark.parametrize("kind", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_a_lock_of_somebody_else_keeps_no_day_from_being_compressed(
    tmp_path: Path, kind: int
) -> None:
    """Whoever may read the archive can lock its files."""
    path = tmp_path / "2026-03-01.log"
    path.write_text("a\n")
    path.chmod(0o640)
    with path.open() as file:
        fcntl.flock(file, kind)
        assert run(tmp_path, compress="gzip") == f"<6>{path}: compressed\n"
    assert names(tmp_path) == {f"{path.name}.gz"}


def test_what_is_being_made_can_be_opened_by_nobody_else(start: Start, tmp_path: Path) -> None:
    _, left, _ = a_long_run(start, tmp_path / "msgd")
    assert left.stat().st_mode & 0o777 == 0o600


def test_links_of_others_are_not_followed(tmp_path: Path) -> None:
    """In a directory that somebody else can write to."""
    archive, victim = tmp_path / "archive", tmp_path / "victim"
    archive.mkdir()
    victim.write_text("precious")
    day = archive / "2026-03-01.log"
    day.write_text("a\n")
    (archive / ".2026-03-01.log.gz.new").symlink_to(victim)
    os.link(victim, archive / "2026-03-02.log")
    (archive / "2026-03-03.log").write_text("b\n")
    (archive / "2026-03-03.log.gz").symlink_to(victim)
    run(archive, compress="gzip")
    assert gzip.decompress((archive / "2026-03-01.log.gz").read_bytes()) == b"a\n"
    run(archive, keep_days=1)
    assert victim.read_text() == "precious"


def test_a_damaged_gzip_is_one_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "2026-03-01.log.gz").write_bytes(gzip.compress(b"first\n" * 99)[:-20] + b"x" * 20)
    for day in ("2026-03-01", "2026-03-02"):
        (tmp_path / f"{day}.log").write_bytes(b"second\n")
    said = run(tmp_path, compress="gzip").splitlines()
    assert [line[:3] for line in said] == ["<3>", "<6>"]
    assert names(tmp_path) == {"2026-03-01.log", "2026-03-01.log.gz", "2026-03-02.log.gz"}


def test_a_directory_that_cannot_be_listed_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    assert run(folder) == (
        f"<3>{folder}: [Errno 2] No such file or directory: '{folder}'; tried again tomorrow\n"
    )
