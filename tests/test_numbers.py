"""The numbers of sessions: found again after every kind of end, and never but the archive's."""

from __future__ import annotations

import errno
import gzip
import logging
import os
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from msgd.archive.archive import _STATE_BYTES, Archive
from msgd.archive.final import read_final
from msgd.archive.reader import records
from msgd.archive.records import MARK, Form
from msgd.archive.scan import scan, split
from msgd.archive.sessions import Sessions
from msgd.archive.state import NAME, State, decode

DAY, NEXT, BEFORE = "2026-11-23", "2026-11-24", "2026-11-22"


def record(
    session: str, number: int, text: str = "a line", owner: str = "", day: str = DAY
) -> bytes:
    form = Form("127.0.0.1:40312" + (f"@{owner}" if owner else ""))
    form.at(f"{day}T02:51:07.123456+00:00".encode())
    if session:
        form.open(session, number)
    return form.message(text.encode())


@contextmanager
def opened(
    folder: Path, day: str = DAY, sync: str = "always", sessions: int = 10_000
) -> Iterator[Archive]:
    """An archive that is stopped as asked at the end."""
    with closing(started(folder, day, sync, sessions)) as archive:
        yield archive


def started(folder: Path, day: str = DAY, sync: str = "always", sessions: int = 9) -> Archive:
    archive = Archive(str(folder), sync, sessions=sessions)
    archive.start(day)
    return archive


def put(
    archive: Archive,
    session: str,
    *numbers: int,
    text: str = "a line",
    owner: str = "",
    day: str = DAY,
) -> None:
    """As the server does: commit, note."""
    batch = [[record(session, number, text, owner, day)] for number in numbers]
    assert archive.commit(batch, day) == len(numbers)
    archive.sessions.note(owner, session, numbers[-1])


def kill(archive: Archive) -> None:
    """As kill -9 does: nothing is written any more, and the lock is free."""
    archive._states.wait()
    archive._forget_file()
    archive.lock.release()


# -- the table ---------------------------------------------------------------------------------


def test_the_session_unused_for_longest_is_forgotten_first() -> None:
    table = Sessions(3)
    for number, name in enumerate("abc", 1):
        table.note("", name, number)
    assert table.last("", "a") == 1  # which is a use
    table.note("", "d", 4)
    assert [table.last("", name) for name in "abcd"] == [1, 0, 3, 4]


def test_a_session_that_is_open_is_not_forgotten_first() -> None:
    table = Sessions(2)
    for name in "ab":
        table.note("", name, 7)
    table.hold("", "a")
    table.note("", "c", 7)
    assert [table.last("", name) for name in "abc"] == [7, 0, 7]
    table.release("", "a")
    for name in "xyz":
        table.note("", name, 1)
    assert (table.last("", "a"), len(table)) == (0, 2)


def test_where_nearly_all_are_open_the_bound_is_kept_all_the_same() -> None:
    table = Sessions(1000)
    for number in range(990):
        table.note("", f"open{number}", 5)
        table.hold("", f"open{number}")
    for number in range(10_000):
        table.note("", f"closed{number}", 1)
    assert len(table) <= 1000 + 990 // 16
    assert all(table.last("", f"open{number}") == 5 for number in range(990))


def test_owners_have_sessions_of_their_own() -> None:
    table = Sessions(10)
    table.note("web1", "nightly", 5)
    assert (table.last("", "nightly"), table.last("web1", "nightly")) == (0, 5)


# -- what is read ------------------------------------------------------------------------------

PIECES = [
    record("nightly", 1501),
    record("nightly", 1502, "two\nlines"),
    record("nightly", 1503, "three\n\nof them"),
    record("a", 7, owner="web1"),
    record("", 0),
    record("", 0, "no session\nand two lines"),
    record("", 0, "/nightly:1600 only in the text"),
    b"somebody else's line\n",
    b"\x18\n",
    b"2026-11-23T02:51:07.123456+00:00 127.0.0.1:40312/nightly:1504+2 half\n\tof it\n",
    b"2026-11-23T02:51:07.123456+00:00 127.0.0.1:40312/nightly:15\x18\n",
    b"\0" * 30 + b"rest of a line\n",
    b"\0" * 9,
    b"2026-11-23T02:51:07.123456+00:00 127.0.0.1:40312/nightly:1505 torn",
]  # fmt: skip


