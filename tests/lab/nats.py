"""Real NATS servers with JetStream, alone or three as a cluster, all on loopback."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.lab.waiting import wait_for


def find_server() -> str | None:
    """The program: $NATS_SERVER, beside this Python (the test extra brings it), or on the path."""
    beside = Path(sys.executable).with_name("nats-server")
    return os.environ.get("NATS_SERVER") or (
        str(beside) if beside.exists() else shutil.which("nats-server")
    )


@cache
def can_sync() -> bool:
    """Whether it knows ``sync_interval: always``, which 2.9 of Debian 12 does not."""
    said = subprocess.run(
        [str(find_server()), "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"v(\d+)\.(\d+)", said.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= (2, 10)


def free_ports(number: int) -> list[int]:
    """Ports that nobody has now, of those that the kernel gives to nobody by itself: else another
    test's client might take one before its server does.
    """
    found: list[int] = []
    while len(found) < number:
        port = random.randrange(20_000, 30_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        if port not in found:
            found.append(port)
    return found


class NatsServer:
    """One server, which can be killed and started again on the same port and store."""

    def __init__(self, folder: Path, port: int, more: str = "", name: str = "n1") -> None:
        """``more`` is further configuration."""
        self.folder, self.port, self.name = folder, port, name
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "nats.conf"
        sync = ", sync_interval: always" if can_sync() else ""
        self.config.write_text(
            f"listen: 127.0.0.1:{port}\nserver_name: {name}\n"
            # On a small disk it would reckon with less than the streams of the tests ask for.
            f'jetstream {{ store_dir: "{folder}/store"{sync}, max_file_store: 20GB }}\n{more}'
        )
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self, *, wait: bool = True) -> None:
        program = find_server()
        assert program
        with open(self.folder / "nats.log", "ab") as log:
            self.process = subprocess.Popen(
                [program, "-c", str(self.config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Until it answers."""
        wait_for(self._answers, "a server that answers")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "nats.log").read_text()[-2000:]
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """kill -9; it may be started again."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def cluster(folder: Path, number: int = 3, more: str = "") -> list[NatsServer]:
    """Servers that know each other; not yet started."""
    ports = free_ports(2 * number)
    clients, routes = ports[:number], ports[number:]
    urls = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in routes)
    return [
        NatsServer(
            folder / f"n{at}",
            clients[at],
            f"cluster {{ name: c, listen: 127.0.0.1:{routes[at]}, routes: [{urls}] }}\n{more}",
            f"n{at}",
        )
        for at in range(number)
    ]
