"""The servers under measure: how each is started its recommended fast way, and its archive counted.

The configurations stand in the folder `peers/`, with @PORT@, @DIRECTORY@ and @SYNC@ to fill in.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .machine import first_line
from .process import free_port, read_announced_port, running, wait_for_port

CONFIGURATIONS = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True)
class Tools:
    """Where programs are: the built C programs, and packages that were only unpacked."""

    built: Path
    unpacked: Path | None

    def find(self, program: str) -> str | None:
        found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/lib/systemd")
        if found is None and self.unpacked is not None:
            folders = ("usr/bin", "usr/sbin", "lib/systemd", "usr/lib/systemd")
            places = ":".join(str(self.unpacked / folder) for folder in folders)
            found = shutil.which(program, path=places)
        return found

    def environment(self) -> dict[str, str]:
        """The libraries of unpacked packages, for programs that are not installed."""
        if self.unpacked is None:
            return dict(os.environ)
        machine = f"{os.uname().machine}-linux-gnu"
        libraries = ("lib", machine), ("usr/lib", machine), ("usr/lib", "syslog-ng")
        paths = [self.unpacked / folder / name for folder, name in libraries]
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, paths))}


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is ready."""

    port: int
    pid: int
    archived: Callable[[], int]
    count_file: Path | None = None  # for a peer that acknowledges nothing: the file to watch
    pipe: subprocess.Popen[bytes] | None = None  # for a peer that reads a pipe and has no port


Serve = Callable[[Tools, Path, str], AbstractContextManager[Served]]


@dataclass(frozen=True, slots=True)
class Peer:
    name: str
    program: str
    wire: str
    serve: Serve
    version: tuple[str, ...]
    not_synced: str = "off"
    synced: str | None = None  # None: it cannot
    acknowledges: bool = True

    def describe_version(self, tools: Tools) -> str | None:
        """What the program says of its version; None where it is not installed."""
        found = tools.find(self.program)
        if found is None:
            return None
        words = first_line([found, *self.version], tools.environment()) if self.version else ""
        number = re.search(r"\d+(\.\d+)+", words)
        return number.group() if number else "installed"


def count_lines(path: Path) -> int:
    """Line feeds in a file."""
    return sum(block.count(b"\n") for block in _blocks(path))


def count_records(directory: Path) -> int:
    """Records in msgd's day files: the lines that do not begin with a TAB."""
    total = 0
    for path in directory.glob("????-??-??.log"):
        last = b"\n"
        for block in _blocks(path):
            total += block.count(b"\n") - (last + block).count(b"\n\t")
            last = block[-1:]
    return total


def _blocks(path: Path) -> Iterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


def configure(name: str, directory: Path, port: int, sync: str) -> Path:
    text = (CONFIGURATIONS / name).read_text()
    values = {"@PORT@": str(port), "@DIRECTORY@": str(directory), "@SYNC@": sync}
    for mark, value in values.items():
        text = text.replace(mark, value)
    path = directory / name
    path.write_text(text)
    return path


