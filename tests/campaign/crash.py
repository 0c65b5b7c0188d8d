"""kill -9 at random moments: what was echoed is in the archive, once and whole.

Half of the clients write sessions that go on over the kills: the number that they are told then
must be that of the last whole record in the archive.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from msgd.archive.final import read_final
from msgd.archive.reader import records
from msgd.archive.records import MARK
from tests.lab.check import is_whole, verify
from tests.lab.daemon import Daemon
from tests.lab.load import Sender

CLIENTS = 4
CONFIG = "listen: 127.0.0.1\nsync: {sync}\n"
Begin = Callable[..., Daemon]


class Outcome:
    """What a campaign has seen; every cycle was checked, or it would have ended."""

    def __init__(self) -> None:
        self.cycles = self.echoed = self.unconfirmed = self.torn = 0

    def __str__(self) -> str:
        return (
            f"{self.cycles} kills, {self.echoed} messages echoed and found once and whole, "
            f"{self.unconfirmed} archived without an echo, {self.torn} torn ends marked"
        )


def campaign(
    begin: Begin, folder: Path, again: Callable[[Outcome], bool], seed: int, longest: float = 0.15
) -> Outcome:
    """Start, load, kill, check, start again on the same directory, as long as ``again`` says.

    ``begin(config, folder=...)`` starts a daemon. Each cycle checks what was added in it; a
    killed daemon's unfinished line must be ended, with nothing else, by the next one.
    """
    chance = random.Random(seed)
    outcome = Outcome()
    checked, unfinished = 0, False
    after: dict[bytes, int] = {}
    while again(outcome):
        msgd = begin(CONFIG.format(sync=chance.choice(["always", "never"])), folder=folder)
        before = _take(msgd, checked)
        numbers = last_numbers(msgd.archive())
        assert numbers == after, "what was torn counts"
        mended = "had left unfinished" in msgd.log
        assert (before, mended) == ((MARK, True) if unfinished else (b"", False))
        checked += len(before)
        senders = _kill_under_load(msgd, f"{seed}-{outcome.cycles}", chance, longest)
        data = _take(msgd, checked)
        found = verify(data, senders, killed=True)
        after = last_numbers(msgd.archive())
        _check_numbers(senders, numbers, after)
        _check_final(msgd, checked, senders)
        torn = b"" if not is_whole(data) else _tear(msgd, after, chance)
        unfinished = bool(torn) or not is_whole(data)
        checked += len(data) + len(torn)
        echoed = sum(sender.echoed for sender in senders)
        outcome.cycles += 1
        outcome.echoed += echoed
        outcome.unconfirmed += len(found.texts) - echoed
        outcome.torn += unfinished
    return outcome


def _tear(msgd: Daemon, numbers: dict[bytes, int], chance: random.Random) -> bytes:
    """Add what a kill or a power cut in the middle of a write leaves, which are rare moments."""
    session = chance.choice([*numbers, b"new"])
    head = b"2026-03-01T00:00:00.000000+00:00 127.0.0.1:1/%b:%03d" % (
        session,
        numbers.get(session, 0) + 1,
    )
    ends = [
        *(b"", head + b" half a li", head + b"+2 half\n\tof it\n", head + b"+1 half\n\tof i"),
        *(bytes(chance.randrange(1, 9000)), bytes(99) + b"\n" + head + b" a hole before it\n"),
    ]
    torn = chance.choice(ends)
    path = msgd.files()[-1]
    with path.open("ab") as file:
        file.write(torn)
    return torn


def last_numbers(archive: bytes) -> dict[bytes, int]:
    """The number of the last whole record of each session."""
    return {found.session: found.number for found in records([archive]) if found.session}


def _check_numbers(
    senders: list[Sender], before: dict[bytes, int], after: dict[bytes, int]
) -> None:
    for sender in senders:
        if sender.session and sender.told is not None:
            session = sender.session.encode()
            assert sender.told == before.get(session, 0), "told another number than the archive's"
            last = after.get(session, 0)
            assert sender.told + sender.echoed <= last <= sender.told + len(sender.sent)


def _check_final(msgd: Daemon, checked: int, senders: list[Sender]) -> None:
    """`.msgd.final` says at least as much as the echoes, and never a part of a record."""
    told = read_final(str(msgd.log_directory))
    assert told is not None
    data = (msgd.log_directory / f"{told.day}.log").read_bytes()[: told.offset]
    assert len(data) == told.offset
    assert is_whole(data)
    kept = {record.text for record in records([data[checked:]])}
    missing = [text for one in senders for text, echoed in one.receipts() if echoed]
    assert not set(missing) - kept, "echoed before .msgd.final was renewed"


def _take(msgd: Daemon, start: int) -> bytes:
    return msgd.archive()[start:]


def _kill_under_load(
    msgd: Daemon, name: str, chance: random.Random, longest: float
) -> list[Sender]:
    window = chance.choice([1, 30, 1000])
    senders = [
        Sender(f"{name}-{number}", msgd.port, window, session=f"s{number}" if number % 2 else "")
        for number in range(CLIENTS)
    ]
    for sender in senders:
        sender.start()
    time.sleep(chance.uniform(0.01, longest))  # the moment is what is random here
    msgd.kill()
    for sender in senders:
        sender.join()
    return senders