def numbers(data: bytes) -> dict[tuple[str, str], int]:
    """By the reader, which goes through all records one by one."""
    found = {}
    for one in records([data]):
        if one.session:
            found[one.name.decode(), one.session.decode()] = one.number
    return found


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.integers(1, 400))
@example(PIECES, 7)
def test_the_scan_and_the_reader_find_the_same(pieces: list[bytes], size: int) -> None:
    data = b"".join(pieces)
    found = scan(data[at : at + size] for at in range(0, len(data), size))
    assert {split(key): number for key, number in found.last.items()} == numbers(data)


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.lists(st.sampled_from(PIECES[:4])))
def test_what_comes_behind_a_mark_counts(pieces: list[bytes], later: list[bytes]) -> None:
    found = scan([b"".join(pieces)])
    found = scan([*pieces, b"" if found.whole else MARK, *later])
    assert found.whole
    assert {split(key): number for key, number in found.last.items()} == {
        **numbers(b"".join(pieces)),
        **numbers(b"".join(later)),
    }


# -- starts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", ["always", "second", "never"])
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_the_numbers_are_there_again(tmp_path: Path, sync: str, end: str) -> None:
    archive = Archive(str(tmp_path), sync)
    archive.start(DAY)
    put(archive, "nightly", 1, 2, 3)
    put(archive, "b", 41, owner="web1", text="two\nlines")
    put(archive, "nightly", 5)
    if end == "stopped":
        archive.close()
    else:
        kill(archive)
    with opened(tmp_path, sync=sync) as again:
        assert again.sessions.all() == [(("web1", "b"), 41), (("", "nightly"), 5)]


def test_the_order_of_use_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path, sessions=3) as archive:
        for name in "abca":
            put(archive, name, 9)
    with opened(tmp_path, sessions=3) as archive:
        put(archive, "d", 1)
        assert [archive.sessions.last("", name) for name in "abcd"] == [9, 0, 9, 1]


TORN = [
    b"2026-11-23T02:51:07.123456+00:00 127.0.0.1:40312/nightly:004 half a line",
    b"2026-11-23T02:51:07.123456+00:00 127.0.0.1:40312/nightly:004+2 half\n\tof its lines\n",
    b"2026-11-23T02:51:07.123456+00:00 127.0.0.1:40312/nightly:004+1 half\n\tof its ",
    b"\0" * 5000,
    b"\0" * 50 + b"\n" + record("nightly", 4),  # a whole record behind what was lost
]


@pytest.mark.parametrize("torn", TORN, ids=["line", "lines", "further line", "NULs", "hole"])
def test_what_was_never_echoed_does_not_count_and_is_marked(tmp_path: Path, torn: bytes) -> None:
    archive = started(tmp_path)
    put(archive, "nightly", 1, 2, 3)
    kill(archive)
    path = tmp_path / f"{DAY}.log"
    before = path.read_bytes() + torn
    path.write_bytes(before)
    for _ in range(2):  # a mark ends the damage: the second start adds nothing
        with opened(tmp_path) as again:
            assert again.sessions.last("", "nightly") == 3
        assert path.read_bytes() == before + MARK
    again = started(tmp_path)
    put(again, "nightly", 4)
    kill(again)
    with opened(tmp_path) as again:
        assert again.sessions.last("", "nightly") == 4


@pytest.mark.parametrize("line", [b"a note\n", b"\ta note\n", record("nightly", 3)])
def test_an_end_that_is_whole_gets_no_mark(tmp_path: Path, line: bytes) -> None:
    with opened(tmp_path) as archive:
        put(archive, "nightly", 1, 2, 3)
    path = tmp_path / f"{DAY}.log"
    before = path.read_bytes() + line
    path.write_bytes(before)
    with opened(tmp_path) as archive:
        assert archive.sessions.last("", "nightly") == 3
    assert path.read_bytes() == before


def test_a_torn_end_of_yesterday_is_marked(tmp_path: Path) -> None:
    archive = started(tmp_path)
    put(archive, "nightly", 1)
    kill(archive)
    path = tmp_path / f"{DAY}.log"
    before = path.read_bytes() + TORN[1]
    path.write_bytes(before)
    with opened(tmp_path, NEXT) as again:
        assert again.sessions.last("", "nightly") == 1
    assert path.read_bytes() == before + MARK


