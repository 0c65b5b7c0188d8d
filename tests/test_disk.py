"""Disks that are full or broken, directories that are not as they must be: FAIL, never a lie."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from msgd.archive.archive import Archive
from msgd.archive.final import read_final
from msgd.archive.records import MARK
from msgd.config.values import KeepFree
from tests.conftest import Client, Start, cpu_seconds, wait_for
from tests.lab import fake, mounts, tracing
from tests.lab.check import verify
from tests.lab.load import Sender
from tests.lab.manager import Manager

CONFIG = "listen: 127.0.0.1\nlimits: {keep_free: 0}\n"  # down to the last byte
FAIL = b"FAIL archive cannot be written\n"
RESUMED = "is being written again"

as_root = pytest.mark.skipif(not mounts.IS_ROOT, reason="only root can mount file systems")
needs_clock = pytest.mark.skipif(fake.LIBRARY is None, reason="libfaketime is not installed")
with_strace = pytest.mark.skipif(not tracing.is_installed(), reason="strace is not installed")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A daemon's folder, whose log directory is a file system of 256 KiB."""
    folder = tmp_path / "small"
    with mounts.tmpfs(folder / "archive", "256k"):
        yield folder


def until_fail(client: Client, text: bytes = b"x" * 1000) -> int:
    """Send until a message is refused; how many were taken before."""
    message = b"MESG " + text + b"\n"
    for taken in range(10_000):
        if (reply := client.ask(message)) != message:
            assert reply == FAIL
            return taken
    raise AssertionError("never refused")


@as_root
def test_full_disk_refuses_what_does_not_fit_and_goes_on_by_itself(
    start: Start, small: Path
) -> None:
    msgd = start(CONFIG, folder=small)
    senders = [Sender(f"full-{number}", msgd.port) for number in range(4)]
    for sender in senders:
        sender.start()
    wait_for(lambda: all(len(sender.refused) > 50 for sender in senders), "the disk is full")
    mounts.resize(msgd.log_directory, "512m")
    enough = [sender.echoed - len(sender.refused) + 200 for sender in senders]
    wait_for(
        lambda: all(
            sender.echoed - len(sender.refused) > more
            for sender, more in zip(senders, enough, strict=True)
        ),
        "messages are archived again",
    )
    for sender in senders:
        sender.stop()
        sender.join()
    msgd.wait_log(RESUMED)
    verify(msgd.archive(), senders)
    assert len(re.findall("No space left on device", msgd.log)) == 1
    assert len(re.findall(RESUMED, msgd.log)) == 1


@as_root
def test_a_seldom_message_to_a_full_disk_is_no_news(
    start: Start, small: Path, tmp_path: Path
) -> None:
    with closing(Manager(tmp_path)) as manager:
        msgd = start(CONFIG, folder=small, env=manager.env())
        with msgd.line_client() as client:
            until_fail(client)
            for _ in range(3):
                manager.wait_beats(15)
                assert client.ask(b"MESG " + b"y" * 2000 + b"\n") == FAIL
    assert len(re.findall("No space left on device", msgd.log)) == 1
    assert RESUMED not in msgd.log


@as_root
def test_full_disk_from_the_start(start: Start, small: Path) -> None:
    (small / "archive" / "ballast").write_bytes(b"x" * (256 << 10))
    msgd = start(CONFIG, folder=small)
    with msgd.line_client() as client:
        assert client.ask(b"MESG lost\n") == FAIL
        (small / "archive" / "ballast").unlink()
        assert client.ask(b"MESG kept\n") == b"MESG kept\n"
    assert msgd.texts() == ["kept"]


@as_root
def test_a_batch_larger_than_the_room_leaves_no_part_of_a_record(start: Start, small: Path) -> None:
    msgd = start(CONFIG, folder=small)
    texts = [b"%d " % number + b"x" * 50_000 for number in range(10)]
    with msgd.line_client() as client:
        client.send(b"".join(b"MESG " + text + b"\n" for text in texts))
        replies = [client.line() for _ in texts]
    echoed = [text for text, reply in zip(texts, replies, strict=True) if reply != FAIL]
    assert 0 < len(echoed) < len(texts)
    assert msgd.texts() == [text.decode() for text in echoed]


