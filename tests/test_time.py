"""Clocks that jump: every record in the file of its own stamp, no echo lost, timers steady."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import Daemon, Start, cpu_seconds, parse, wait_for
from tests.lab import fake
from tests.lab.check import verify
from tests.lab.load import Sender
from tests.lab.manager import Manager

CONFIG = "listen: 127.0.0.1\n"

pytestmark = pytest.mark.skipif(fake.LIBRARY is None, reason="libfaketime is not installed")


def days(msgd: Daemon) -> dict[str, list[str]]:
    """The texts of each day; every record stands in the file of its own stamp."""
    found: dict[str, list[str]] = {}
    for path in msgd.files():
        records = parse(path.read_text())
        assert {record.stamp[:10] for record in records} <= {path.stem}
        found[path.stem] = [record.text for record in records]
    return found


def stamps(msgd: Daemon) -> list[str]:
    return [record.stamp for record in msgd.records()]


def test_midnight_in_the_middle_of_streams(start: Start, tmp_path: Path) -> None:
    clock = fake.FakeClock(tmp_path, "2026-03-01 23:59:59")
    msgd = start(CONFIG, env=clock.env())
    senders = [Sender(f"midnight-{number}", msgd.port) for number in range(3)]
    for sender in senders:
        sender.start()
    wait_for(lambda: all(sender.echoed > 100 for sender in senders), "echoes before midnight")
    clock.set("2026-03-02 00:00:00")
    wait_for(lambda: len(msgd.files()) == 2, "midnight")
    after = [sender.echoed + 200 for sender in senders]
    wait_for(
        lambda: all(
            sender.echoed > count or not sender.is_alive()
            for sender, count in zip(senders, after, strict=True)
        ),
        "echoes after midnight",
    )
    for sender in senders:
        sender.stop()
        sender.join()
    verify(msgd.archive(), senders)
    assert {day: len(texts) > 100 for day, texts in days(msgd).items()} == {
        "2026-03-01": True,
        "2026-03-02": True,
    }
    assert (msgd.log_directory / "current.log").readlink() == Path("2026-03-02.log")


def test_midnight_in_the_middle_of_a_line(start: Start, tmp_path: Path) -> None:
    clock = fake.FakeClock(tmp_path, "2026-03-01 23:59:59")
    msgd = start(CONFIG, env=clock.env())
    with msgd.line_client() as client:
        assert client.ask(b"MESG before\n") == b"MESG before\n"
        client.send(b"MORE half\nMESG of ")
        clock.set("2026-03-02 00:00:00")
        assert client.ask(b"it\n") + client.line() == b"MORE half\nMESG of it\n"
    assert days(msgd) == {"2026-03-01": ["before"], "2026-03-02": ["half\nof it"]}


def test_the_clock_is_set_back_a_day_and_forward_a_month(start: Start, tmp_path: Path) -> None:
    clock = fake.FakeClock(tmp_path, "2026-03-10 12:00:00")
    msgd = start(CONFIG, env=clock.env())
    with msgd.line_client() as client:
        for number, now in enumerate(
            [
                "2026-03-10 12:00:00",
                "2026-03-09 12:00:00",
                "2026-03-10 12:00:00",
                "2026-04-10 12:00:00",
            ]
        ):
            clock.set(now)
            assert client.ask(b"MESG %d\n" % number) == b"MESG %d\n" % number
    assert days(msgd) == {"2026-03-10": ["0", "2"], "2026-03-09": ["1"], "2026-04-10": ["3"]}
    assert msgd.stop() == 0


def test_timers_do_not_follow_the_wall_clock(start: Start, tmp_path: Path) -> None:
    manager = Manager(tmp_path)
    clock = fake.FakeClock(tmp_path, "2026-03-10 12:00:00")
    limits = "limits: {handshake_seconds: 300, idle_seconds: 300}\n"
    msgd = start(CONFIG + limits, env={**clock.env(), **manager.env()})
    with msgd.connect() as silent, msgd.line_client() as idle:
        for now in ("2026-04-10 12:00:00", "2026-03-09 12:00:00"):
            clock.set(now)
            used, began = cpu_seconds(msgd.pid), time.monotonic()
            manager.wait_beats(5)  # the pulse goes on after a step back, too
            assert cpu_seconds(msgd.pid) - used < 0.5 * max(time.monotonic() - began, 0.2)
        silent.send(b"PING\n")
        silent.expect(b"PONG\n")
        assert idle.ask(b"MESG a\n") == b"MESG a\n"
    manager.close()


# Berlin goes from 02:00 to 03:00 on 2026-03-29, and from 03:00 back to 02:00 on 2026-10-25; both at
# 01:00 UTC.
@pytest.mark.parametrize(
    ("before", "after", "written"),
    [
        (
            *("2026-03-29 00:59:59", "2026-03-29 01:00:00"),
            ["2026-03-29T01:59:59.000000+01:00", "2026-03-29T03:00:00.000000+02:00"],
        ),
        (
            *("2026-10-25 00:30:00", "2026-10-25 01:30:00"),
            ["2026-10-25T02:30:00.000000+02:00", "2026-10-25T02:30:00.000000+01:00"],
        ),
        (  # the day begins at local midnight, with the offset of that day
            *("2026-10-25 22:59:59", "2026-10-25 23:00:00"),
            ["2026-10-25T23:59:59.000000+01:00", "2026-10-26T00:00:00.000000+01:00"],
        ),
    ],
)
def test_summer_time(
    start: Start, tmp_path: Path, before: str, after: str, written: list[str]
) -> None:
    clock = fake.FakeClock(tmp_path, before)
    msgd = start(CONFIG, env=clock.env("Europe/Berlin"))
    with msgd.line_client() as client:
        assert client.ask(b"MESG before\n") == b"MESG before\n"
        clock.set(after)
        assert client.ask(b"MESG after\n") == b"MESG after\n"
    assert stamps(msgd) == written
    assert [text for texts in days(msgd).values() for text in texts] == ["before", "after"]


def test_utc_has_no_summer_time(start: Start, tmp_path: Path) -> None:
    clock = fake.FakeClock(tmp_path, "2026-10-25 01:30:00")
    msgd = start(f"{CONFIG}time_zone: utc\n", env=clock.env("Europe/Berlin"))
    with msgd.line_client() as client:
        assert client.ask(b"MESG a\n") == b"MESG a\n"
    assert stamps(msgd) == ["2026-10-25T01:30:00.000000+00:00"]
