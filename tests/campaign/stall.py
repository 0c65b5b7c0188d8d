"""The loop while a large day is compressed: it must not wait for that."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.campaign import turns
from tests.lab.client import Client
from tests.lab.daemon import Daemon

CONFIG = "listen: 127.0.0.1\ncompress: %s\n"
DAY = "2026-03-01"
_CHUNK = 1 << 20


class Phase(NamedTuple):
    """What a client that sends, and waits, and sends had of the daemon; and the loop's turns."""

    waits: list[float]
    turns: turns.Turns

    def __str__(self) -> str:
        waits = sorted(self.waits)
        return (
            f"{len(waits)} messages, one after the other: p50 {waits[len(waits) // 2]:.4f} s, "
            f"p99 {waits[len(waits) * 99 // 100]:.4f} s, worst {waits[-1]:.4f} s; {self.turns}"
        )


class Stall(NamedTuple):
    """Before the compression, and while it went on."""

    before: Phase
    during: Phase
    seconds: float

    def __str__(self) -> str:
        return f"before: {self.before}\n  while {self.seconds:.0f} s of it: {self.during}"


def measure(begin: Callable[..., Daemon], folder: Path, size: int, seconds: float) -> Stall:
    """Compress a day of so many bytes; ``seconds`` is how long the loop is watched before."""
    folder.mkdir(exist_ok=True)
    counts, day = folder / "turns", folder / "archive" / f"{DAY}.log"
    digest = _write_day(day, size)
    msgd = begin(CONFIG % "none", folder=folder, wrapper=turns.wrapper(counts))
    with msgd.line_client() as client:
        end = time.monotonic() + seconds
        before = _talk(msgd, client, counts, lambda: time.monotonic() < end)
        began = time.monotonic()
        msgd.config.write_text(CONFIG % "gzip")
        msgd.signal(signal.SIGHUP)
        during = _talk(msgd, client, counts, lambda: f"{day}: compressed" not in msgd.log)
        took = time.monotonic() - began
    assert not day.exists()
    assert _digest(day.with_suffix(".log.gz")) == digest
    assert len(msgd.texts()) == len(before.waits) + len(during.waits)
    assert msgd.stop() == 0
    return Stall(before, during, took)


def _talk(msgd: Daemon, client: Client, counts: Path, again: Callable[[], bool]) -> Phase:
    taken, waits = turns.read(counts), []
    while again():
        began = time.monotonic()
        assert client.ask(b"MESG a\n") == b"MESG a\n"
        waits.append(time.monotonic() - began)
        assert msgd.process.poll() is None, msgd.log
    return Phase(waits, turns.read(counts).since(taken))


def _write_day(day: Path, size: int) -> str:
    """Records that gzip makes about a third of; their digest."""
    day.parent.mkdir(mode=0o750)
    digest = hashlib.sha256()
    with day.open("wb") as file:
        for chunk in _chunks(size):
            file.write(chunk)
            digest.update(chunk)
        file.flush()
        os.fsync(file.fileno())  # or the disk would still be at it while the daemon is measured
    return digest.hexdigest()


def _chunks(size: int) -> Iterator[bytes]:
    chance = random.Random(size)
    blocks = [b"".join(_lines(chance)) for _ in range(16)]
    number = 0
    while size > 0:
        chunk = blocks[number % len(blocks)][:size]
        yield chunk[:-1] + b"\n"
        size, number = size - len(chunk), number + 1


def _lines(chance: random.Random) -> Iterator[bytes]:
    for number in range(_CHUNK // 128):
        words = chance.randbytes(30).hex()
        second = f"{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}"
        line = f"{DAY}T{second}.000000+00:00 10.0.0.{number % 256}:40000 {words}"
        yield line.ljust(127, ".").encode() + b"\n"


def _digest(packed: Path) -> str:
    digest = hashlib.sha256()
    with gzip.open(packed) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
