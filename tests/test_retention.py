"""Old days are deleted and finished days compressed, and at no moment is a day gone."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign import stall
from tests.campaign.packing import PROGRAM, TODAY, kill_while_compressing
from tests.conftest import Daemon, Start, wait_for
from tests.lab import fake, mounts, tracing

CONFIG = "listen: 127.0.0.1\n"

needs_clock = pytest.mark.skipif(fake.LIBRARY is None, reason="libfaketime is not installed")


def run(folder: Path, keep_days: int = 0, compress: str = "none") -> str:
    command = [sys.executable, "-I", PROGRAM, str(folder), TODAY, str(keep_days), compress]
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


def test_a_crash_between_the_gzip_and_the_deletion_doubles_nothing(tmp_path: Path) -> None:
    (tmp_path / "2026-03-01.log.gz").write_bytes(gzip.compress(b"one\ntwo\n"))
    (tmp_path / "2026-03-01.log").write_bytes(b"one\ntwo\n")
    run(tmp_path, compress="gzip")
    assert names(tmp_path) == {"2026-03-01.log.gz"}
    assert gzip.decompress((tmp_path / "2026-03-01.log.gz").read_bytes()) == b"one\ntwo\n"


@pytest.mark.parametrize("times", [0, 1000], ids=["new", "a second part"])
def test_killed_while_compressing_one_of_the_two_is_whole(tmp_path: Path, times: int) -> None:
    outcomes = kill_while_compressing(tmp_path, b"first\n" * times, 4 << 20, 8, seed=2)
    assert sum(outcomes.values()) == 8


def send(daemon: Daemon, text: bytes) -> None:
    with daemon.line_client() as client:
        assert client.ask(b"MESG " + text + b"\n") == b"MESG " + text + b"\n"


@needs_clock
def test_the_daemon_compresses_a_finished_day_and_deletes_an_old_one(
    start: Start, tmp_path: Path
) -> None:
    clock = fake.FakeClock(tmp_path, "2026-03-01 12:00:00")
    daemon = start(f"{CONFIG}compress: gzip\nkeep_days: 1\n", env=clock.env())
    send(daemon, b"one")
    clock.set("2026-03-02 12:00:00")
    send(daemon, b"two")
    day = daemon.log_directory / "2026-03-01.log.gz"
    wait_for(lambda: not (daemon.log_directory / "2026-03-01.log").exists())
    assert gzip.decompress(day.read_bytes()).endswith(b" one\n")
    clock.set("2026-03-03 12:00:00")
    send(daemon, b"three")
    wait_for(lambda: not day.exists())
    daemon.wait_log("2026-03-01.log.gz: deleted, older than 1 days")
    assert daemon.texts()[-1] == "three"


@needs_clock
def test_a_clock_set_back_to_the_day_that_is_compressed(start: Start, tmp_path: Path) -> None:
    """What is archived in a day's file from then on must not be deleted with it."""
    clock = fake.FakeClock(tmp_path, "2026-03-02 12:00:00")
    folder = tmp_path / "msgd"
    day = folder / "archive" / "2026-03-01.log"
    day.parent.mkdir(parents=True)
    day.write_bytes(random.Random(4).randbytes(32 << 20) + b"\n")
    daemon = start(f"{CONFIG}compress: gzip\n", folder=folder, env=clock.env())
    wait_for(lambda: (folder / "archive" / ".2026-03-01.log.gz.new").exists())
    clock.set("2026-03-01 12:00:00")
    send(daemon, b"back")
    assert not children(daemon.pid)
    assert day.read_bytes().endswith(b" back\n")
    clock.set("2026-03-02 12:00:00")
    send(daemon, b"forth")
    daemon.wait_log("2026-03-01.log: compressed")
    with gzip.open(f"{day}.gz") as unpacked:
        unpacked.seek(32 << 20)
        assert unpacked.read().endswith(b" back\n")


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


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


def test_messages_are_archived_while_a_day_is_compressed(start: Start, tmp_path: Path) -> None:
    stalled = stall.measure(start, tmp_path / "stall", 8 << 20, seconds=0.1)
    assert stalled.during.waits


@pytest.mark.skipif(not tracing.is_installed(), reason="strace is not installed")
def test_without_a_descriptor_for_retention_the_daemon_goes_on(
    start: Start, tmp_path: Path
) -> None:
    inject = "--trace=memfd_create", "--inject=memfd_create:error=EMFILE"
    trace = tracing.wrapper(tmp_path / "trace", *inject)
    daemon = start(f"{CONFIG}compress: gzip\n", wrapper=trace)
    daemon.wait_log("retention: cannot start: Too many open files; tried again tomorrow")
    send(daemon, b"served")


def test_a_damaged_gzip_is_one_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "2026-03-01.log.gz").write_bytes(gzip.compress(b"first\n" * 99)[:-20] + b"x" * 20)
    for day in ("2026-03-01", "2026-03-02"):
        (tmp_path / f"{day}.log").write_bytes(b"second\n")
    said = run(tmp_path, compress="gzip").splitlines()
    assert [line.partition(" ")[0] for line in said] == ["error", "info"]
    assert names(tmp_path) == {"2026-03-01.log", "2026-03-01.log.gz", "2026-03-02.log.gz"}


def test_a_directory_that_cannot_be_listed_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    assert run(folder) == (
        f"error {folder}: [Errno 2] No such file or directory: '{folder}'; tried again tomorrow\n"
    )
