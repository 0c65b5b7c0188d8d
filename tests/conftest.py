"""The real daemon for tests: started on a free port, with an archive of its own."""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

settings.register_profile("msgd", deadline=None)  # no timing decides over a test
settings.load_profile("msgd")

# A shell starts what it puts in the background with SIGINT ignored, and children inherit that:
# Ctrl-C would do nothing in the programs under test.
signal.signal(signal.SIGINT, signal.default_int_handler)

SECONDS = 20.0  # the deadline of every wait; nothing waits that long unless it is broken
PASSWORD = "correct horse"
# scrypt with the least cost that msgd takes, so that tests do not spend their time in it.
PASSWORD_HASH = (
    "$scrypt$ln=4,r=8,p=1$LKnmI6uagaJgSY2E/umpgw$83wfq2O6s3BzcibqkWICNJXtCozUQnJ0ry3/R9VylMI"
)


def wait_for(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until the condition holds; fail when it does not in time."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"{what} did not come about"
        time.sleep(0.005)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Record(NamedTuple):
    """One record of the archive."""

    stamp: str
    origin: str
    text: str


_RECORD = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d) (\d[\d.]*:\d+|\[[0-9a-f:.]+\]:\d+) (.*)"
)


def parse(archive: str) -> list[Record]:
    """The records in an archive file; fails on a line that is neither record nor continuation."""
    records: list[Record] = []
    assert archive == "" or archive.endswith("\n")
    for line in archive.split("\n")[:-1]:
        if line.startswith("\t"):
            last = records.pop()
            records.append(last._replace(text=f"{last.text}\n{line[1:]}"))
        else:
            found = _RECORD.fullmatch(line)
            assert found, f"not a record: {line!r}"
            records.append(Record(*found.groups()))
    return records


class Client:
    """A socket to the daemon, with a deadline on every wait."""

    def __init__(self, address: tuple[str, int], source: str | None = None) -> None:
        bound = (source, 0) if source else None
        self.socket = socket.create_connection(address, SECONDS, source_address=bound)
        self._ahead = b""

    @property
    def origin(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self, size: int) -> bytes:
        """Exactly so many bytes, or fewer at the end of the stream."""
        while len(self._ahead) < size:
            data = self.socket.recv(1 << 16)
            if not data:
                break
            self._ahead += data
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        return data

    def expect(self, data: bytes) -> None:
        assert self.read(len(data)) == data

    def line(self) -> bytes:
        while b"\n" not in self._ahead:
            data = self.socket.recv(1 << 16)
            if not data:
                break
            self._ahead += data
        line, feed, self._ahead = self._ahead.partition(b"\n")
        return line + feed

    def ask(self, request: bytes) -> bytes:
        """Send a line, read a line."""
        self.send(request)
        return self.line()

    def finish(self) -> bytes:
        """Close our side; all that the server still says."""
        self.socket.shutdown(socket.SHUT_WR)
        return self.rest()

    def rest(self) -> bytes:
        data, self._ahead = self._ahead, b""
        while more := self.socket.recv(1 << 16):
            data += more
        return data

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Daemon:
    """A msgd in the foreground."""

    def __init__(
        self,
        folder: Path,
        config: str = "",
        *options: str,
        env: Mapping[str, str] | None = None,
        wrapper: tuple[str, ...] = (),
        ready: bool = True,
    ) -> None:
        self.folder = folder
        self.log_directory = folder / "archive"
        self.config = folder / "msgd.yaml"
        if config or not self.config.exists():
            self.config.write_text(config)
        self._log = ""
        self._clients: list[Client] = []
        command = [*wrapper, sys.executable, "-m", "msgd.daemon", "--config", str(self.config)]
        command += ["--port", "0", "--log-directory", str(self.log_directory), *options]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        assert self.process.stderr is not None
        os.set_blocking(self.process.stderr.fileno(), False)
        self.port = self._find_port() if ready else 0

    def _find_port(self) -> int:
        found = self.wait_log(r"listening on .*?:(\d+)\b")
        return int(found[1])

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """What the daemon has said on standard error so far."""
        assert self.process.stderr is not None
        while not self.process.stderr.closed and (data := self.process.stderr.read()):
            self._log += data.decode()
        return self._log

    def wait_log(self, pattern: str) -> re.Match[str]:
        """Wait until the daemon's log holds this."""
        assert self.process.stderr is not None
        end = time.monotonic() + SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stderr, selectors.EVENT_READ)
            while (found := re.search(pattern, self.log)) is None:
                assert time.monotonic() < end, f"{pattern!r} not in the log: {self._log}"
                assert self.process.poll() is None or re.search(pattern, self.log), (
                    f"msgd ended with {self.process.returncode}: {self.log}"
                )
                selector.select(0.1)
        return found

    def connect(self, hello: bytes = b"", source: str | None = None, host: str = "") -> Client:
        """A new client; with a hello it has shaken hands."""
        client = Client((host or "127.0.0.1", self.port), source)
        self._clients.append(client)
        if hello:
            client.send(hello)
            client.expect(hello.replace(b"PING", b"PONG").replace(b"\r", b""))
        return client

    def line_client(self) -> Client:
        return self.connect(b"PING\n")

    def bare_client(self) -> Client:
        return self.connect(b"PING")

    def files(self) -> list[Path]:
        return sorted(self.log_directory.glob("????-??-??.log"))

    def archive(self) -> bytes:
        return b"".join(path.read_bytes() for path in self.files())

    def records(self) -> list[Record]:
        return parse(self.archive().decode())

    def texts(self) -> list[str]:
        return [record.text for record in self.records()]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(SECONDS)

    def stop(self) -> int:
        """Stop it as asked; its exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it in any case, and close what tests have left open."""
        for client in self._clients:
            client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.log  # noqa: B018 (read what is left)
        self.process.stderr.close()


Start = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start daemons with a configuration; all are gone after the test."""
    daemons: list[Daemon] = []

    def make(config: str = "", *options: str, **more: object) -> Daemon:
        folder = tmp_path / str(len(daemons)) if "folder" not in more else more.pop("folder")
        assert isinstance(folder, Path)
        folder.mkdir(exist_ok=True)
        daemons.append(Daemon(folder, config, *options, **more))  # type: ignore[arg-type]
        return daemons[-1]

    yield make
    for daemon in daemons:
        if daemon.process.poll() is None:
            daemon.signal(signal.SIGTERM)
    for daemon in daemons:
        try:
            daemon.process.wait(SECONDS)
        finally:
            daemon.kill()
        assert "Traceback" not in daemon.log


@pytest.fixture
def msgd(start: Start) -> Daemon:
    """A daemon with the password `PASSWORD`, otherwise at its defaults."""
    return start(f"password_hash: {PASSWORD_HASH}\nlisten: 127.0.0.1\n")
