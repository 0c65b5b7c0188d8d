"""Lock files: one holder, whom the file names, and nobody else who could hold it."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from msgd.archive.archive import Archive
from msgd.errors import Fatal
from msgd.process.lockfile import Lock, PidFile
from tests.lab import mounts

each = pytest.mark.parametrize("name", [".msgd.lock", "pid"])


def make(path: Path) -> Lock | PidFile:
    return PidFile(str(path)) if path.name == "pid" else Lock(str(path.parent))


@each
@pytest.mark.parametrize("left", [False, True], ids=["new", "left by an older msgd"])
def test_nobody_else_may_open_it(tmp_path: Path, name: str, left: bool) -> None:
    path = tmp_path / name
    if left:
        path.touch(0o666)
        path.chmod(0o644)
    lock = make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.close(lock.fd)


@each
def test_another_process_that_holds_it_is_told_apart_from_msgd(tmp_path: Path, name: str) -> None:
    """Its number is not that of the msgd that was there last, which is dead."""
    path = tmp_path / name
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, check=True).stdout  # fmt: skip
    path.write_bytes(dead)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(Fatal, match=r"another process holds this lock; fuser\(1\)"):
            make(path)
        path.write_text(f"{os.getpid()}\n")
        with pytest.raises(Fatal, match=f"pid {os.getpid()}"):
            make(path)
        path.write_text("")
        with pytest.raises(Fatal, match="pid not yet known"):
            make(path)


def link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def hard_link(path: Path, victim: Path) -> None:
    os.link(victim, path)


@each
@pytest.mark.parametrize("put", [link, hard_link])
def test_links_to_the_files_of_others_are_not_followed(
    tmp_path: Path, name: str, put: Callable[[Path, Path], None]
) -> None:
    victim, path = tmp_path / "victim", tmp_path / name
    victim.write_text("1")
    victim.chmod(0o644)
    put(path, victim)
    with pytest.raises((OSError, Fatal)):
        make(path)
    assert victim.read_text() == "1"
    assert stat.S_IMODE(victim.stat().st_mode) == 0o644


@each
def test_a_dangling_link_makes_no_file_elsewhere(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises((OSError, Fatal)):
        make(path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_that_is_made_anew_is_locked_again(tmp_path: Path) -> None:
    lock = Lock(str(tmp_path))
    (tmp_path / ".msgd.lock").unlink()
    lock.renew()
    assert (tmp_path / ".msgd.lock").read_text().strip() == str(os.getpid())
    with pytest.raises(Fatal, match=f"another msgd .pid {os.getpid()}. writes there"):
        Lock(str(tmp_path))
    lock.release()
    Lock(str(tmp_path)).release()


def by_mode(directory: Path) -> None:
    directory.chmod(0o777)


def by_owner(directory: Path) -> None:
    os.chown(directory, 12345, -1)


@pytest.mark.parametrize(
    "open_it",
    [by_mode, pytest.param(by_owner, marks=pytest.mark.skipif(not mounts.IS_ROOT, reason="root"))],
)
def test_a_directory_that_others_can_write_to_is_warned_of(
    tmp_path: Path, open_it: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    for warned in False, True:
        archive = Archive(str(tmp_path), "always")
        archive.start("2026-03-01")
        archive.close()
        assert (f"{tmp_path}: other users can write there" in caplog.text) == warned
        open_it(tmp_path)