@with_strace
@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("EIO", "Input/output error"),
        ("EROFS", "Read-only file system .mount it read-write"),  # as ext4 with errors=remount-ro
        ("EDQUOT", "Disk quota exceeded .raise the quota"),
    ],
)
def test_write_error_is_answered_with_fail_and_passes(
    start: Start, tmp_path: Path, error: str, words: str
) -> None:
    inject = f"--inject=writev:error={error}:when=2..4"
    msgd = start(CONFIG, wrapper=tracing.wrapper(tmp_path / "trace", inject))
    with msgd.line_client() as client:
        replies = [client.ask(b"MESG %d\n" % number) for number in range(6)]
        msgd.wait_log(RESUMED)
    assert replies == [b"MESG 0\n", FAIL, FAIL, FAIL, b"MESG 4\n", b"MESG 5\n"]
    assert msgd.texts() == ["0", "4", "5"]
    assert len(re.findall(words, msgd.log)) == len(re.findall(RESUMED, msgd.log)) == 1


@with_strace
def test_failed_sync_ends_the_daemon_without_an_echo(start: Start, tmp_path: Path) -> None:
    inject = "--inject=fdatasync:error=EIO:when=2"
    msgd = start(CONFIG, wrapper=tracing.wrapper(tmp_path / "trace", inject))
    with msgd.line_client() as client, msgd.line_client() as other:
        assert client.ask(b"MESG durable\n") == b"MESG durable\n"
        assert client.ask(b"MESG not known to be\n") == b""
        assert other.rest() == b""
    assert msgd.wait() == 1
    assert "fdatasync: Input/output error" in msgd.log
    assert "has not been echoed" in msgd.log


@with_strace
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_a_disk_that_turns_out_to_be_full_in_the_sync(
    start: Start, tmp_path: Path, error: str
) -> None:
    """As NFS and quotas may tell: FAIL, nothing of it stays, and it goes on by itself."""
    inject = f"--inject=fdatasync:error={error}:when=2..3"
    msgd = start(CONFIG, wrapper=tracing.wrapper(tmp_path / "trace", inject))
    with msgd.line_client() as client:
        replies = [client.ask(b"MESG %d\n" % number) for number in range(5)]
        msgd.wait_log(RESUMED)
    assert replies == [b"MESG 0\n", FAIL, FAIL, b"MESG 3\n", b"MESG 4\n"]
    assert msgd.texts() == ["0", "3", "4"]
    assert msgd.stop() == 0


@with_strace
def test_with_sync_second_such_a_disk_is_an_error_in_the_log(start: Start, tmp_path: Path) -> None:
    inject = "--inject=fdatasync:error=ENOSPC:when=1"
    trace = tracing.wrapper(tmp_path / "trace", inject)
    msgd = start(f"{CONFIG}sync: second\n", wrapper=trace)
    with msgd.line_client() as client:
        assert client.ask(b"MESG a\n") == b"MESG a\n"
        msgd.wait_log("what was echoed lately may not outlast a power failure")
        assert client.ask(b"MESG b\n") == b"MESG b\n"
    assert msgd.texts() == ["a", "b"]
    assert msgd.stop() == 0


@with_strace
@pytest.mark.parametrize("sync", ["always", "second"])
def test_failed_sync_of_the_directory_ends_the_daemon(
    start: Start, tmp_path: Path, sync: str
) -> None:
    inject = "--inject=fsync:error=EIO:when=2+"
    trace = tracing.wrapper(tmp_path / "trace", inject)
    msgd = start(f"{CONFIG}sync: {sync}\n", wrapper=trace, ready=False)
    assert msgd.wait() == 1
    assert "archive: fsync: Input/output error" in msgd.log


