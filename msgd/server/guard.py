"""Who may have a password verified when: guessing is slow, and only for the guesser."""

from __future__ import annotations

from math import inf
from typing import Generic, NamedTuple, TypeVar

from msgd.server.timers import Alarm, Timeouts
from msgd.server.verification import Verification
from msgd.wire.headers import FAIL, PWNO, PWOK

Client = TypeVar("Client")


class _Attempt(NamedTuple, Generic[Client]):
    client: Client
    password: bytes


class Guard(Generic[Client]):
    """Lets passwords be verified one at a time, and makes those wait who have guessed wrong.

    Guessing is slow on purpose, and only for the guesser: an address that has not failed
    lately goes first, so that it waits for one verification of somebody else at most. A
    password that several clients of one address wait for is verified once for all of them.
    """

    REPLY_SECONDS = 1.0  # from a wrong password to its reply
    SPACING_SECONDS = 0.5  # between two verifications for one address that has failed
    REST = 3  # those that have failed together use at most 1 / (1 + REST) of a processor
    WAITING = 64  # attempts of one address
    FORGET_SECONDS = 600.0

    def __init__(self, stored: str | None, alarm: Alarm) -> None:
        self.stored = stored
        self._alarm = alarm
        self._queues: dict[str, list[_Attempt[Client]]] = {}
        self._failures: dict[str, int] = {}
        self._failed_at: Timeouts[str] = Timeouts(self.FORGET_SECONDS, alarm)
        self._spacing: Timeouts[str] = Timeouts(self.SPACING_SECONDS, alarm)
        self._late: Timeouts[tuple[Client, bytes]] = Timeouts(self.REPLY_SECONDS, alarm)
        self._running: Verification | None = None
        self._attempt = ("", b"")
        self._started = self._rested = 0.0

    def ask(self, address: str, client: Client, password: bytes, now: float) -> None:
        """Take an attempt; `step` returns its answer later, never at once."""
        if self.stored is None:
            self._late.start((client, PWNO), now)
        elif len(self._queues.get(address, ())) >= self.WAITING:
            self._late.start((client, FAIL), now)
        else:
            self._queues.setdefault(address, []).append(_Attempt(client, password))
            self._alarm.at(now)

    def step(self, now: float) -> list[tuple[Client, bytes]]:
        """Go on; the clients that are to be answered now, each with its header.

        FAIL means that the password could not be verified.
        """
        for address in self._failed_at.expired(now):
            del self._failures[address]
        for _ in self._spacing.expired(now):
            pass
        answers = self._poll(now)
        self._start_next(now)
        return answers + list(self._late.expired(now))

    def next(self, now: float) -> float:
        """When `step` is to be called, unless a child has ended before (SIGCHLD)."""
        queued = self._queues and self._running is None
        return min(self._late.next(), now + 0.05 if queued else inf)

    def leave(self, address: str, client: Client) -> bool:
        """Give up the attempt of a client that is gone; whether it had one that was to wait.

        One that is being verified counts: who guesses must not have it undone by leaving.
        """
        queue = self._queues.get(address, [])
        running = self._attempt[1] if self._is_verifying(address) else None
        rest = [a for a in queue if a.client != client or a.password == running]
        if len(rest) == len(queue):
            return False
        self._queues[address] = rest
        if not rest:
            del self._queues[address]
        return True

    def _is_verifying(self, address: str) -> bool:
        return self._running is not None and self._attempt[0] == address

    def stop(self) -> list[Client]:
        """End all attempts; the clients that wait without an answer."""
        if self._running is not None:
            self._running.cancel()
            self._running = None
        waiting = [attempt.client for queue in self._queues.values() for attempt in queue]
        waiting += [client for client, _ in self._late.clear()]
        self._queues.clear()
        return waiting

    def _start_next(self, now: float) -> None:
        ready = [address for address in self._queues if self._may_go(address, now)]
        if self._running is not None or not ready:
            return
        address = min(ready, key=lambda address: self._failures.get(address, 0))
        password = self._queues[address][0].password
        self._attempt, self._started = (address, password), now
        if self.stored is None:  # a reload has taken the hash away while they waited
            self._finish(PWNO, now)
            return
        try:
            self._running = Verification(password, self.stored)
        except OSError:
            self._finish(FAIL, now)

    def _may_go(self, address: str, now: float) -> bool:
        if address in self._spacing:
            return False
        return address not in self._failures or now >= self._rested

    def _poll(self, now: float) -> list[tuple[Client, bytes]]:
        header = self._running.poll() if self._running is not None else None
        if header is None:
            return []
        self._running = None
        self._rested = now + self.REST * (now - self._started)
        return self._finish(header, now)

    def _finish(self, header: bytes, now: float) -> list[tuple[Client, bytes]]:
        """Answer everybody at this address who has asked the same."""
        address, password = self._attempt
        queue = self._queues.pop(address)
        rest = [attempt for attempt in queue if attempt.password != password]
        if rest:
            self._queues[address] = rest
        answers = [(attempt.client, header) for attempt in queue if attempt.password == password]
        if header == PWOK:
            return answers
        if header == PWNO:
            self._failures[address] = self._failures.pop(address, 0) + 1
            self._failed_at.start(address, now)
        self._spacing.start(address, now)
        for answer in answers:
            self._late.start(answer, now)
        return []