@contextmanager
def _serve_limit(tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    path = directory / "archive"
    command = [str(tools.built / "limit"), str(path), *([sync] if sync != "off" else [])]
    with running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = read_announced_port(process.stdout)
        yield Served(port, process.pid, lambda: count_lines(path))


@contextmanager
def _serve_msgd(tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    archive = directory / "archive"
    configuration = configure("msgd.yaml", directory, 0, sync)
    command = [*msgd_command(), "--config", str(configuration), "--log-directory", str(archive)]
    with running(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        port = read_announced_port(process.stderr)
        yield Served(port, process.pid, lambda: count_records(archive))


@cache
def python() -> str:
    """The interpreter that runs msgd: the distribution's, as its package has it.

    The peers are the distribution's builds too. Where it lacks what msgd imports, this one.
    """
    own = "/usr/bin/python3"
    command = [own, "-c", "import click, daemon, yaml"]
    try:
        done = subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return sys.executable
    return own if done.returncode == 0 else sys.executable


def msgd_command(module: str = "msgd.daemon") -> list[str]:
    """The daemon (or msgctl, as ``msgd.ctl``) of this folder."""
    return [python(), "-m", module]


@contextmanager
def _serve_rsyslog(name: str, tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    port, out = free_port(), directory / "out.log"
    configuration = configure(f"rsyslog-{name}.conf", directory, port, sync)
    program = tools.find("rsyslogd") or "rsyslogd"
    command = [program, "-n", "-f", str(configuration), "-i", str(directory / "pid")]
    with running(command) as process:
        wait_for_port(process, port)
        watched = out if name == "imptcp" else None
        yield Served(port, process.pid, lambda: count_lines(out), watched)


def _rsyslog(name: str) -> Serve:
    return lambda tools, directory, sync: _serve_rsyslog(name, tools, directory, sync)


@contextmanager
def _serve_syslog_ng(tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    port, out = free_port(), directory / "out.log"
    command = [tools.find("syslog-ng") or "syslog-ng", "--foreground", "--no-caps"]
    command += [f"--cfgfile={configure('syslog-ng.conf', directory, port, sync)}"]
    command += [f"--{name}={directory / name}" for name in ("persist-file", "control", "pidfile")]
    if tools.unpacked is not None:
        modules = sorted((tools.unpacked / "usr/lib/syslog-ng").glob("[0-9]*"))
        command += [f"--module-path={path}" for path in modules]
    with running(command, environment=tools.environment()) as process:
        wait_for_port(process, port)
        yield Served(port, process.pid, lambda: count_lines(out), out)


@contextmanager
def _serve_redis(tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    port = free_port()
    configuration = configure("redis.conf", directory, port, sync)
    command = [tools.find("redis-server") or "redis-server", str(configuration)]

    def length() -> int:
        answer = _ask(port, b"XLEN bench\r\n", b"\r\n")
        return int(answer[1:])

    with running(command) as process:
        wait_for_port(process, port)
        yield Served(port, process.pid, length)


@contextmanager
def _serve_nats(tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    port = free_port()
    configuration = configure("nats.conf", directory, port, sync)
    stream = {"name": "bench", "subjects": ["bench"], "storage": "file"}
    command = [tools.find("nats-server") or "nats-server", "--config", str(configuration)]
    with running(command, environment=tools.environment()) as process:
        wait_for_port(process, port)
        _jetstream(port, "STREAM.CREATE.bench", json.dumps(stream))
        yield Served(port, process.pid, lambda: _jetstream(port, "STREAM.INFO.bench", ""))


def _jetstream(port: int, subject: str, body: str) -> int:
    """One request of the JetStream API; returns the stream's number of messages."""
    request = (
        f"CONNECT {{}}\r\nSUB reply 1\r\nPUB $JS.API.{subject} reply {len(body)}\r\n{body}\r\n"
    )
    answer = _ask(port, request.encode(), b"}\r\n", after=b"MSG reply")
    found = re.search(rb'"messages":(\d+)', answer)
    if found is None:
        raise ValueError(answer.decode(errors="replace"))
    return int(found.group(1))


def _ask(port: int, request: bytes, end: bytes, after: bytes = b"") -> bytes:
    """Sends a request; returns what came when `end` ends it behind a line with `after`."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while not (after in answer and answer.endswith(end)):
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
        return answer


@contextmanager
def _serve_journal(tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    port, out = free_port(), directory / "out.journal"
    program = tools.find("systemd-journal-remote") or "systemd-journal-remote"
    options = ["--split-mode=none", "--compress=no", "--seal=no", f"--output={out}"]
    command = [program, f"--listen-http=127.0.0.1:{port}", *options]

    def entries() -> int:
        show = ["journalctl", f"--file={directory}/*.journal", "--output=cat", "--quiet"]
        done = subprocess.run(show, capture_output=True, check=True)
        return done.stdout.count(b"\n")

    with running(command, environment=tools.environment()) as process:
        wait_for_port(process, port)
        yield Served(port, process.pid, entries)


@contextmanager
def _serve_multilog(tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    """multilog(8) reads a pipe; the generator writes to it, and its end ends multilog."""
    archive = directory / "log"
    command = ["multilog", "t", "s16777215", "n1000", str(archive)]

    def lines() -> int:
        return sum(count_lines(path) for path in archive.glob("[@c]*"))

    with running(command, stdin=subprocess.PIPE) as process:
        yield Served(0, process.pid, lines, pipe=process)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("C limit", "cc", "echo", _serve_limit, (), synced="sync"),
        Peer("msgd", "python3", "msgd", _serve_msgd, (), "never", synced="always"),
        Peer(
            "rsyslog imptcp",
            "rsyslogd",
            "syslog",
            _rsyslog("imptcp"),
            ("-v",),
            synced="on",
            acknowledges=False,
        ),
        Peer("multilog", "multilog", "pipe", _serve_multilog, (), acknowledges=False),
        Peer(
            "redis XADD",
            "redis-server",
            "redis",
            _serve_redis,
            ("--version",),
            "everysec",
            synced="always",
        ),
        Peer(
            "syslog-ng",
            "syslog-ng",
            "syslog",
            _serve_syslog_ng,
            ("--version",),
            "no",
            synced="yes",
            acknowledges=False,
        ),
        Peer("nats JetStream", "nats-server", "nats", _serve_nats, ("--version",)),
        Peer("journal-remote", "systemd-journal-remote", "journal", _serve_journal, ("--version",)),
        Peer("rsyslog imrelp", "rsyslogd", "relp", _rsyslog("imrelp"), ("-v",), synced="on"),
    )
}