def test_without_descriptors_it_serves_who_is_there_and_does_not_spin(start: Start) -> None:
    msgd = start(CONFIG)
    resource.prlimit(msgd.pid, resource.RLIMIT_NOFILE, (40, 40))
    with ExitStack() as stack:
        first = stack.enter_context(msgd.line_client())
        clients = [stack.enter_context(msgd.connect()) for _ in range(60)]
        msgd.wait_log("cannot accept connections: Too many open files; new clients wait")
        used = cpu_seconds(msgd.pid)
        assert [first.ask(b"MESG %d\n" % n) for n in range(5)] == [
            b"MESG %d\n" % n for n in range(5)
        ]
        time.sleep(1)  # the window in which its processor time is measured
        assert cpu_seconds(msgd.pid) - used < 0.5
        for client in clients[:50]:
            client.close()
        clients[-1].send(b"PING\n")
        clients[-1].expect(b"PONG\n")
        msgd.wait_log("accepting connections again")
    assert len(re.findall("cannot accept", msgd.log)) == 1
    assert len(re.findall("accepting connections again", msgd.log)) == 1


def test_without_descriptors_a_new_file_can_be_made(start: Start) -> None:
    """As at midnight: the file takes the descriptor of the old one, its directory needs another."""
    msgd = start(CONFIG)
    resource.prlimit(msgd.pid, resource.RLIMIT_NOFILE, (40, 40))
    with msgd.line_client() as client, ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(msgd.connect())
        msgd.wait_log("cannot accept connections")
        (path,) = msgd.files()
        path.unlink()
        assert client.ask(b"MESG kept\n") == b"MESG kept\n"
    assert msgd.texts() == ["kept"]


@with_strace
def test_a_machine_without_descriptors(start: Start, tmp_path: Path) -> None:
    inject = "--trace=accept4", "--inject=accept4:error=ENFILE:when=2..3"
    msgd = start(CONFIG, wrapper=tracing.wrapper(tmp_path / "trace", *inject))
    with msgd.line_client() as first, msgd.line_client() as second:  # the second waits a while
        assert first.ask(b"MESG a\n") + second.ask(b"MESG b\n") == b"MESG a\nMESG b\n"
    assert len(re.findall("Too many open files in system; new clients wait", msgd.log)) == 1


def test_log_directory_that_is_removed_and_comes_back(start: Start) -> None:
    msgd = start(CONFIG)
    with msgd.line_client() as client:
        assert client.ask(b"MESG gone\n") == b"MESG gone\n"
        shutil.rmtree(msgd.log_directory)
        assert client.ask(b"MESG refused\n") == FAIL
        assert client.ask(b"MESG refused too\n") == FAIL
        msgd.wait_log("No such file or directory .make the directory")
        msgd.log_directory.mkdir()
        assert client.ask(b"MESG kept\n") == b"MESG kept\n"
    assert msgd.texts() == ["kept"]
    assert len(re.findall("No such file or directory", msgd.log)) == 1


def test_log_directory_becomes_a_file_for_a_while(start: Start) -> None:
    msgd = start(CONFIG)
    away = msgd.log_directory.with_suffix(".away")
    with msgd.line_client() as client:
        assert client.ask(b"MESG before\n") == b"MESG before\n"
        msgd.log_directory.rename(away)
        msgd.log_directory.touch()
        assert [client.ask(b"MESG refused\n") for _ in range(5)] == [FAIL] * 5
        msgd.log_directory.unlink()
        away.rename(msgd.log_directory)
        assert client.ask(b"MESG after\n") == b"MESG after\n"
        msgd.wait_log(RESUMED)
    assert msgd.texts() == ["before", "after"]
    words = "Not a directory .choose a log_directory that is a directory"
    assert len(re.findall(words, msgd.log)) == len(re.findall(RESUMED, msgd.log)) == 1


def test_a_file_that_may_not_be_used_leaks_no_descriptor(start: Start) -> None:
    """A hard link: its other name may be somebody else's file."""
    msgd = start(CONFIG)
    (path,) = msgd.files()
    other = msgd.folder / "other"
    other.write_text("not ours")
    with msgd.line_client() as client:
        before = len(os.listdir(f"/proc/{msgd.pid}/fd"))
        path.unlink()
        os.link(other, path)
        assert [client.ask(b"MESG refused\n") for _ in range(5)] == [FAIL] * 5
        msgd.wait_log(f"{path}: not a regular file with one name .msgd writes to regular files")
        path.unlink()
        assert client.ask(b"MESG a\n") == b"MESG a\n"
        assert len(os.listdir(f"/proc/{msgd.pid}/fd")) == before
    assert other.read_text() == "not ours"


