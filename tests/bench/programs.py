"""What is measured by running whole programs: msgctl beside logger, nc and redis-cli; the start."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .generator import Work, make_lines
from .pairs import Figures
from .peers import PEERS
from .process import LOAD_CORE, SERVER_CORE, BenchError, pinned, resident_bytes, wait_until
from .servers import Served
from .stand import Stand
from .tools import Tools, python

TEXT = "the quick brown fox jumps over the lazy dog 0123456789 and goes home"

Command = Callable[[Tools, Served, Path], list[str]]


def msgctl(tools: Tools, served: Served, _: Path) -> list[str]:
    return [python(), "-m", "msgd.ctl", "send", "-p", str(served.port), "-q"]


def logger(tools: Tools, served: Served, _: Path) -> list[str]:
    server = ["--server", "127.0.0.1", "--port", str(served.port)]
    return [tools.need("logger"), "--tcp", *server, "--rfc3164"]


def redis_cli(tools: Tools, served: Served, _: Path) -> list[str]:
    return [tools.need("redis-cli"), "-p", str(served.port), "XADD", "bench", "*", "m"]


def msgctl_file(tools: Tools, served: Served, path: Path) -> list[str]:
    return [*msgctl(tools, served, path), "--file", str(path)]


def logger_file(tools: Tools, served: Served, path: Path) -> list[str]:
    return [*logger(tools, served, path), "--file", str(path)]


def nc_file(tools: Tools, served: Served, path: Path) -> list[str]:
    """To msgd: the same bytes that msgctl sends, but nobody looks at what comes back."""
    script = '{ echo PING; sed "s/^/MESG /" "$1"; } | "$0" -N 127.0.0.1 "$2" >/dev/null'
    return ["sh", "-c", script, tools.need("nc"), str(path), str(served.port)]


@dataclass(frozen=True, slots=True)
class SendOne:
    """Milliseconds of a whole process that sends one message; the median of some."""

    peer: str
    command: Command
    repeat: int = 7

    def __call__(self, stand: Stand) -> Figures:
        peer, taken = PEERS[self.peer], []
        with (
            stand.fresh() as directory,
            peer.serve(stand.tools, directory, peer.not_synced) as served,
        ):
            command = [*self.command(stand.tools, served, directory), TEXT]
            for _ in range(self.repeat):
                begin = time.monotonic()
                run_program(command)
                taken.append(time.monotonic() - begin)
            wait_until(lambda: served.archived() == self.repeat, "its messages are archived")
        return {"ms": median(taken) * 1000}


@dataclass(frozen=True, slots=True)
class SendFile:
    """Lines a second from the start of the program until all are archived, and its memory."""

    peer: str
    command: Command
    lines: int

    def __call__(self, stand: Stand) -> Figures:
        peer, lines = PEERS[self.peer], stand.scaled(self.lines)
        with stand.fresh() as directory:
            path = directory / "lines"
            make_lines(stand.load, path, Work(lines))
            with peer.serve(stand.tools, directory, peer.not_synced) as served:
                command = self.command(stand.tools, served, path)
                begin = time.monotonic()
                peak = run_program(command)
                if served.count_file is not None:
                    wait_until(lambda: served.archived() >= lines, "all lines are archived")
                seconds = time.monotonic() - begin
                if served.archived() != lines:
                    raise BenchError(f"{lines} lines were sent, {served.archived()} are archived")
        return {"rate": lines / seconds, "MiB": peak / (1 << 20)}


def run_program(command: list[str]) -> int:
    """Runs it on the clients' core; the peak of its memory in bytes (ru_maxrss of wait4(2))."""
    process = subprocess.Popen(
        pinned(LOAD_CORE, command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.stderr is not None
    words = process.stderr.read().decode(errors="replace").strip()
    process.stderr.close()
    if process.returncode != 0:
        raise BenchError(f"{command[0]} ended with status {process.returncode}: {words}")
    return usage.ru_maxrss * 1024


def start(stand: Stand) -> Figures:
    """From exec to the line `listening on`, beside the imports that it cannot do without."""
    peer = PEERS["msgd"]
    begin = time.monotonic()
    with stand.fresh() as directory, peer.serve(stand.tools, directory, "never") as served:
        ready = time.monotonic() - begin
        resident = resident_bytes(served.pid)
    begin = time.monotonic()
    subprocess.run(pinned(SERVER_CORE, [python(), "-c", "import yaml, click"]), check=True)
    imports = time.monotonic() - begin
    return {"seconds": ready, "of imports": ready / imports, "MiB": resident / (1 << 20)}
