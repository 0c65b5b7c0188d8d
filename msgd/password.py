"""Passwords: hash, verify, and who may have one verified when.

A hash is a string in the PHC form ``$scrypt$ln=15,r=8,p=1$salt$hash``, with base64 without
padding. scrypt (RFC 7914) is slow on purpose: a process of its own computes it, so that the
daemon's loop never waits for it.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
from contextlib import suppress
from math import inf
from typing import Generic, NamedTuple, TypeVar

from msgd.headers import FAIL, PWNO, PWOK
from msgd.timeouts import Alarm, Timeouts

Client = TypeVar("Client")

_FORM = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)", re.ASCII
)
_LN, _R, _P = 15, 8, 1  # 32 MiB and about 0.1 s
_SALT_BYTES, _HASH_BYTES = 16, 32
_MOST_MEMORY = 128 << 20  # bytes that a configured hash may ask for
_MOST_PARALLEL = 16


class _Hash(NamedTuple):
    ln: int
    r: int
    p: int
    salt: bytes
    hash: bytes

    def compute(self, password: bytes) -> bytes:
        import hashlib  # 3 MB of OpenSSL, which only the process that needs it loads

        memory = 128 * self.r * ((1 << self.ln) + self.p + 2)  # RFC 7914, section 5 and 6
        return hashlib.scrypt(
            password,
            salt=self.salt,
            n=1 << self.ln,
            r=self.r,
            p=self.p,
            maxmem=memory + (1 << 20),
            dklen=len(self.hash),
        )


def _parse(text: str) -> _Hash:
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError("not a hash as `msgd hash-password` prints it")
    ln, r, p = (int(number) for number in found.group(1, 2, 3))
    if not (
        1 <= ln <= 20 and r >= 1 and 128 * r << ln <= _MOST_MEMORY and 1 <= p <= _MOST_PARALLEL
    ):
        raise ValueError("asks for too much: at most 128 MiB (128 * r * 2^ln bytes) and p=16")
    try:
        salt, digest = map(_decode, found.group(4, 5))
    except ValueError:
        raise ValueError("salt or hash is not base64") from None
    if not (8 <= len(salt) <= 64 and 16 <= len(digest) <= 64):
        raise ValueError("salt or hash has the wrong length")
    return _Hash(ln, r, p, salt, digest)


def _decode(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4))


def check_hash(text: str) -> None:
    """Raises ValueError, in words for the administrator, for what `verify` cannot use."""
    _parse(text)


def hash_password(password: bytes) -> str:
    """The string for ``password_hash`` in the configuration, with a new salt each time."""
    empty = _Hash(_LN, _R, _P, os.urandom(_SALT_BYTES), bytes(_HASH_BYTES))
    salt, digest = (
        base64.b64encode(part).decode().rstrip("=")
        for part in (empty.salt, empty.compute(password))
    )
    return f"$scrypt$ln={_LN},r={_R},p={_P}${salt}${digest}"


def verify(password: bytes, text: str) -> bool:
    """Whether the password has this hash; takes as long for a wrong one as for a right one."""
    import hmac

    stored = _parse(text)
    return hmac.compare_digest(stored.compute(password), stored.hash)


class _Verification:
    """`verify` in a process of its own."""

    def __init__(self, password: bytes, stored: str) -> None:
        """Raises OSError where there can be no more processes."""
        self._verdict, child_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._pid = os.fork()
        except OSError:
            os.close(self._verdict)
            os.close(child_end)
            raise
        if self._pid == 0:
            _verify_and_exit(password, stored, child_end)
        os.close(child_end)

    def poll(self) -> bytes | None:
        """The header of the answer, or None while there is none."""
        try:
            verdict = os.read(self._verdict, 1)
        except BlockingIOError:
            return None
        self._reap()
        return {b"1": PWOK, b"0": PWNO}.get(verdict, FAIL)

    def cancel(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        os.close(self._verdict)
        os.waitpid(self._pid, 0)


def _verify_and_exit(password: bytes, stored: str, verdict: int) -> None:
    """The forked child: it must hold nothing of the daemon's open, above all not the lock."""
    with suppress(BaseException):
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for fd in map(int, os.listdir("/proc/self/fd")):
            if fd not in (2, verdict):
                with suppress(OSError):
                    os.close(fd)
        os.write(verdict, b"1" if verify(password, stored) else b"0")
    os._exit(0)


def _neighbourhood(address: str) -> str:
    """An IPv6 host has a whole /64 to itself (RFC 4291, section 2.5.4): that counts as one."""
    if ":" not in address:
        return address
    return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])[:8].hex()


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
        self._running: _Verification | None = None
        self._attempt = ("", b"")
        self._started = self._rested = 0.0

    def ask(self, address: str, client: Client, password: bytes, now: float) -> None:
        """Take an attempt; `step` returns its answer later, never at once."""
        address = _neighbourhood(address)
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
        address = _neighbourhood(address)
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
            self._running = _Verification(password, self.stored)
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
