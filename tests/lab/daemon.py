"""The real daemon, in a process of its own: on a free port, with an archive of its own."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.lab.archive import Record, parse
from tests.lab.client import Client
from tests.lab.proc import descriptors
from tests.lab.waiting import SECONDS, wait_for

PASSWORD = "correct horse"
# scrypt with the least cost that msgd takes, so that tests do not spend their time in it.
PASSWORD_HASH = (
    "$scrypt$ln=4,r=8,p=1$LKnmI6uagaJgSY2E/umpgw$83wfq2O6s3BzcibqkWICNJXtCozUQnJ0ry3/R9VylMI"
)


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
        self._seen = 0  # bytes of the archive that are of no interest any more
        self._sockets = 0  # that are open without any client
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
        at = host if host.startswith("/") else (host or "127.0.0.1", self.port)
        client = Client(at, source)
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
        return b"".join(path.read_bytes() for path in self.files())[self._seen :]

    def begin_anew(self) -> None:
        """All clients are gone, and what was archived so far is out of sight."""
        self.close_clients()
        self._sockets = self._sockets or descriptors(self.pid, "socket:")
        wait_for(lambda: descriptors(self.pid, "socket:") <= self._sockets, "all clients are gone")
        self._seen += len(self.archive())

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

    def close_clients(self) -> None:
        """Those that tests have left open."""
        for client in self._clients:
            client.close()

    def kill(self) -> None:
        """End it in any case, and close what tests have left open."""
        self.close_clients()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.log  # noqa: B018 (read what is left)
        self.process.stderr.close()


Start = Callable[..., Daemon]
