"""How each server is started its recommended fast way, and what its archive holds counted."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .counting import count_lines, count_records
from .process import free_port, read_announced_port, running, wait_for_port
from .tools import HERE, Tools, configure, python


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is ready."""

    port: int
    process: subprocess.Popen[bytes]
    archived: Callable[[], int]
    count_file: Path | None = None  # for a peer that acknowledges nothing: the file to watch
    piped: bool = False  # it reads a pipe, and has no port
    path: Path | None = None  # of a Unix-domain socket, to use instead of the port

    @property
    def pid(self) -> int:
        return self.process.pid


Serve = Callable[[Tools, Path, str], AbstractContextManager[Served]]


@contextmanager
def serve_limit(tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    path = directory / "archive"
    command = [str(tools.built / "limit"), str(path), *([sync] if sync != "off" else [])]
    with running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = read_announced_port(process.stdout)
        yield Served(port, process, lambda: count_lines(path))


@contextmanager
def serve_prototype(tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    path = directory / "archive"
    command = [python(), str(HERE / "prototype.py"), str(path)]
    command += ["sync"] if sync != "off" else []
    with running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = read_announced_port(process.stdout)
        yield Served(port, process, lambda: count_lines(path))


@contextmanager
def _serve_msgd(
    interpreter: str, kind: str, tools: Tools, directory: Path, sync: str
) -> Iterator[Served]:
    archive, path = directory / "archive", directory / "msgd.sock"
    listen = f"[127.0.0.1, {path}]" if kind == "local" else "127.0.0.1"
    tls = str({"TLS": tools.certificate, "RSA": tools.rsa}.get(kind, "none"))
    name = "msgd.yaml"
    configuration = configure(name, directory, 0, sync, tools, listen=listen, certificate=tls)
    command = [interpreter or python(), "-m", "msgd.daemon", "--config", str(configuration)]
    command += ["--log-directory", str(archive)]
    with running(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        port = read_announced_port(process.stderr)
        count = partial(count_records, archive)
        yield Served(port, process, count, path=path if kind == "local" else None)


def msgd(kind: str = "", interpreter: str = "") -> Serve:
    """`kind`: "TLS" and "RSA" (2048) offer it, "local" listens on a Unix-domain socket too."""
    return partial(_serve_msgd, interpreter, kind)


@contextmanager
def _serve_rsyslog(name: str, tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    port, out = free_port(), directory / "out.log"
    configuration = configure(f"rsyslog-{name}.conf", directory, port, sync, tools)
    command = [tools.need("rsyslogd"), "-n", "-f", str(configuration)]
    command += ["-i", str(directory / "pid")]
    with running(command) as process:
        wait_for_port(process, port)
        watched = None if name.startswith("imrelp") else out
        yield Served(port, process, lambda: count_lines(out), watched)


def rsyslog(name: str) -> Serve:
    return partial(_serve_rsyslog, name)


@contextmanager
def _serve_syslog_ng(name: str, tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    port, out = free_port(), directory / "out.log"
    command = [tools.need("syslog-ng"), "--foreground", "--no-caps"]
    command += [f"--cfgfile={configure(name, directory, port, sync, tools)}"]
    command += [f"--{name}={directory / name}" for name in ("persist-file", "control", "pidfile")]
    if tools.unpacked is not None:
        modules = sorted((tools.unpacked / "usr/lib/syslog-ng").glob("[0-9]*"))
        command += [f"--module-path={path}" for path in modules]
    with running(command, environment=tools.environment()) as process:
        wait_for_port(process, port)
        yield Served(port, process, lambda: count_lines(out), out)


def syslog_ng(name: str) -> Serve:
    return partial(_serve_syslog_ng, f"{name}.conf")


@contextmanager
def serve_redis(tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    port = free_port()
    configuration = configure("redis.conf", directory, port, sync, tools)
    command = [tools.need("redis-server"), str(configuration)]

    def length() -> int:
        answer = _ask(port, b"XLEN bench\r\n", b"\r\n")
        return int(answer[1:])

    with running(command) as process:
        wait_for_port(process, port)
        yield Served(port, process, length)


@contextmanager
def serve_nats(tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    port = free_port()
    configuration = configure("nats.conf", directory, port, sync, tools)
    stream = {"name": "bench", "subjects": ["bench"], "storage": "file"}
    command = [tools.need("nats-server"), "--config", str(configuration)]
    with running(command, environment=tools.environment()) as process:
        wait_for_port(process, port)
        _jetstream(port, "STREAM.CREATE.bench", json.dumps(stream))
        yield Served(port, process, lambda: _jetstream(port, "STREAM.INFO.bench", ""))


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
def serve_journal(tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    port, out = free_port(), directory / "out.journal"
    program = tools.need("systemd-journal-remote")
    options = ["--split-mode=none", "--compress=no", "--seal=no", f"--output={out}"]
    command = [program, f"--listen-http=127.0.0.1:{port}", *options]

    def entries() -> int:
        show = ["journalctl", f"--file={directory}/*.journal", "--output=cat", "--quiet"]
        done = subprocess.run(show, capture_output=True, check=True)
        return done.stdout.count(b"\n")

    with running(command, environment=tools.environment()) as process:
        wait_for_port(process, port)
        yield Served(port, process, entries)


@contextmanager
def serve_receiver(tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    path = directory / "out.log"
    command = [python(), str(HERE / "handlers.py"), "receive", str(path)]
    with running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = read_announced_port(process.stdout)
        yield Served(port, process, lambda: count_lines(path), path)


@contextmanager
def serve_multilog(tools: Tools, directory: Path, sync: str) -> Iterator[Served]:
    """multilog(8) reads a pipe; the generator writes to it, and its end ends multilog."""
    archive = directory / "log"
    command = [tools.need("multilog"), "t", "s16777215", "n1000", str(archive)]

    def lines() -> int:
        return sum(count_lines(path) for path in archive.glob("[@c]*"))

    with running(command, stdin=subprocess.PIPE) as process:
        yield Served(0, process, lines, piped=True)
