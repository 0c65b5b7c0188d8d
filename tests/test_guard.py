"""Who has a password verified when: whatever guessers do, others are not held up.

The clock is the test's; the verifications are real ones, in processes of their own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from msgd.config.options import Config, load
from msgd.password import NOBODY, verify
from msgd.process import children
from msgd.server import addresses, guard
from msgd.server.addresses import Origin
from msgd.server.guard import Guard
from msgd.server.timers import Alarm
from msgd.server.verification import Verification
from tests.conftest import PASSWORD, PASSWORD_HASH
from tests.lab.waiting import SECONDS

FAIL, PWNO, PWOK = b"FAIL", b"PWNO", b"PWOK"
STEP = 0.05  # of the test's clock


# A process of pytest may have threads; the daemon has none.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


class Trial:
    """A guard, those who ask it, and a clock that stands still while a process works."""

    def __init__(self, config: Config) -> None:
        self.gone: set[str] = set()
        self.guard: Guard[str] = Guard(config, Alarm(), lambda client: client not in self.gone)
        self.now = 1000.0
        self.answers: dict[str, tuple[bytes, float]] = {}  # header, and when
        self.verified: list[tuple[bytes, float]] = []  # passwords, and when that began
        self.cost = 0.0  # seconds of a processor that each is said to take

    def ask(self, host: str, password: bytes, client: str = "") -> str:
        client = client or host
        origin = Origin("unix:1", "", host, host) if host[0] == "u" else addresses.tcp(host, 1)
        self.guard.ask(origin, client, password, self.now)
        return client

    def step(self) -> None:
        for client, header in self.guard.step(self.now):
            assert client not in self.answers
            self.answers[client] = header, self.now
        running = self.guard._running
        end = time.monotonic() + SECONDS
        while running is not None and not running.ended():  # type: ignore[attr-defined]
            assert time.monotonic() < end
            time.sleep(0.001)
        self.now += STEP

    def until(self, client: str, seconds: float = 60.0) -> bytes:
        """Go on until this client is answered; its header."""
        end = self.now + seconds
        while client not in self.answers:
            assert self.now < end, "no answer in time"
            self.step()
        return self.answers[client][0]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    trials: list[Trial] = []

    def start(text: str = f"password_hash: {PASSWORD_HASH}\n") -> Trial:
        path = tmp_path / "msgd.yaml"
        path.write_text(text)
        trial = Trial(load(str(path)))
        trials.append(trial)

        class Recorded(Verification):
            def __init__(self, password: bytes, stored: str) -> None:
                trial.verified.append((password, trial.now))
                super().__init__(password, PASSWORD_HASH if stored == NOBODY else stored)

            def ended(self) -> bool:
                import select

                return bool(select.select([self._verdict], [], [], 0)[0])

            def _reap(self) -> int:
                status = super()._reap()
                self.seconds = max(self.seconds, trial.cost)
                return status

        monkeypatch.setattr(guard, "Verification", Recorded)
        return trial

    yield start
    for trial in trials:
        trial.guard.stop()
    assert children.own == set()


@pytest.fixture
def trial(make: Any) -> Trial:
    found = make()
    assert isinstance(found, Trial)
    return found


def test_right_and_wrong(trial: Trial) -> None:
    assert trial.until(trial.ask("10.0.0.1", PASSWORD.encode())) == PWOK
    asked = trial.now
    assert trial.until(trial.ask("10.0.0.2", b"wrong")) == PWNO
    assert trial.now - asked >= Guard.REPLY_SECONDS


def test_thousands_of_guessers_in_one_network_hold_up_nobody_else(trial: Trial) -> None:
    for number in range(4000):
        trial.ask(f"127.1.{number >> 8}.{number & 255}", b"guess %d" % number)
    while len(trial.verified) < 3:
        trial.step()
    before, asked = len(trial.verified), trial.now
    assert trial.until(trial.ask("::1", PASSWORD.encode())) == PWOK
    assert len(trial.verified) - before <= 2  # the one that was running, and this
    assert trial.now - asked < 3


def test_fresh_networks_of_one_guesser_hold_up_nobody_elsewhere(trial: Trial) -> None:
    for number in range(4000):
        trial.ask(f"10.{number >> 8}.{number & 255}.1", b"guess %d" % number)
        trial.ask(f"2001:db8:{number:x}::1", b"guess %d" % number)
    while not (trial.guard._failures["IPv4"] and trial.guard._failures["IPv6"]):
        trial.step()
    for host in ("user root", "192.0.2.1", "fd00::1"):
        before = len(trial.verified)
        assert trial.until(trial.ask(host, PASSWORD.encode())) == PWOK
        assert len(trial.verified) - before <= 3


def test_a_local_user_is_a_network_of_its_own(trial: Trial) -> None:
    for number in range(1000):
        trial.ask("user mallory", b"guess %d" % number, f"client {number}")
    for _ in range(20):
        trial.step()
    before = len(trial.verified)
    assert trial.until(trial.ask("user root", PASSWORD.encode())) == PWOK
    assert len(trial.verified) - before <= 2


def test_among_newcomers_chance_decides(trial: Trial) -> None:
    asked = [trial.ask(f"{number}.0.0.1", b"%d" % number) for number in range(1, 11)]
    asked += [trial.ask(f"fd{number}::1", b"%d" % number) for number in range(11, 20)]
    asked += [trial.ask("user root", b"20")]
    while len(trial.verified) < len(asked):
        trial.step()
    order = [password for password, _ in trial.verified]
    assert sorted(order, key=int) == [b"%d" % number for number in range(1, 21)]
    assert order != sorted(order, key=int)


def test_inside_a_network_chance_decides_too(trial: Trial) -> None:
    for number in range(12):
        trial.ask(f"10.0.0.{number}", b"%d" % number)
    while len(trial.verified) < 12:
        trial.step()
    order = [password for password, _ in trial.verified]
    assert order != sorted(order, key=int)


def test_guessing_takes_a_quarter_of_a_processor_at_most(trial: Trial) -> None:
    trial.cost = 0.3
    for number in range(1, 100):
        trial.ask(f"{number}.0.0.1", b"%d" % number)
    while len(trial.verified) < 8:
        trial.step()
    starts = [when for _, when in trial.verified]
    assert all(after - before >= 0.9 for before, after in pairwise(starts))


def test_a_network_that_has_failed_waits_for_its_next(trial: Trial) -> None:
    trial.ask("10.0.0.1", b"a")
    trial.ask("10.0.0.2", b"b")
    while len(trial.verified) < 2:
        trial.step()
    assert trial.verified[1][1] - trial.verified[0][1] >= Guard.SPACING_SECONDS


def test_one_verification_for_all_who_ask_the_same(trial: Trial) -> None:
    asked = [trial.ask(f"10.0.0.{number}", b"same") for number in range(100)]
    assert {trial.until(client) for client in asked} == {PWNO}
    assert len(trial.verified) == 1


def test_who_is_gone_has_no_turn(trial: Trial) -> None:
    gone = [trial.ask(f"10.0.0.{number}", b"%d" % number) for number in range(200)]
    trial.gone.update(gone)
    assert trial.until(trial.ask("10.0.0.250", PASSWORD.encode())) == PWOK
    assert len(trial.verified) == 1
    assert {trial.until(client) for client in gone} == {FAIL}


def test_nobody_waits_for_ever(trial: Trial) -> None:
    asked = [trial.ask(f"10.0.0.{number}", b"%d" % number) for number in range(100)]
    headers = [trial.until(client) for client in asked]
    assert set(headers) == {PWNO, FAIL}
    waited = max(when for _, when in trial.answers.values()) - 1000.0
    assert waited < 10  # the time-out of msgctl


def test_without_a_password_it_takes_as_long(make: Any) -> None:
    trial = make("port: 0\n")
    assert trial.until(trial.ask("10.0.0.1", PASSWORD.encode())) == PWNO
    without = trial.now
    assert len(trial.verified) == 1
    other = make()
    assert other.until(other.ask("10.0.0.1", b"wrong")) == PWNO
    assert other.now == without
    assert not verify(PASSWORD.encode(), NOBODY)


def test_only_some_networks_may_ask(make: Any) -> None:
    text = f"password_hash: {PASSWORD_HASH}\nterminate_from: 10.0.0.0/8\n"
    trial = make(text)
    assert trial.until(trial.ask("192.0.2.1", PASSWORD.encode())) == PWNO
    assert trial.verified == []
    assert trial.until(trial.ask("user root", PASSWORD.encode())) == PWOK
    assert trial.until(trial.ask("10.0.0.1", PASSWORD.encode())) == PWOK


def test_a_stop_returns_all_who_wait(trial: Trial) -> None:
    refused = trial.ask("10.0.0.1", b"wrong")
    while refused not in {client for client, _ in trial.guard._late._since}:
        trial.step()
    waiting = {trial.ask("10.0.0.2", b"a"), trial.ask("10.0.0.3", b"b")}
    for _ in range(15):
        trial.step()
    assert set(trial.guard.stop()) == {refused, *waiting} - set(trial.answers)
    assert children.own == set()


def test_networks_are_named_once_a_minute(trial: Trial, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "msgd")
    for number in range(30):
        trial.ask(f"10.0.0.{number}", b"%d" % number)
    for number in range(1, 8):
        trial.ask(f"{number}.0.0.1", b"x")
    end = trial.now + 61
    while trial.now < end:
        trial.step()
    (record,) = caplog.records
    words = record.getMessage()
    assert words.startswith(
        "passwords not accepted in the last minute: 30 from 10.0.0.0/24, 1 from "
    )
    assert words.endswith(", 3 from 3 other networks")
    trial.ask("10.0.0.1", b"once", "a single one")
    end = trial.now + 61
    while trial.now < end:
        trial.step()
    assert len(caplog.records) == 1
