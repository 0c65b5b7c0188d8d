"""No echo leaves before what it stands for is on stable storage: proven by the system calls."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.conftest import Start
from tests.lab import fake, tracing
from tests.lab.load import Sender
from tests.lab.tracing import Call

pytestmark = pytest.mark.skipif(not tracing.is_installed(), reason="strace is not installed")

_NAME = re.compile(rb"s\d+-\d+(?= )")  # each message of a Sender has one


def too_early(calls: Iterable[Call]) -> tuple[list[bytes], int]:
    """The messages whose echo left before they were on stable storage; and how many left at all."""
    durable: set[bytes] = set()
    written: dict[str, set[bytes]] = {}
    directories: set[str] = set()  # with a new entry that is not synced
    early: list[bytes] = []
    sent = 0
    for call in calls:
        names = set(_NAME.findall(call.data))
        if call.name == "openat" and "O_CREAT" in call.arguments and call.result >= 0:
            directories.add(str(Path(call.strings[-1].decode()).parent))
        elif call.name in ("write", "writev") and call.path.endswith(".log"):
            written.setdefault(call.path, set()).update(names)
        elif call.name == "fsync" and call.result == 0:
            directories.discard(call.path)
        elif call.name == "fdatasync" and call.result == 0:
            folder = str(Path(call.path).parent)
            if folder not in directories:
                durable |= written.pop(call.path, set())
        elif call.name in ("sendmsg", "sendto") and call.path.startswith("TCP"):
            early += names - durable
            sent += len(names)
    return early, sent


def run_senders(port: int, numbers: range, limit: int) -> int:
    senders = [Sender(f"s{number}", port, window=20, limit=limit) for number in numbers]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
        assert not sender.problem
        assert sender.echoed == len(sender.sent) >= limit
    return sum(sender.echoed for sender in senders)


def test_no_echo_before_write_and_sync(start: Start, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    msgd = start("listen: 127.0.0.1\n", wrapper=tracing.wrapper(trace))
    echoed = run_senders(msgd.port, range(4), 150)
    assert msgd.stop() == 0
    assert too_early(tracing.calls(trace)) == ([], echoed)


@pytest.mark.skipif(fake.LIBRARY is None, reason="libfaketime is not installed")
def test_no_echo_before_the_directory_of_a_new_day_is_synced(start: Start, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    clock = fake.FakeClock(tmp_path, "2026-03-01 12:00:00")
    msgd = start("listen: 127.0.0.1\n", wrapper=tracing.wrapper(trace), env=clock.env())
    echoed = run_senders(msgd.port, range(2), 5)
    clock.set("2026-03-02 00:00:01")
    echoed += run_senders(msgd.port, range(2, 4), 5)
    assert msgd.stop() == 0
    calls = tracing.calls(trace)
    assert [path.name for path in msgd.files()] == ["2026-03-01.log", "2026-03-02.log"]
    assert too_early(calls) == ([], echoed)
    without = [call for call in calls if call.name != "fsync"]
    assert len(too_early(without)[0]) == echoed  # the proof leans on the directory's sync


def test_the_proof_sees_an_echo_that_leaves_too_early(start: Start, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    msgd = start("listen: 127.0.0.1\nsync: never\n", wrapper=tracing.wrapper(trace))
    echoed = run_senders(msgd.port, range(1), 5)
    assert msgd.stop() == 0
    early, sent = too_early(tracing.calls(trace))
    assert (len(early), sent) == (echoed, echoed)