@with_strace
def test_a_client_that_cannot_be_watched_is_closed(start: Start, tmp_path: Path) -> None:
    """As where fs.epoll.max_user_watches is reached."""
    inject = "--trace=epoll_ctl", "--inject=epoll_ctl:error=ENOSPC:when=12+"
    msgd = start(CONFIG, wrapper=tracing.wrapper(tmp_path / "trace", *inject))
    with ExitStack() as stack:
        clients = [stack.enter_context(msgd.connect()) for _ in range(12)]
        msgd.wait_log("closed: it cannot be watched: No space left on device")
        assert clients[-1].rest() == b""
        assert clients[0].ask(b"PING\n") == b"PONG\n"
        assert clients[0].ask(b"MESG kept\n") == b"MESG kept\n"
    assert msgd.texts() == ["kept"]


@with_strace
def test_a_listener_that_cannot_be_watched_again_at_once(start: Start, tmp_path: Path) -> None:
    """First there is no descriptor for a client, and then, after the pause, no memory to watch."""
    inject = "accept4:error=EMFILE:when=1", "epoll_ctl:error=ENOSPC:when=4"
    options = "--trace=accept4,epoll_ctl", *(f"--inject={call}" for call in inject)
    trace = tmp_path / "trace"
    msgd = start(CONFIG, wrapper=tracing.wrapper(trace, *options))
    with msgd.line_client() as client:
        assert client.ask(b"MESG kept\n") == b"MESG kept\n"
    assert "ENOSPC" in trace.read_text()
    msgd.wait_log("accepting connections again")


def test_a_reload_after_the_mend_is_good_news(start: Start) -> None:
    msgd = start(CONFIG)
    (path,) = msgd.files()
    with msgd.line_client() as client:
        path.rename(path.with_suffix(".moved"))
        path.mkdir()
        assert client.ask(b"MESG refused\n") == FAIL
    path.rmdir()
    msgd.signal(signal.SIGHUP)
    msgd.wait_log(RESUMED)


@as_root
def test_a_reload_on_a_full_disk_is_no_news(start: Start, small: Path, tmp_path: Path) -> None:
    with closing(Manager(tmp_path)) as manager:
        msgd = start(CONFIG, folder=small, env=manager.env())
        with msgd.line_client() as client:
            until_fail(client)
            msgd.signal(signal.SIGHUP)
            msgd.wait_log("configuration read again")
            manager.wait_beats(15)
            assert client.ask(b"MESG " + b"y" * 2000 + b"\n") == FAIL
    assert RESUMED not in msgd.log


@needs_clock
def test_what_stands_in_the_way_of_a_new_day_is_named(start: Start, tmp_path: Path) -> None:
    clock = fake.FakeClock(tmp_path, "2026-03-01 12:00:00")
    msgd = start(CONFIG, env=clock.env())
    (msgd.log_directory / "2026-03-02.log").mkdir()
    with msgd.line_client() as client:
        clock.set("2026-03-02 12:00:00")
        assert client.ask(b"MESG refused\n") == FAIL
        msgd.wait_log("2026-03-02.log: Is a directory .msgd writes to regular files only")


@needs_clock
def test_a_torn_line_is_ended_although_a_later_day_is_there(start: Start, tmp_path: Path) -> None:
    """The clock was ahead once, and is right again."""
    clock = fake.FakeClock(tmp_path, "2026-03-04 12:00:00")
    archive = tmp_path / "msgd" / "archive"
    archive.mkdir(parents=True)
    for day, text in ("03", "a\ntorn"), ("09", "b\n"):
        (archive / f"2026-03-{day}.log").write_text(text)
    (archive / "current.log").symlink_to("2026-03-03.log")
    start(CONFIG, folder=tmp_path / "msgd", env=clock.env())
    assert (archive / "2026-03-03.log").read_text() == "a\ntorn\x18\n"
    assert (archive / "2026-03-09.log").read_text() == "b\n"


