"""What msgd-relay decides, without a server: blocks, cursors, places, the order of a consumer."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.archive.source import Day
from msgd.relay.answers import Reply, parse_headers
from msgd.relay.blocks import (
    BLOCK,
    EXPECTED,
    HEADER_BYTES,
    OFFSET,
    SOURCE,
    Finished,
    Message,
    Part,
    cut,
    cut_long,
    done_days,
    headers,
    parse_subject,
    read_done,
    write_done,
)
from msgd.relay.collect import Collect
from msgd.relay.connecting import version_warning
from msgd.relay.copies import Copies
from msgd.relay.copyfile import Copy, Differs, Put, first_difference, place
from msgd.relay.cursor import Progress, resume, sums
from msgd.relay.engine import Engine
from msgd.relay.errors import Denied
from msgd.relay.following import BATCH, Consumer, Gap, Numbers, Order, from_sequence
from msgd.relay.housekeeping import Calendar
from msgd.relay.options import load
from msgd.relay.program import Program
from msgd.relay.ship import Ship
from msgd.relay.standing import Standing

DAY = "2026-11-20"


@pytest.mark.parametrize("node", ["a", "web-1_X", "n" * 64])
def test_subjects(node: str) -> None:
    part = Part(node, DAY, 12)
    assert parse_subject(part.subject) == part
    assert Part(node, DAY, 1).name == f"{DAY}.log"
    assert part.name == f"{DAY}.12.log"


@pytest.mark.parametrize(
    "subject",
    [
        "msgd.web1.done",
        "msgd.web1.2026-11-20",
        "msgd.web1.2026-11-20.0",
        "msgd.web1.2026-11-20.01",
        "msgd.web1.2026-11-20.1.x",
        "msgd...2026-11-20.1",
        "msgd.../2026-11-20.1",
        f"msgd.{'n' * 65}.2026-11-20.1",
        "other.web1.2026-11-20.1",
    ],
)
def test_what_is_no_subject_of_ours(subject: str) -> None:
    assert parse_subject(subject) is None


def test_headers_are_never_longer_than_planned() -> None:
    found = headers(10**18, "f" * 32, 2**64 - 1)
    raw = "NATS/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in found.items())
    assert len(raw + "\r\n") <= HEADER_BYTES
    assert parse_headers(raw.encode()) == found


def test_done() -> None:
    days = {f"2026-11-{day:02d}": Finished(1, day, "ab", 5) for day in range(1, 30)}
    assert read_done(write_done(days, 100)) == days
    assert list(read_done(write_done(days, 10))) == list(days)[-10:]
    largest = {
        f"{at}-01-01": Finished(10**8, 1 << 62, "f" * 64, 1 << 62) for at in range(2000, 2500)
    }
    for payload in (1 << 15, 100_000):
        assert len(write_done(largest, done_days(payload))) + HEADER_BYTES <= payload
    for strange in (b"", b"[]", b'{"days": 1}', b'{"days": {"x": 1}}', b'{"days": {"x": {}}}'):
        assert read_done(strange) == {}


def test_a_block_has_whole_records() -> None:
    data = b"one\n\tmore\ntwo\nthree\n"
    assert cut(data, len(data)) == len(data)
    assert cut(data[:15], 14) == 14  # the byte behind shows that a record ends here
    assert cut(data[:14], 13) == 10
    assert cut(data[:10], 9) == 0  # the first one may go on
    assert cut_long(data, 100) == 10
    assert cut_long(data, 7) == 7
    assert cut_long(b"one", 100) == 3


@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=4), max_size=20),
    st.integers(1, 60),
    st.integers(0, 60),
)
def test_blocks_are_the_file(records: list[list[int]], size: int, more: int) -> None:
    """Whatever the limits: in order, nothing twice, and cut in a record only if it is too long."""
    whole = [b"\n\t".join(b"x" * length for length in record) + b"\n" for record in records]
    data, most, at, ends = b"".join(whole), size + more, 0, {0}
    for record in whole:
        ends.add(max(ends) + len(record))
    while at < len(data):
        taken = cut(data[at : at + size + 1], size)
        if not taken:
            taken = cut_long(data[at : at + most + 1], most)
        assert 0 < taken <= most
        if at + taken not in ends:
            assert max(map(len, whole)) > most
        at += taken
    assert at == len(data)


class Archive:
    """A day's file, and what is published of it."""

    def __init__(self, folder: Path, data: bytes) -> None:
        self.path = folder / f"{DAY}.log"
        self.path.write_bytes(data)
        self.day = Day(str(folder), DAY)

    def last(self, offset: int, data: bytes, generation: int = 1) -> Message:
        subject = Part("web1", DAY, generation).subject
        return Message(subject, 7, headers(offset, "s", 3), data)


