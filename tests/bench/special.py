"""What is measured otherwise than by pushing: idle connections, start, memory, msgctl."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .generator import Work, make_lines, push
from .peers import PEERS, Served, Tools, count_records, msgd_command, python
from .process import (
    LOAD_CORE,
    SERVER_CORE,
    BenchError,
    cpu_seconds,
    pinned,
    read_announced_port,
    resident_bytes,
    running,
)
from .runner import fresh_directory

IDLE_SECONDS = 2.0
WAIT_RUNS = 5

Measure = Callable[[Tools, Path, float], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Special:
    key: str
    measure: Measure


def _idle(connections: int) -> Measure:
    def measure(tools: Tools, parent: Path, scale: float) -> dict[str, float]:
        """Memory a connection, processor time while nothing happens, an active client's wait."""
        serve = PEERS["msgd"].serve
        with fresh_directory(parent) as directory, serve(tools, directory, "never") as served:
            before = _waits(tools, served, scale)
            base = resident_bytes(served.pid)
            with _held(tools, served, connections):
                grown = resident_bytes(served.pid) - base
                spent = cpu_seconds(served.pid)
                time.sleep(IDLE_SECONDS)
                spent = cpu_seconds(served.pid) - spent
                beside = _waits(tools, served, scale)
        return {
            "bytes a connection": grown / connections,
            "processor share": spent / IDLE_SECONDS,
            "p50_us without": before[0],
            "p50_us": beside[0],
            "p99_us without": before[1],
            "p99_us": beside[1],
        }

    return measure


def _waits(tools: Tools, served: Served, scale: float) -> tuple[float, float]:
    """An active client's p50 and p99, as medians: a single run differs by a fifth from the next."""
    work = Work(max(int(5_000 * scale), 500), window=1)
    runs = [
        push(tools.built / "load", "msgd", served.port, work, count_file=None)
        for _ in range(WAIT_RUNS)
    ]
    return median(run.p50_us for run in runs), median(run.p99_us for run in runs)


@contextmanager
def _held(tools: Tools, served: Served, connections: int) -> Iterator[None]:
    """So many clients that have shaken hands and then say nothing."""
    command = [str(tools.built / "load"), "--wire=msgd", f"--port={served.port}", "--hold"]
    command.append(f"--connections={connections}")
    with running(command, core=LOAD_CORE, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
        assert load.stdout is not None
        if not load.stdout.readline():
            raise BenchError(f"{connections} connections could not be opened")
        yield


def _start(tools: Tools, parent: Path, scale: float) -> dict[str, float]:
    """From exec to the line `listening on`, beside the imports that it cannot do without."""
    with fresh_directory(parent) as directory:
        command = [*msgd_command(), "--port", "0", "--log-directory", str(directory / "archive")]
        begin = time.monotonic()
        with running(command, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            read_announced_port(process.stderr)
            ready = time.monotonic() - begin
            resident = resident_bytes(process.pid)
    begin = time.monotonic()
    imports = [python(), "-c", "import yaml, click"]
    subprocess.run(pinned(SERVER_CORE, imports), check=True)
    return {
        "seconds": ready,
        "imports": time.monotonic() - begin,
        "resident bytes": float(resident),
    }


def _msgctl(tools: Tools, parent: Path, scale: float) -> dict[str, float]:
    """`msgctl send --file` of a million lines, then the generator with the same lines."""
    lines = int(1_000_000 * scale)
    with fresh_directory(parent) as directory:
        path = directory / "lines"
        make_lines(tools.built / "load", path, Work(lines))
        with PEERS["msgd"].serve(tools, directory, "never") as served:
            seconds, peak = _send_file(served.port, path)
            if count_records(directory / "archive") != lines:
                raise BenchError("msgctl: not every line is archived")
        path.unlink()
        with (
            fresh_directory(parent) as other,
            PEERS["msgd"].serve(tools, other, "never") as served,
        ):
            run = push(tools.built / "load", "msgd", served.port, Work(lines), count_file=None)
    return {
        "messages a second": lines / seconds,
        "generator": run.messages / run.seconds,
        "peak bytes": float(peak),
    }


def _send_file(port: int, path: Path) -> tuple[float, int]:
    """Seconds and the peak of resident memory in bytes (ru_maxrss of wait4(2))."""
    msgctl = [*msgd_command("msgd.ctl"), "send", "-p", str(port), "-q", "--file", str(path)]
    command = pinned(LOAD_CORE, msgctl)
    begin = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stderr is not None
    words = process.stderr.read().decode(errors="replace").strip()
    process.stderr.close()
    if process.returncode != 0:
        raise BenchError(f"msgctl ended with status {process.returncode}: {words}")
    return seconds, usage.ru_maxrss * 1024


ALL = (
    Special("idle/5000", _idle(5_000)),
    Special("idle/10000", _idle(10_000)),
    Special("start", _start),
    Special("msgctl", _msgctl),
)