@as_root
def test_some_of_the_disk_stays_free(start: Start, small: Path) -> None:
    msgd = start("listen: 127.0.0.1\nlimits: {keep_free: 50%}\n", folder=small)
    with msgd.line_client() as client:
        taken = until_fail(client)
        assert 100 < taken < 130  # records of a bit more than 1000 bytes, into 128 KiB
        mounts.resize(msgd.log_directory, "512k")
        assert client.ask(b"MESG kept\n") == b"MESG kept\n"
        msgd.wait_log(RESUMED)
    assert msgd.texts()[taken:] == ["kept"]
    assert msgd.log.count("less than limits.keep_free is free (free some space)") == 1


@as_root
def test_what_others_write_is_seen_in_time(start: Start, small: Path) -> None:
    msgd = start("listen: 127.0.0.1\nlimits: {keep_free: 131072}\n", folder=small)
    with msgd.line_client() as client:
        assert client.ask(b"MESG a\n") == b"MESG a\n"
        (msgd.log_directory / "ballast").write_bytes(b"x" * (130 << 10))
        wait_for(lambda: client.ask(b"MESG b\n") == FAIL, "the refusal")
        msgd.config.write_text("listen: 127.0.0.1\nlimits: {keep_free: 0}\n")
        msgd.signal(signal.SIGHUP)
        msgd.wait_log("configuration read again")
        assert client.ask(b"MESG c\n") == b"MESG c\n"


# What is only convenient ----------------------------------------------------------------------


@with_strace
def test_a_link_that_cannot_be_made_stops_no_message(start: Start, tmp_path: Path) -> None:
    """As where there is no inode left, or no link may be made."""
    inject = "--trace=symlink,rename", "--inject=symlink:error=EPERM"
    msgd = start(CONFIG, wrapper=tracing.wrapper(tmp_path / "trace", *inject))
    with msgd.line_client() as client:
        for number in range(3):
            msgd.files()[0].unlink()
            assert client.ask(b"MESG %d\n" % number) == b"MESG %d\n" % number
    link = msgd.log_directory / "current.log"
    assert msgd.log.count(f"{link}: cannot be made: Operation not permitted") == 1
    assert "refused" not in msgd.log


def test_what_stands_at_the_link_is_named_and_left(start: Start, tmp_path: Path) -> None:
    link = tmp_path / "msgd" / "archive" / "current.log"
    link.mkdir(parents=True)
    msgd = start(CONFIG, folder=tmp_path / "msgd")
    with msgd.line_client() as client:
        assert client.ask(b"MESG kept\n") == b"MESG kept\n"
    assert f"{link}: is not a symbolic link; left as it is" in msgd.log
    assert link.is_dir()


def test_a_link_that_is_removed_comes_back(start: Start, tmp_path: Path) -> None:
    with closing(Manager(tmp_path)) as manager:
        msgd = start(CONFIG, env=manager.env())
        link = msgd.log_directory / "current.log"
        link.unlink()
        wait_for(link.is_symlink, "the link")
        link.unlink()
        link.symlink_to("elsewhere")
        wait_for(link.exists, "the link's right place")


@pytest.mark.parametrize("name", [".msgd.state", ".msgd.final", ".msgd.state.new"])
def test_other_conveniences_do_not_either(start: Start, tmp_path: Path, name: str) -> None:
    (tmp_path / "msgd" / "archive" / name).mkdir(parents=True)
    msgd = start(CONFIG, folder=tmp_path / "msgd")
    with msgd.line_client() as client:
        assert client.ask(b"MESG kept\n") == b"MESG kept\n"
    assert name.removesuffix(".new") in msgd.log
    assert msgd.stop() == 0


def test_an_older_file_that_cannot_be_mended_stops_no_start(start: Start, tmp_path: Path) -> None:
    torn = tmp_path / "msgd" / "archive" / "2020-01-01.log"
    torn.parent.mkdir(parents=True)
    torn.write_text("half a li")
    os.link(torn, tmp_path / "another name")
    msgd = start(CONFIG, folder=tmp_path / "msgd")
    assert f"{torn}: not a regular file with one name" in msgd.log
    assert torn.read_text() == "half a li"