def test_progress_over_a_long_record(tmp_path: Path) -> None:
    data = b"a\n" + b"x" * 3000 + b"\nb\n"
    archive = Archive(tmp_path, data)
    progress, blocks = Progress(Part("web1", DAY, 1)), []
    while block := progress.block(archive.day, len(data), HEADER_BYTES + 1000):
        blocks.append(block)
        progress.published(len(block), len(blocks))
    assert b"".join(blocks) == data
    assert max(map(len, blocks)) == 1000
    assert progress.sequence == len(blocks)


def test_a_full_block_is_read_ahead(tmp_path: Path) -> None:
    data = b"".join(b"%d %b\n" % (number, b"x" * 990) for number in range(1000))
    archive, progress = Archive(tmp_path, data), Progress(Part("web1", DAY, 1))
    found = progress.block(archive.day, len(data), 1 << 20)
    progress.read_ahead(archive.day, len(found) + BLOCK, 1 << 20, len(found))
    progress.published(len(found), 1)
    archive.path.write_bytes(data.replace(b"x", b"y"))
    found += progress.block(archive.day, len(data), 1 << 20)
    assert found[-2:] == b"y\n"  # what would have been less than a block was not read
    progress.read_ahead(archive.day, len(data), 1 << 20, BLOCK - 500)
    archive.path.write_bytes(data)
    progress.published(BLOCK - 500, 2)
    assert progress.block(archive.day, len(data), 1 << 20)[-2:] == b"y\n"
    progress.read_ahead(archive.day, len(data), 1 << 20, 0)
    archive.path.write_bytes(data[: progress.offset + 1000])
    assert len(progress.block(archive.day, progress.offset + 1000, 1 << 20)) <= 1000


def test_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    archive = Archive(tmp_path, b"0123456789\n")
    fresh = resume("web1", archive.day, None, None)
    assert (fresh.part.generation, fresh.offset, fresh.sequence) == (1, 0, 0)
    expired = resume("web1", archive.day, None, Finished(3, 1, "x", 0))
    assert expired.part.generation == 3
    further = resume("web1", archive.day, archive.last(2, b"23"), None)
    assert (further.part.generation, further.offset, further.sequence) == (1, 4, 7)
    assert not caplog.records
    for last in (archive.last(2, b"24", 4), archive.last(9, b"9\nmore", 4)):
        again = resume("web1", archive.day, last, None)
        assert (again.part.generation, again.offset, again.sequence) == (5, 0, 0)
    assert all("shipped again as generation 5" in r.getMessage() for r in caplog.records)
    assert len(caplog.records) == 2
    with pytest.raises(Denied):
        resume("web1", archive.day, Message("msgd.web1.x.1", 7, {}, b""), None)


