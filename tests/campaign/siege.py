"""A daemon under abuse, and what a well-behaved client has of it meanwhile.

The figures are to be the daemon's: it has a processor to itself where the machine has two, and the
attackers share the other with the well-behaved client, which goes first there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.campaign import abuse, turns
from tests.campaign.bound import most_memory
from tests.lab.certificates import Authority
from tests.lab.client import Client
from tests.lab.daemon import PASSWORD, PASSWORD_HASH, Daemon
from tests.lab.proc import cpu_seconds, descriptors, peak_bytes
from tests.lab.waiting import wait_for

MESSAGE_BYTES = 4096
CLIENTS = sum(abuse.KINDS[kind].clients for kind in abuse.ABUSE) + 50  # some leave late
CONFIG = (
    f"listen: [127.0.0.1, %s]\npassword_hash: {PASSWORD_HASH}\n"
    f"limits: {{message_bytes: {MESSAGE_BYTES}, clients: {CLIENTS}, handshake_seconds: 2}}\n"
    f"proxy_from: {abuse.PROXY}\ntls: {{certificate: %s, key: %s}}\n"
)
SOCKET = "siege.sock"  # where the administrator comes from: all of 127/8 is one guesser
WINDOW = 1.0  # seconds over which processor time is measured


class Siege(NamedTuple):
    """What was measured: waits in seconds, memory in bytes, processor time in parts of one."""

    waits: list[float]
    turns: turns.Turns
    peak: int
    bound: int
    busy_after: float
    busy_stuck: float
    accepted_after: float

    def __str__(self) -> str:
        waits = sorted(self.waits)
        return (
            f"{len(waits)} messages of a well-behaved client: p50 {waits[len(waits) // 2]:.4f} s, "
            f"p99 {waits[len(waits) * 99 // 100]:.4f} s, worst {waits[-1]:.4f} s; {self.turns}; "
            f"peak memory {self.peak >> 20} MiB (bound {self.bound >> 20} MiB); "
            f"processor {self.busy_after:.1%} after it, {self.busy_stuck:.1%} with stuck clients; "
            f"password at the local socket accepted after {self.accepted_after:.2f} s"
        )


def lay(
    begin: Callable[..., Daemon],
    folder: Path,
    again: Callable[[int], bool],
    kinds: Sequence[str] = abuse.ABUSE,
) -> Siege:
    """Attack as long as ``again`` says of the number of messages sent meanwhile."""
    counts = folder / "turns"
    config = CONFIG % (folder / SOCKET, *Authority(folder).issue("localhost"))
    msgd = begin(config, folder=folder, wrapper=turns.wrapper(counts))
    with _apart(msgd), msgd.line_client() as client:
        before, idle = turns.read(counts), descriptors(msgd.pid)
        with _attackers(msgd, kinds):
            waits = [*_talk(msgd, client, again)]
            taken = turns.read(counts).since(before)
        _wait_until_left(msgd, idle)
        busy_after = _busy(msgd)
        busy_stuck = _busy_with_stuck(msgd)
        _wait_until_left(msgd, idle)
        assert [text for text in msgd.texts() if text.startswith("well-behaved")] == [
            f"well-behaved {number}" for number in range(len(waits))
        ]
        with _attackers(msgd, kinds):
            peak, accepted_after = peak_bytes(msgd.pid), _stop(msgd)
        assert msgd.wait() == 0
    bound = most_memory(CLIENTS, MESSAGE_BYTES, tls=True)
    return Siege(waits, taken, peak, bound, busy_after, busy_stuck, accepted_after)


def _talk(msgd: Daemon, client: Client, again: Callable[[int], bool]) -> Iterator[float]:
    """What a well-behaved client does; how long it waits for each echo."""
    number = 0
    while again(number):
        message = b"MESG well-behaved %d\n" % number
        began = time.monotonic()
        assert client.ask(message) == message
        yield time.monotonic() - began
        assert "Traceback" not in msgd.log
        number += 1


def _wait_until_left(msgd: Daemon, idle: int) -> None:
    """All who attacked are gone; of each the daemon must have let go."""
    wait_for(lambda: descriptors(msgd.pid) == idle, "descriptors are as before")


def _busy_with_stuck(msgd: Daemon) -> float:
    """Clients that do not read, finish or shake hands are there, and nobody sends."""
    config = msgd.config.read_text()
    msgd.config.write_text(config.replace("handshake_seconds: 2", "handshake_seconds: 600"))
    msgd.signal(signal.SIGHUP)
    msgd.wait_log("configuration read again")
    with _attackers(msgd, abuse.STUCK):
        return _busy(msgd)


def _busy(msgd: Daemon) -> float:
    """Which part of a processor the daemon takes, over a while."""
    used, began = cpu_seconds(msgd.pid), time.monotonic()
    time.sleep(WINDOW)  # the window in which its processor time is measured
    return (cpu_seconds(msgd.pid) - used) / (time.monotonic() - began)


def _stop(msgd: Daemon) -> float:
    """With the right password, from the local socket; how long that took.

    All places may be taken by those who attack and are late to leave: then it is tried again.
    """
    began = time.monotonic()
    wait_for(lambda: _is_let_in_to_stop(msgd), "a place for the administrator")
    return time.monotonic() - began


def _is_let_in_to_stop(msgd: Daemon) -> bool:
    with msgd.connect(host=str(msgd.folder / SOCKET)) as administrator:
        if administrator.ask(b"PING\n") != b"PONG\n":
            return False
        reply = administrator.ask(f"TERM {PASSWORD}\n".encode())
        assert reply == b"PWOK\n", reply
        return True


@contextmanager
def _apart(msgd: Daemon) -> Iterator[None]:
    """The daemon on one processor, all others on the rest, as far as there are two."""
    all_of_them = os.sched_getaffinity(0)
    first, *rest = sorted(all_of_them)
    if rest:
        os.sched_setaffinity(msgd.pid, {first})
        os.sched_setaffinity(0, rest)
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


@contextmanager
def _attackers(msgd: Daemon, kinds: Sequence[str]) -> Iterator[None]:
    """A process for each kind, which gives way to ours; from when all have come to their worst."""
    with ExitStack() as stack:
        processes = [stack.enter_context(_attacker(msgd.port, kind)) for kind in kinds]
        for kind, process in zip(kinds, processes, strict=True):
            assert process.stdout is not None
            assert process.stdout.readline() == b"in place\n", kind
        yield


@contextmanager
def _attacker(port: int, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    command = ["nice", sys.executable, "-m", "tests.campaign.abuse", str(port), kind]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        process.kill()