def test_a_file_system_that_tells_nothing_of_its_size_has_no_limit(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.room.keep_free = KeepFree(percent=1.0)
    nothing = os.statvfs_result((0,) * 10)
    monkeypatch.setattr(os, "statvfs", lambda _: nothing)
    assert put(archive, RECORD) == 1


# What others do to the file -------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(str(tmp_path / "archive"), "always")
    archive.start(DAY)
    with closing(archive):
        yield archive


DAY = "2026-03-01"
RECORD = b"2026-03-01T00:00:00.000000+00:00 127.0.0.1:1/a:007+1 two\n\tlines\n"


def day_file(archive: Archive) -> Path:
    return Path(archive.directory) / f"{DAY}.log"


def put(archive: Archive, *records: bytes) -> int:
    return archive.commit([[record] for record in records], DAY)


@pytest.mark.parametrize("cut", [5, 8, len(RECORD) - 30], ids=["text", "lines", "head"])
def test_a_record_never_goes_on_where_somebody_has_cut(archive: Archive, cut: int) -> None:
    assert put(archive, RECORD) == 1
    os.truncate(day_file(archive), len(RECORD) - cut)
    assert put(archive, RECORD) == 1
    assert day_file(archive).read_bytes() == RECORD[:-cut] + MARK + RECORD


def test_nor_behind_half_a_line_of_somebody_else(archive: Archive) -> None:
    for line, between in (b"a note\n", b""), (b"half a no", MARK):
        with day_file(archive).open("ab") as file:
            file.write(line)
        before = day_file(archive).read_bytes()
        assert put(archive, RECORD) == 1
        assert day_file(archive).read_bytes() == before + between + RECORD


def fail_after(monkeypatch: pytest.MonkeyPatch, size: int, then: Callable[[], None]) -> None:
    """The next write takes so many bytes; before the second something happens, and it fails."""
    write = os.writev

    def short(fd: int, parts: list[bytes]) -> int:
        monkeypatch.setattr(os, "writev", full)
        return write(fd, [b"".join(parts)[:size]])

    def full(*_: object) -> int:
        monkeypatch.setattr(os, "writev", write)
        then()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "writev", short)