def some_days(folder: Path) -> None:
    """Three days with a session that goes on, and one of them compressed."""
    with opened(folder, BEFORE) as archive:
        put(archive, "nightly", 1, 2, day=BEFORE)
        put(archive, "old", 3, day=BEFORE)
        put(archive, "nightly", 3, 4, day=DAY)
        put(archive, "nightly", 5, day=NEXT)
    path = folder / f"{BEFORE}.log"
    path.with_suffix(".log.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def damage(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b"session 5 ", b"session 6 "))


@pytest.mark.parametrize("harm", [Path.unlink, damage, lambda path: path.write_bytes(b"")])
def test_without_a_sound_state_all_days_are_read(
    tmp_path: Path, harm: object, caplog: pytest.LogCaptureFixture
) -> None:
    some_days(tmp_path)
    harm(tmp_path / NAME)  # type: ignore[operator]
    with opened(tmp_path, NEXT) as archive:
        assert dict(archive.sessions.all()) == {("", "old"): 3, ("", "nightly"): 5}
    assert len([one for one in caplog.messages if "reading 3 day files" in one]) == 1


def test_the_service_manager_hears_that_it_takes_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_days(tmp_path)
    (tmp_path / NAME).unlink()
    said = list[str]()
    monkeypatch.setattr("msgd.archive.recovery.notify", said.append)
    with opened(tmp_path, NEXT):
        assert said == ["EXTEND_TIMEOUT_USEC=30000000"] * 3


def test_a_sound_state_reads_nothing_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    some_days(tmp_path)
    with opened(tmp_path, NEXT) as archive:
        assert dict(archive.sessions.all()) == {("", "old"): 3, ("", "nightly"): 5}
    assert caplog.messages == []


@pytest.mark.parametrize("harm", ["gone", "shorter", "another"])
def test_a_state_that_does_not_fit_is_not_believed(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    some_days(tmp_path)
    path = tmp_path / f"{NEXT}.log"
    if harm == "gone":
        path.unlink()
    elif harm == "shorter":
        os.truncate(path, 0)
    else:
        path.write_bytes(record("nightly", 1, "b" * 6, day=NEXT))
    with opened(tmp_path, NEXT) as archive:
        assert dict(archive.sessions.all()) == {("", "old"): 3, ("", "nightly"): 4}
    assert "does not fit the archive, and is not believed" in caplog.text


def test_a_file_that_the_state_does_not_know_is_read(tmp_path: Path) -> None:
    """A new day was begun, and its state could not be written any more."""
    some_days(tmp_path)
    later = "2026-11-25"
    (tmp_path / f"{later}.log").write_bytes(record("nightly", 6, day=later) + TORN[0])
    with opened(tmp_path, later) as archive:
        assert archive.sessions.last("", "nightly") == 6
    assert (tmp_path / f"{later}.log").read_bytes().endswith(TORN[0] + MARK)


def test_a_state_that_is_days_old_is_as_good(tmp_path: Path) -> None:
    """It could not be written any more; its own file has grown before the next was begun."""
    archive = started(tmp_path, BEFORE)
    put(archive, "nightly", 1, day=BEFORE)
    archive._states.wait()
    old = (tmp_path / NAME).read_bytes()
    put(archive, "nightly", 2, day=BEFORE)
    put(archive, "nightly", 3, 4, day=DAY)
    put(archive, "nightly", 5, day=NEXT)
    kill(archive)
    (tmp_path / NAME).write_bytes(old)
    with opened(tmp_path, NEXT) as again:
        assert again.sessions.last("", "nightly") == 5


def test_a_clock_set_back_loses_no_number(tmp_path: Path) -> None:
    archive = Archive(str(tmp_path), "always")
    archive.start(NEXT)
    put(archive, "nightly", 1, 2, day=NEXT)
    put(archive, "nightly", 3, 4, day=BEFORE)
    put(archive, "b", 1, day=NEXT)
    kill(archive)
    for remove in False, True:
        if remove:
            (tmp_path / NAME).unlink()
        with opened(tmp_path, BEFORE) as again:
            assert dict(again.sessions.all()) == {("", "nightly"): 4, ("", "b"): 1}


def test_a_gzip_that_cannot_be_read_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    some_days(tmp_path)
    (tmp_path / NAME).unlink()
    (tmp_path / f"{BEFORE}.log.gz").write_bytes(b"no gzip at all")
    with opened(tmp_path, NEXT) as archive:
        assert dict(archive.sessions.all()) == {("", "nightly"): 5}
    assert f"{BEFORE}.log.gz: cannot be read" in caplog.text


def test_a_file_that_was_moved_away_takes_no_number_with_it(tmp_path: Path) -> None:
    archive = started(tmp_path)
    put(archive, "nightly", 1, 2)
    (tmp_path / f"{DAY}.log").rename(tmp_path / "elsewhere")
    put(archive, "b", 1)
    assert archive.sessions.last("", "nightly") == 2
    kill(archive)
    with opened(tmp_path) as again:
        assert dict(again.sessions.all()) == {("", "nightly"): 2, ("", "b"): 1}


def test_the_state_is_written_behind_so_many_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_STATE_BYTES, "always", 500)
    archive = started(tmp_path)
    written = set()
    for number in range(1, 40):
        put(archive, "nightly", number)
        archive._states.wait()
        state = decode((tmp_path / NAME).read_bytes())
        assert state is not None
        data = (tmp_path / f"{DAY}.log").read_bytes()[: state.offset]
        assert dict(state.sessions) == numbers(data)
        written.add(state.offset)
    assert len(written) > 3
    kill(archive)


def test_a_state_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f"{NAME}.new").mkdir()
    archive = started(tmp_path)
    put(archive, "nightly", 1)
    put(archive, "nightly", 2, day=NEXT)
    kill(archive)
    assert f"{NAME}: cannot be written" in caplog.text
    (tmp_path / f"{NAME}.new").rmdir()
    with opened(tmp_path, NEXT) as again:
        assert again.sessions.last("", "nightly") == 2