def test_sums(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    archive = Archive(tmp_path, data)
    found = sums(archive.day, len(data), 1_500_000)
    assert found.size == len(data)
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.begin == hashlib.sha256(data[:1_500_000]).hexdigest()
    assert sums(archive.day, len(data), len(data)).begin == found.sha256
    assert sums(archive.day, len(data), len(data) + 1).begin == ""


def test_place() -> None:
    assert place(10, 10, 5) == (0, False)
    assert place(10, 11, 5) == (0, True)
    assert place(10, 3, 5) == (5, False)
    assert place(10, 8, 5) == (2, False)


@given(st.binary(min_size=1), st.integers(0, 1 << 20))
def test_first_difference(data: bytes, at: int) -> None:
    assert first_difference(data, data) == -1
    at %= len(data)
    other = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    assert first_difference(data, other) == at


def test_a_copy(tmp_path: Path) -> None:
    path = tmp_path / f"{DAY}.log"
    copy = Copy(str(tmp_path), path.name)
    assert copy.put(2, b"cd") is Put.MISSING
    assert copy.put(0, b"ab") is Put.WRITTEN
    assert copy.put(0, b"ab") is Put.HELD
    assert copy.put(1, b"bcd") is Put.WRITTEN
    with pytest.raises(Differs) as found:
        copy.put(1, b"bXd")
    assert found.value.at == 2
    copy.sync()
    copy.close()
    assert path.read_bytes() == b"abcd"
    assert path.stat().st_mode & 0o777 == 0o640
    # What a power cut has left: NULs where blocks had not reached the disk.
    path.write_bytes(b"ab\0\0\0\0\0")
    copy = Copy(str(tmp_path), path.name)
    assert copy.put(0, b"abc") is Put.WRITTEN
    copy.close()
    assert path.read_bytes() == b"abc"
    # A file that was opened in vain does not stay.
    copy = Copy(str(tmp_path), "2026-11-21.log")
    assert copy.put(2, b"cd") is Put.MISSING
    copy.close()
    assert not (tmp_path / "2026-11-21.log").exists()


def test_versions() -> None:
    assert version_warning("2.10.25") == version_warning("2.15.1") == ""
    assert "sync_interval" in version_warning("2.9.10")
    for bad in ("2.10.20", "2.10.21", "2.10.22"):
        assert "lose a whole stream" in version_warning(bad)


def ack(stream: int, consumer: int, pending: int = 0) -> str:
    return f"$JS.ACK.MSGD.collect_x.1.{stream}.{consumer}.1700000000000000000.{pending}"


def test_numbers() -> None:
    found = Numbers(ack(7, 3, 5))
    assert (found.stream, found.consumer, found.pending) == (7, 3, 5)
    longer = Numbers("$JS.ACK.hub.HASH.MSGD.collect_x.1.7.3.1700000000000000000.5.token")
    assert (longer.stream, longer.consumer, longer.pending) == (7, 3, 5)
    for strange in ("", "$JS.ACK.MSGD.c.1.x.3.1.5", "_INBOX.a.b"):
        with pytest.raises(Gap):
            Numbers(strange)


@pytest.mark.parametrize("second", [1, 3, 4])
def test_order(second: int) -> None:
    order = Order()
    order.take(Numbers(ack(10, 1)))
    with pytest.raises(Gap):
        order.take(Numbers(ack(20, second)))


class Script:
    """An engine that plays what each consumer delivers, and notes what it was asked."""

    stream, max_payload = "MSGD", 1 << 20

    def __init__(self, *deliveries: list[Reply | None]) -> None:
        """None: nothing more has come yet."""
        self._deliveries = [*deliveries]
        self.asked: list[tuple[str, Any]] = []
        self.pulls = 0
        self._now: list[Reply | None] = []

    async def api(self, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        self.asked.append((verb.rpartition(".")[0], body))
        if verb.startswith("CONSUMER.CREATE"):
            self._now = self._deliveries.pop(0)
        return {"num_pending": len(self._now)}

    async def listen(self, subject: str) -> Any:
        return self

    async def send(self, subject: str, data: bytes, reply: str) -> None:
        self.pulls += 1
        assert json.loads(data)["batch"] == BATCH

    def inbox(self) -> str:
        return "_INBOX.collect.x"

    async def next(self, timeout: float) -> Reply | None:
        return self.ready()

    def ready(self) -> Reply | None:
        return self._now.pop(0) if self._now else None

    async def close(self) -> None:
        self._now.clear()


def message(stream: int, consumer: int, pending: int = 0) -> Reply:
    return Reply("msgd.a.2026-11-20.1", ack(stream, consumer, pending), {OFFSET: "0"}, b"x")


def status(code: str, words: str = "") -> Reply:
    return Reply("_INBOX.collect.x.1", "", {"Status": code, "Description": words}, b"")


def read(script: Script, most: int = 10) -> tuple[list[int], str]:
    """What one consumer gives until it is at its end, or the gap's words."""

    async def run() -> tuple[list[int], str]:
        consumer, found = Consumer(script, from_sequence(5)), list[int]()
        await consumer.open()
        try:
            for _ in range(most):
                found += [message.sequence for message in await consumer.next()]
        except Gap as gap:
            return found, str(gap)
        finally:
            await consumer.close()
        return found, ""

    return asyncio.run(run())


def test_a_number_that_is_missing_ends_the_consumer() -> None:
    """Nothing behind the gap is taken: not even what comes in the same moment."""
    script = Script([message(5, 1, 3), message(7, 2, 2), status("100")], [])
    assert read(script, 1) == ([5, 7], "")
    script = Script([message(5, 1, 3), message(9, 3, 1), message(10, 4)])
    assert read(script) == ([], "message 3 came behind message 1")
    assert [verb for verb, _ in script.asked] == ["CONSUMER.CREATE.MSGD", "CONSUMER.DELETE.MSGD"]
    config = script.asked[0][1]["config"]
    assert config["opt_start_seq"] == 5
    assert config["ack_policy"] == "none"
    assert "durable_name" not in config


@pytest.mark.parametrize(
    ("code", "words", "over"),
    [
        ("409", "Consumer Deleted", True),
        ("409", "Leadership Change", True),
        ("503", "", True),
        ("404", "No Messages", False),
        ("408", "Request Timeout", False),
        ("409", "Message Size Exceeds MaxBytes", False),
    ],
)
def test_what_the_server_says_of_a_pull(code: str, words: str, over: bool) -> None:
    script = Script([message(5, 1), status(code, words), message(6, 2)])
    found, gap = read(script, 1)
    assert bool(gap) == over
    assert found == ([] if over else [5, 6])


def test_a_consumer_that_says_nothing_is_replaced() -> None:
    assert read(Script([])) == ([], "the consumer says nothing")


def test_a_pull_that_has_ended_is_followed_by_another() -> None:
    script = Script([message(5, 1, 1), status("408", "Request Timeout")])
    assert read(script, 1)[0] == [5]
    assert script.pulls == 1
    script = Script([message(at + 5, at + 1, 1) for at in range(BATCH)])
    found, gap = read(script, 2)
    assert len(found) == BATCH
    assert script.pulls == 2
    assert gap == "the consumer says nothing"


def test_sources_and_expectations() -> None:
    assert headers(5, "abc", 9) == {OFFSET: "5", SOURCE: "abc", EXPECTED: "9"}


def test_the_collector_reads_on_behind_a_gap(tmp_path: Path) -> None:
    """The next consumer begins behind what is in the files, and nothing is there twice."""

    def block(stream: int, consumer: int, offset: int) -> Reply:
        return message(stream, consumer, 9)._replace(headers={OFFSET: str(offset)})

    script = Script(
        [block(1, 1, 0), None, block(2, 2, 1), block(4, 4, 3)],  # 3 was lost on the way
        [block(2, 1, 1), block(3, 2, 2), block(4, 3, 3)],
    )
    config = load(None)
    config = config._replace(collect=config.collect._replace(directory=str(tmp_path)))

    async def run() -> list[int]:
        copies = Copies(config.collect)
        collect = Collect(config, cast(Engine, script), copies, Program(None))
        collect._next, places = 1, []
        for _ in range(2):
            with pytest.raises(Gap):
                await collect._read_on()
            places.append(collect._next)
        copies.close()
        return places

    assert asyncio.run(run()) == [2, 5]
    starts = [body["config"].get("opt_start_seq", 1) for _, body in script.asked if body]
    assert starts == [1, 2]
    assert (tmp_path / "a" / "2026-11-20.log").read_bytes() == b"xxxx"


class Unconnected:
    """An engine that ship never asks."""

    version = "2.15.1"


def make_ship(tmp_path: Path, keep_days: int) -> Ship:
    config = load(None)._replace(archive=str(tmp_path), keep_days=keep_days)
    return Ship(config, cast(Engine, Unconnected()), Program(None))


def test_ship_says_what_retention_will_delete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    today = date.today()
    days = [(today - timedelta(ago)).isoformat() for ago in (9, 8, 5, 1)]
    for day in days:
        (tmp_path / f"{day}.log").write_bytes(b"x")

    async def scan() -> list[str]:
        past = make_ship(tmp_path, keep_days=9)._past
        found = past.scan(today.isoformat())
        past.scan(today.isoformat())  # says nothing twice
        (tmp_path / f"{days[0]}.log").unlink()
        past.scan(today.isoformat())
        return found

    assert asyncio.run(scan()) == days
    unshipped = "log: has not been shipped wholly, and msgd's keep_days of 9 deletes it"
    assert [record.getMessage() for record in caplog.records] == [
        f"{days[0]}.{unshipped} at the next midnight",
        f"{days[1]}.{unshipped} in 2 days",
        f"{days[0]}.log: was deleted before all of it was shipped; "
        "what is missing cannot be shipped any more",
    ]


def test_how_long_ship_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under load there is always something to ship; what counts is how old it is."""
    now = 100.0
    monkeypatch.setattr("msgd.relay.standing.time.monotonic", lambda: now)

    async def make() -> Standing:
        return Standing(Program(None), 0)

    standing = asyncio.run(make())
    for step in range(50):  # a block a second, and always another one behind it
        now += 1
        standing.seen(step * 10, step * 10 + 15)
        assert 0 < standing.since <= now
        assert now - standing.since <= 3
    for _ in range(50):  # the servers are away
        now += 1
        standing.seen(490, 2000)
    assert now - standing.since >= 50
    standing.seen(2000, 2000)
    assert standing.since == 0


def test_a_clock_that_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    passed, today = 0.0, date(2026, 11, 20)

    class Today(date):
        @classmethod
        def today(cls) -> date:  # type: ignore[override]
            return today

    monkeypatch.setattr("msgd.relay.housekeeping.date", Today)
    monkeypatch.setattr("msgd.relay.housekeeping.elapsed", lambda: passed)
    calendar, found = Calendar(), []
    for days, seconds in ((0, 600), (1, 600), (1, 86_400), (5, 600), (0, 600), (1, 86_400)):
        today, passed = today + timedelta(days), passed + seconds
        found.append(calendar.has_jumped())
    assert found == [False, False, False, True, True, False]