def test_only_what_is_ours_is_cut_back(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    assert put(archive, RECORD) == 1
    fail_after(monkeypatch, len(RECORD) + 9, lambda: None)
    assert put(archive, RECORD, RECORD) == 1
    assert day_file(archive).read_bytes() == RECORD * 2


def test_what_somebody_cuts_meanwhile_is_not_made_longer(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To make room: the file must not begin with NULs then."""
    assert put(archive, *[RECORD] * 50) == 50
    fail_after(monkeypatch, 40, lambda: os.truncate(day_file(archive), 0))
    assert put(archive, RECORD) == 0
    assert day_file(archive).read_bytes() == b""
    assert put(archive, RECORD) == 1
    assert day_file(archive).read_bytes() == RECORD


def test_what_somebody_adds_meanwhile_is_not_cut(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add() -> None:
        with day_file(archive).open("ab") as file:
            file.write(b"a note\n")

    fail_after(monkeypatch, 40, add)
    assert put(archive, RECORD) == 0
    kept = RECORD[:40] + b"a note\n"
    assert put(archive, RECORD) == 1
    data = day_file(archive).read_bytes()
    assert data.startswith(kept)
    assert data.endswith(b"\n" + RECORD)


def away(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    path.with_suffix(".new").write_bytes(b"another\n")
    path.with_suffix(".new").rename(path)


@pytest.mark.parametrize("change", [away, replaced])
def test_a_file_that_goes_during_the_sync(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    """The echo would be for a record that is in no file: it is written again."""
    sync = os.fdatasync

    def slow(fd: int) -> None:
        monkeypatch.setattr(os, "fdatasync", sync)
        change(day_file(archive))
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", slow)
    assert put(archive, RECORD, RECORD) == 2
    assert day_file(archive).read_bytes().endswith(RECORD * 2)
    assert read_final(archive.directory) == (DAY, day_file(archive).stat().st_size)


def test_a_file_that_goes_again_and_again_is_refused(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda _: day_file(archive).unlink())
    assert put(archive, RECORD) == 0
    assert "is moved or deleted again and again" in archive.refusing
    monkeypatch.setattr(os, "fdatasync", sync)
    assert put(archive, RECORD) == 1


def test_what_is_taken_back_is_only_what_was_written_last(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has cut the file before, and the disk turns out to be full in the sync."""
    assert put(archive, *[RECORD] * 50) == 50
    os.truncate(day_file(archive), len(RECORD))

    def full(_: int) -> None:
        monkeypatch.undo()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    assert put(archive, RECORD) == 0
    assert day_file(archive).read_bytes() == RECORD
    assert put(archive, RECORD) == 1
    assert day_file(archive).read_bytes() == RECORD * 2


def test_more_entries_than_one_call_takes_are_written_whole(archive: Archive) -> None:
    for size in 10, 1000:
        records = [b"%d\n" % number * size for number in range(5000)]
        before = day_file(archive).read_bytes()
        assert put(archive, *records) == 5000
        assert day_file(archive).read_bytes() == before + b"".join(records)


def replace_by_symlink(path: Path) -> None:
    (path.parent / "elsewhere").touch()
    path.symlink_to("elsewhere")


REPLACED = [
    (replace_by_symlink, "regular files only; move the symbolic link away"),
    (Path.mkdir, "regular files only; move the directory away"),
    (os.mkfifo, "regular files only; move it away"),
]


@pytest.mark.parametrize(("make", "words"), REPLACED)
def test_todays_file_is_something_else_at_the_start(
    start: Start, make: Callable[[Path], object], words: str
) -> None:
    first = start(CONFIG)
    assert first.stop() == 0
    (path,) = first.files()
    path.unlink()
    make(path)
    msgd = start(folder=first.folder, ready=False)
    assert msgd.wait() == 1
    assert f"{path}: " in msgd.log
    assert words in msgd.log


@pytest.mark.parametrize(("make", "words"), REPLACED)
def test_todays_file_becomes_something_else(
    start: Start, make: Callable[[Path], object], words: str
) -> None:
    msgd = start(CONFIG)
    (path,) = msgd.files()
    with msgd.line_client() as client:
        path.rename(path.with_suffix(".moved"))
        make(path)
        assert client.ask(b"MESG refused\n") == FAIL
        assert words in msgd.log
        path.rename(path.with_suffix(".odd"))
        assert client.ask(b"MESG kept\n") == b"MESG kept\n"
    assert msgd.texts() == ["kept"]


def test_log_directory_is_a_file(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a" / "archive").parent.mkdir()
    (tmp_path / "a" / "archive").touch()
    msgd = start(CONFIG, folder=tmp_path / "a", ready=False)
    assert msgd.wait() == 1
    assert "archive: File exists (choose a log_directory that is a directory)" in msgd.log


# Root may write everywhere, unless it has given that capability away.
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") * mounts.IS_ROOT


def test_log_directory_is_not_permitted(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a" / "archive").mkdir(0o555, parents=True)
    msgd = start(CONFIG, folder=tmp_path / "a", wrapper=UNPRIVILEGED, ready=False)
    assert msgd.wait() == 1
    assert "Permission denied (let the user that msgd runs as write there)" in msgd.log


def test_todays_file_is_not_permitted_any_more(start: Start) -> None:
    msgd = start(CONFIG, wrapper=UNPRIVILEGED)
    with msgd.line_client() as client:
        (path,) = msgd.files()
        path.chmod(0o440)
        msgd.signal(signal.SIGHUP)
        msgd.wait_log("Permission denied .let the user that msgd runs as write there")
        assert client.ask(b"MESG refused\n") == FAIL
        path.chmod(0o640)
        assert client.ask(b"MESG kept\n") == b"MESG kept\n"
    assert msgd.texts() == ["kept"]


@as_root
def test_log_directory_is_read_only(start: Start, small: Path) -> None:
    mounts.make_read_only(small / "archive")
    msgd = start(CONFIG, folder=small, ready=False)
    assert msgd.wait() == 1
    assert "Read-only file system (mount it read-write" in msgd.log
