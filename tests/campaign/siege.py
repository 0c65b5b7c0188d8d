"""A daemon under abuse, and what a well-behaved client has of it meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from msgd.password import Guard
from tests.campaign import abuse
from tests.campaign.soak import descriptors
from tests.conftest import PASSWORD, PASSWORD_HASH, Daemon, wait_for

MESSAGE_BYTES = 4096
CONFIG = (
    f"listen: 127.0.0.1\npassword_hash: {PASSWORD_HASH}\nlimits: {{message_bytes: {MESSAGE_BYTES}, "
    f"clients: {abuse.CLIENTS}, handshake_seconds: 2}}\n"
)


class Siege(NamedTuple):
    """What was measured: waits in seconds, memory in bytes."""

    waits: list[float]
    peak: int
    bound: int
    accepted_after: float

    def __str__(self) -> str:
        waits = sorted(self.waits)
        return (
            f"{len(waits)} messages of a well-behaved client: p50 {waits[len(waits) // 2]:.4f} s, "
            f"p99 {waits[len(waits) * 99 // 100]:.4f} s, worst {waits[-1]:.4f} s; "
            f"peak memory {self.peak >> 20} MiB (bound {self.bound >> 20} MiB); "
            f"password from another address accepted after {self.accepted_after:.2f} s"
        )


def lay(begin: Callable[..., Daemon], again: Callable[[int], bool]) -> Siege:
    """Attack as long as ``again`` says of the number of messages sent meanwhile."""
    msgd = begin(CONFIG)
    idle = descriptors(msgd.pid)
    waits: list[float] = []
    with msgd.line_client() as client, _attackers(msgd):
        wait_for(lambda: descriptors(msgd.pid) > abuse.CLIENTS // 3, "the siege")
        while again(len(waits)):
            message = b"MESG well-behaved %d\n" % len(waits)
            began = time.monotonic()
            assert client.ask(message) == message
            waits.append(time.monotonic() - began)
            assert "Traceback" not in msgd.log
    # Of the guessers who have left there are some whose password is still to be verified.
    wait_for(lambda: descriptors(msgd.pid) <= idle + Guard.WAITING, "descriptors are closed")
    assert sum(text.startswith("well-behaved") for text in msgd.texts()) == len(waits)
    with _attackers(msgd):
        wait_for(lambda: "asked to stop: PWNO" in msgd.log, "the guessers")
        with msgd.connect(b"PING\n", source="127.0.0.2") as administrator:
            began = time.monotonic()
            assert administrator.ask(f"TERM {PASSWORD}\n".encode()) == b"PWOK\n"
            accepted_after = time.monotonic() - began
        peak = abuse.peak_bytes(msgd.pid)
        assert msgd.wait() == 0
    return Siege(waits, peak, abuse.most_memory(abuse.CLIENTS, MESSAGE_BYTES), accepted_after)


@contextmanager
def _attackers(msgd: Daemon) -> Iterator[None]:
    """Another process, so that this one's waits are not its own."""
    command = [sys.executable, "-m", "tests.campaign.abuse", str(msgd.port), "600"]
    folder = Path(__file__).parents[2]
    quiet = {"stderr": subprocess.DEVNULL, "env": {**os.environ, "PYTHONPATH": str(folder)}}
    with subprocess.Popen(command, cwd=folder, **quiet) as process:  # type: ignore[call-overload]
        try:
            yield
        finally:
            process.kill()
