"""What is measured by pushing messages: each call is one run on a fresh server and folder."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from .generator import Run, Work, push, push_to_pipe, target
from .pairs import Figures
from .peers import PEERS, Peer
from .process import (
    LOAD_CORE,
    BenchError,
    cpu_seconds,
    resident_bytes,
    running,
)
from .servers import Served
from .stand import Stand

IDLE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Push:
    """The work, pushed at a peer: messages and lines a second, and waits in microseconds.

    And the server's processor time, in nanoseconds a message: 0 for one that has ended with it.
    """

    peer: str
    work: Work
    synced: bool = False

    def __call__(self, stand: Stand) -> Figures:
        """Raises BenchError when the work was not done, or acknowledged and archived differ."""
        peer = PEERS[self.peer]
        sync = peer.synced if self.synced else peer.not_synced
        assert sync is not None
        with stand.fresh() as directory, peer.serve(stand.tools, directory, sync) as served:
            before = cpu_seconds(served.pid)
            run = _pushed(stand, peer, served, scaled(self.work, stand))
            spent = 0.0 if served.piped else cpu_seconds(served.pid) - before
            archived = served.archived()
        expected = run.messages * (self.work.lines if peer.wire == "echo" else 1)
        if archived != expected:
            raise BenchError(f"{expected} messages were confirmed, {archived} are archived")
        return {**figures(run, self.work.lines), "ns": spent / run.messages * 1e9}


def figures(run: Run, lines: int = 1) -> Figures:
    rate = run.messages / run.seconds
    waits = {"p50": run.p50_us, "p99": run.p99_us, "worst": run.worst_us}
    return {"rate": rate, "lines": rate * lines, **waits}


def _pushed(stand: Stand, peer: Peer, served: Served, work: Work) -> Run:
    if served.piped:
        return push_to_pipe(stand.load, served.process, work)
    where = target(peer.wire, served.port, served.path, tls=peer.tls)
    return push(stand.load, where, work, file=served.count_file)


def scaled(work: Work, stand: Stand) -> Work:
    """The same work, less of it; at least two messages a connection."""
    messages = stand.scaled(work.messages, 2 * work.connections)
    waiting = stand.scaled(work.waiter_messages, 10) if work.waiters else 0
    return replace(work, messages=messages, waiter_messages=waiting)


@dataclass(frozen=True, slots=True)
class Idle:
    """So many silent connections: memory, processor time, and what another client notices."""

    connections: int

    def __call__(self, stand: Stand) -> Figures:
        peer = PEERS["msgd"]
        with stand.fresh() as directory, peer.serve(stand.tools, directory, "never") as served:
            without = self._wait(stand, served)
            base = resident_bytes(served.pid)
            with self._held(stand, served):
                grown = resident_bytes(served.pid) - base
                spent = cpu_seconds(served.pid)
                time.sleep(IDLE_SECONDS)
                spent = cpu_seconds(served.pid) - spent
                beside = self._wait(stand, served)
        return {
            "KiB": grown / self.connections / 1024,
            "processor": spent / IDLE_SECONDS,
            "p50": beside,
            "p50 of without": beside / without,
        }

    def _wait(self, stand: Stand, served: Served) -> float:
        """An active client's p50: the median of some runs."""
        work = scaled(Work(2_000, window=1), stand)
        runs = [_pushed(stand, PEERS["msgd"], served, work) for _ in range(5)]
        return median(run.p50_us for run in runs)

    @contextmanager
    def _held(self, stand: Stand, served: Served) -> Iterator[None]:
        command = [str(stand.load), *target("msgd", served.port), "--hold"]
        command.append(f"--connections={self.connections}")
        pipe = subprocess.PIPE
        with running(command, core=LOAD_CORE, stdin=pipe, stdout=pipe) as load:
            assert load.stdout is not None
            if not load.stdout.readline():
                raise BenchError(f"{self.connections} connections could not be opened")
            yield


@dataclass(frozen=True, slots=True)
class Days:
    """Pushing into an archive that has so many days already, and the start in it."""

    days: int

    def __call__(self, stand: Stand) -> Figures:
        peer, work = PEERS["msgd"], scaled(Work(800_000), stand)
        with stand.fresh() as directory:
            make_days(directory / "archive", self.days)
            begin = time.monotonic()
            with peer.serve(stand.tools, directory, "never") as served:
                start = time.monotonic() - begin
                run = _pushed(stand, peer, served, work)
        return {**figures(run), "start": start}


def make_days(archive: Path, days: int) -> None:
    """Finished days of one record each, ending long before today."""
    archive.mkdir()
    for number in range(days - 1):
        day = time.strftime("%Y-%m-%d", time.gmtime(1_000_000_000 + 86_400 * number))
        record = f"{day}T02:51:07.123456+00:00 127.0.0.1:40312 a day's only record\n"
        (archive / f"{day}.log").write_text(record)


@dataclass(frozen=True, slots=True)
class Restart:
    """From exec to `listening on` after kill -9, with so many bytes behind the state file.

    `lost`: the state file is gone as well, so all is read again.
    """

    size: int
    sessions: int = 16
    lost: bool = False

    def __call__(self, stand: Stand) -> Figures:
        peer = PEERS["msgd"]
        work = Work(stand.scaled(self.size // 150, 2 * self.sessions), self.sessions, session=True)
        with stand.fresh() as directory:
            with peer.serve(stand.tools, directory, "never") as served:
                _pushed(stand, peer, served, work)
                served.process.kill()
                served.process.wait()
            if self.lost:
                os.unlink(directory / "archive" / ".msgd.state")
            begin = time.monotonic()
            with peer.serve(stand.tools, directory, "never"):
                return {"start": time.monotonic() - begin}
