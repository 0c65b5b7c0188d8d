"""Who may have a password verified when: guessing is slow, and only for the guesser."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Generic, TypeVar

from msgd.password import NOBODY
from msgd.server.addresses import Networks, Origin, surroundings
from msgd.server.guesses import Guesses
from msgd.server.timers import Alarm, Timeouts
from msgd.server.verification import Verification
from msgd.wire.headers import FAIL, PWNO, PWOK

if TYPE_CHECKING:
    from msgd.config.options import Config

Client = TypeVar("Client")


class Guard(Generic[Client]):
    """Has passwords verified one at a time, those of guessers last.

    The next one is of the network that has failed least; among equals, of the one whose
    surroundings have failed least, so that thousands of fresh networks of one guesser count for
    little; among equals again, and inside a network, chance decides: who floods gains nothing by
    being first. A password that several clients of one network wait for is verified once for
    all of them. Where no password is configured everything takes just as long.
    """

    REPLY_SECONDS = 1.0  # from the verdict on a wrong password to its reply
    SPACING_SECONDS = 0.5  # between two verifications for one network that has failed
    REST = 3  # all verifications together use at most 1 / (1 + REST) of a processor
    WAIT_SECONDS = 8.0  # for a turn: msgctl waits 10 for the answer
    FORGET_SECONDS = 600.0
    AT_ONCE = 64  # answers of one kind in one turn of the loop

    def __init__(self, config: Config, alarm: Alarm, is_there: Callable[[Client], bool]) -> None:
        """``is_there`` is asked when a client's turn has come: those that are gone have none."""
        self._alarm = alarm
        self._is_there = is_there
        self._waiting: dict[str, dict[Client, bytes]] = {}  # passwords, by network
        self._since: Timeouts[tuple[str, Client]] = Timeouts(self.WAIT_SECONDS, alarm)
        self._failures: Counter[str] = Counter()  # lately, of networks and their surroundings
        self._failed_at: Timeouts[str] = Timeouts(self.FORGET_SECONDS, alarm)
        self._spacing: Timeouts[str] = Timeouts(self.SPACING_SECONDS, alarm)
        self._late: Timeouts[tuple[Client, bytes]] = Timeouts(self.REPLY_SECONDS, alarm)
        self._guesses = Guesses(alarm)
        self._running: Verification | None = None
        self._network, self._password = "", b""  # of the one that is running
        self._rested = 0.0  # when the next may begin
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take over the password, and from where it is accepted."""
        self.stored = config.password_hash
        self._from = Networks(config.terminate_from)

    def ask(self, origin: Origin, client: Client, password: bytes, now: float) -> None:
        """Take an attempt, one of a client at a time; `step` returns its answer, never at once."""
        if origin.host and self._from and origin.host not in self._from:
            self._guesses.count(origin.network, 1, now)
            self._late.start((client, PWNO), now)
            return
        self._waiting.setdefault(origin.network, {})[client] = password
        self._since.start((origin.network, client), now)
        self._alarm.at(now)

    def step(self, now: float) -> list[tuple[Client, bytes]]:
        """Go on; the clients that are to be answered now, each with its header.

        FAIL means that the password could not be verified, or that the client is gone.
        """
        for network in self._failed_at.expired(now):
            del self._failures[network]
        for _ in self._spacing.expired(now):
            pass
        self._guesses.step(now)
        answers = self._poll(now) + self._give_up(now) + self._start_next(now)
        return answers + list(islice(self._late.expired(now), self.AT_ONCE))

    def next(self, now: float) -> float:
        """When `step` is to be called, unless a child has ended before (SIGCHLD)."""
        queued = self._waiting and self._running is None
        soon = now + 0.05 if queued else inf
        return min(self._late.next(), self._since.next(), self._guesses.next(), soon)

    def stop(self) -> list[Client]:
        """End all attempts; the clients that wait without an answer."""
        if self._running is not None:
            self._running.cancel()
            self._running = None
        waiting = [client for _, client in self._since.clear()]
        waiting += [client for client, _ in self._late.clear()]
        self._waiting.clear()
        return waiting

    def _start_next(self, now: float) -> list[tuple[Client, bytes]]:
        """Begin the next verification, if one may begin; those that are found to be gone."""
        gone: list[tuple[Client, bytes]] = []
        while self._running is None and now >= self._rested and len(gone) < self.AT_ONCE:
            ready = [network for network in self._waiting if network not in self._spacing]
            if not ready:
                break
            network = min(ready, key=self._rank)
            asking = list(self._waiting[network])
            client = asking[int.from_bytes(os.urandom(4), "big") % len(asking)]
            if self._is_there(client):
                self._verify(network, self._waiting[network][client], now)
            else:
                self._remove(network, client)
                gone.append((client, FAIL))
        return gone

    def _verify(self, network: str, password: bytes, now: float) -> None:
        self._network, self._password = network, password
        try:
            self._running = Verification(password, self.stored or NOBODY)
        except OSError:  # no process, no descriptor
            self._finish(FAIL, now)

    def _rank(self, network: str) -> tuple[int | bytes, ...]:
        around = (self._failures[wider] for wider in surroundings(network))
        return self._failures[network], *around, os.urandom(4)

    def _poll(self, now: float) -> list[tuple[Client, bytes]]:
        header = self._running.poll() if self._running is not None else None
        if header is None or self._running is None:
            return []
        self._rested = now + self.REST * self._running.seconds
        self._running = None
        if header == PWOK and self.stored is None:  # a reload has taken it away
            header = PWNO
        return self._finish(header, now)

    def _finish(self, header: bytes, now: float) -> list[tuple[Client, bytes]]:
        """Answer everybody of this network who has asked the same."""
        network, password = self._network, self._password
        asked = self._waiting.get(network, {})
        same = [client for client, its_password in asked.items() if its_password == password]
        for client in same:
            self._remove(network, client)
        answers = [(client, header) for client in same]
        if header == PWOK:
            return answers
        if header == PWNO:
            self._guesses.count(network, len(same), now)
            for known in {network, *surroundings(network)}:
                self._failures[known] += 1
                self._failed_at.start(known, now)
        self._spacing.start(network, now)
        for answer in answers:
            self._late.start(answer, now)
        return []

    def _give_up(self, now: float) -> list[tuple[Client, bytes]]:
        """Those for whom there was no time, except where their password is being verified."""
        answers = []
        for network, client in islice(self._since.expired(now), self.AT_ONCE):
            password = self._waiting[network][client]
            if self._running and (network, password) == (self._network, self._password):
                self._since.start((network, client), now)
                continue
            self._remove(network, client)
            self._guesses.count(network, 1, now)
            answers.append((client, FAIL))
        return answers

    def _remove(self, network: str, client: Client) -> None:
        self._since.stop((network, client))
        del self._waiting[network][client]
        if not self._waiting[network]:
            del self._waiting[network]
