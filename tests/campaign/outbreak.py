"""Thousands of clients, who have prepared, break out at once: what a well-behaved one has of it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from tests.campaign import turns
from tests.campaign.bound import most_memory
from tests.lab.certificates import Authority
from tests.lab.daemon import Daemon
from tests.lab.proc import peak_bytes

ROOT = Path(__file__).parents[2]
CLIENTS, MESSAGE_BYTES = 4096, 65536
CONFIG = (
    f"listen: 127.0.0.1\nlimits: {{message_bytes: {MESSAGE_BYTES}, clients: {CLIENTS}}}\n"
    "tls: {certificate: %s, key: %s}\n"
)


class Outbreak(NamedTuple):
    """What was measured: of each wait the seconds, and the daemon's own; memory in bytes."""

    waits: list[float]
    work: list[float]
    turns: turns.Turns
    peak: int
    bound: int

    def __str__(self) -> str:
        return (
            f"{len(self.waits)} messages of a well-behaved client: {_quantiles(self.waits)}; the "
            f"daemon's work meanwhile: {_quantiles(self.work)}; {self.turns}; "
            f"peak memory {self.peak >> 20} MiB (bound {self.bound >> 20} MiB)"
        )


def _quantiles(seconds: list[float]) -> str:
    in_order = sorted(seconds)
    middle, late = in_order[len(seconds) // 2], in_order[len(seconds) * 99 // 100]
    return f"p50 {middle:.4f} s, p99 {late:.4f} s, worst {in_order[-1]:.4f} s"


def lay(
    begin: Callable[..., Daemon],
    folder: Path,
    kind: str,
    clients: int,
    again: Callable[[int], bool],
) -> Outbreak:
    """Measure from the first outbreak on, as long as ``again`` says of the number of messages."""
    counts = folder / "turns"
    server = Authority(folder).issue("localhost", "127.0.0.1")
    msgd = begin(
        CONFIG % (server.certificate, server.key), folder=folder, wrapper=turns.wrapper(counts)
    )
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(msgd.pid, {min(os.sched_getaffinity(0))})
    port, waits = str(msgd.port), list[tuple[float, ...]]()
    with (
        _program("polite", port, str(msgd.pid)) as polite,
        _program("sleepers", port, kind, str(clients), nice=True),
    ):
        before = turns.read(counts)
        while again(len(waits)):
            waits.append(tuple(map(float, polite.readline().split())))
        taken = turns.read(counts).since(before)
    assert "Traceback" not in msgd.log
    peak = peak_bytes(msgd.pid)
    msgd.kill()  # asked to stop, it would take all that is prepared first
    texts = [text for text in msgd.texts() if text.startswith("well-behaved")]
    assert texts[: len(waits)] == [f"well-behaved {number}" for number in range(len(waits))]
    bound = most_memory(clients, MESSAGE_BYTES, tls=True)
    return Outbreak([wall for wall, _ in waits], [work for _, work in waits], taken, peak, bound)


@contextmanager
def _program(name: str, *options: str, nice: bool = False) -> Iterator[IO[bytes]]:
    """What it writes, from when it is in place."""
    command = ["nice"] * nice + [sys.executable, "-m", f"tests.campaign.{name}", *options]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"in place\n"
            yield process.stdout
        finally:
            process.kill()
