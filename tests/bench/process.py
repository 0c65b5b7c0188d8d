"""Processes on a core of their own: started, waited for, looked at, ended by their own id."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

SERVER_CORE = 0
LOAD_CORE = 1 if (os.cpu_count() or 1) > 1 else 0

START_SECONDS = 60.0  # also under callgrind, on a busy machine
STOP_SECONDS = 30.0


class BenchError(Exception):
    """A run that gave no figure; str() says why in one line."""


def pinned(core: int, command: Sequence[str]) -> list[str]:
    return ["taskset", "--cpu-list", str(core), *command]


@contextmanager
def running(
    command: Sequence[str],
    *,
    core: int = SERVER_CORE,
    environment: dict[str, str] | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """A server for the time of the block; it is asked to stop at the end, and then made to."""
    process = subprocess.Popen(
        pinned(core, command), env=environment, stdin=stdin, stdout=stdout, stderr=stderr
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    """Returns when somebody accepts on the port. Raises BenchError when the process ends first."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"the server ended with status {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise BenchError(f"nobody listens on port {port}")


def wait_until(condition: Callable[[], bool], words: str) -> None:
    """Raises BenchError when it has not come true in time."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"not so after {START_SECONDS:.0f} s: {words}")
        time.sleep(0.005)


def read_announced_port(stream: IO[bytes]) -> int:
    """The port from a line `… listening on 127.0.0.1:PORT`. Raises BenchError at the end."""
    deadline = time.monotonic() + START_SECONDS
    seen = b""
    marker = b"listening on 127.0.0.1:"
    while time.monotonic() < deadline:
        if not select.select([stream], [], [], 0.1)[0]:
            continue
        piece = os.read(stream.fileno(), 4096)
        seen += piece
        _, found, rest = seen.partition(marker)
        if found and b"\n" in rest:
            digits = rest[: len(rest) - len(rest.lstrip(b"0123456789"))]
            return int(digits)
        if not piece:
            break
    raise BenchError(f"the server did not start: {seen.decode(errors='replace').strip()}")


def resident_bytes(pid: int) -> int:
    """VmRSS of proc(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"process {pid} is gone")


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads so far: the kernel's own sum, in nanoseconds (schedstat)."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