def test_a_disk_that_cannot_be_read_back_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setitem(_STATE_BYTES, "always", 1)
    with opened(tmp_path) as archive, monkeypatch.context() as bad:
        bad.setattr(os, "pread", fail)
        put(archive, "nightly", 1)
        put(archive, "nightly", 2)
        archive.roll(DAY)
    with opened(tmp_path) as archive:
        assert archive.sessions.last("", "nightly") == 2


def test_without_a_thread_to_write_the_state_messages_are_archived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with opened(tmp_path) as archive:
        monkeypatch.setattr("threading.Thread.start", fail)
        put(archive, "nightly", 1, day=NEXT)
        put(archive, "nightly", 2, day=DAY)
        assert caplog.text.count("cannot be written: can't start new thread") == 1
    with opened(tmp_path) as archive:  # what is written at the stop needs no thread
        assert archive.sessions.last("", "nightly") == 2


def test_a_state_reads_as_it_was_written() -> None:
    chance = random.Random(5)
    sessions = [
        ((chance.choice(["", "web-1.x"]), f"s_{number}.-"), chance.randrange(1, 1 << 63))
        for number in range(100)
    ]
    state = State(
        "second", f"{DAY}.log", 77, 0xAB, {f"{DAY}.log": 77, f"{BEFORE}.log.gz": 5}, sessions
    )
    data = state.encode()
    assert decode(data) == state
    for _ in range(300):
        at = chance.randrange(len(data))
        assert (
            decode(data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :])
            is None
        )
        assert decode(data[:at]) is None


# -- how far the archive is final --------------------------------------------------------------


def final(folder: Path) -> tuple[str, int]:
    told = read_final(str(folder))
    assert told is not None
    return told.day, told.offset


def test_final_is_renewed_with_each_commit_and_day(tmp_path: Path) -> None:
    with opened(tmp_path) as archive:
        assert final(tmp_path) == (DAY, 0)
        for day in DAY, DAY, NEXT, DAY:
            put(archive, "nightly", 1, day=day)
            assert final(tmp_path) == (day, (tmp_path / f"{day}.log").stat().st_size)
        (tmp_path / f"{DAY}.log").unlink()
        put(archive, "nightly", 9)
        assert final(tmp_path) == (DAY, len(record("nightly", 9)))
        (tmp_path / ".msgd.final").unlink()
        archive.roll(DAY)
        assert final(tmp_path) == (DAY, len(record("nightly", 9)))
    assert final(tmp_path) == (DAY, len(record("nightly", 9)))


def test_final_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".msgd.final").mkdir()
    with opened(tmp_path) as archive:
        put(archive, "nightly", 1)
        archive.roll(DAY)
        assert caplog.text.count("programs that follow the archive wait") == 1
        (tmp_path / ".msgd.final").rmdir()
        archive.roll(DAY)
        assert final(tmp_path)[1] == len(record("nightly", 1))


logging.getLogger("msgd").propagate = True
