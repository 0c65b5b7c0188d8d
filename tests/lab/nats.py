"""Real NATS servers with JetStream, alone or three as a cluster, all on loopback."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

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


class Place(NamedTuple):
    """Where a server runs: its address, and what its command begins with."""

    host: str = "127.0.0.1"
    inside: tuple[str, ...] = ()


HERE = Place()


class NatsServer:
    """One server, which can be killed and started again on the same port and store."""

    def __init__(
        self, folder: Path, port: int, more: str = "", name: str = "n1", place: Place = HERE
    ) -> None:
        """``more`` is further configuration."""
        self.folder, self.port, self.name, self.place = folder, port, name, place
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "nats.conf"
        sync = ", sync_interval: always" if can_sync() else ""
        self.config.write_text(
            f"listen: {place.host}:{port}\nserver_name: {name}\n"
            # On a small disk it would reckon with less than the streams of the tests ask for.
            f'jetstream {{ store_dir: "{folder}/store"{sync}, max_file_store: 20GB }}\n{more}'
        )
        self.process: subprocess.Popen[bytes] | None = None
        self._said = 0  # bytes of its log before the last start

    @property
    def url(self) -> str:
        return f"nats://{self.place.host}:{self.port}"

    def start(self, *, wait: bool = True) -> None:
        program = find_server()
        assert program
        with open(self.folder / "nats.log", "ab") as log:
            self._said = log.tell()
            self.process = subprocess.Popen(
                [*self.place.inside, program, "-c", str(self.config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Until it answers."""
        wait_for(self._answers, "a server that answers")

    def _answers(self) -> bool:
        assert self.process is not None
        said = (self.folder / "nats.log").read_bytes()[self._said :]
        assert self.process.poll() is None, said[-2000:].decode()
        return b"Server is ready" in said

    def kill(self) -> None:
        """kill -9; it may be started again."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def cluster(folder: Path, places: Sequence[Place]) -> list[NatsServer]:
    """Servers that know each other; not yet started. One alone is just a server."""
    ports = free_ports(2 * len(places))
    clients, routes = ports[: len(places)], ports[len(places) :]
    listening = [f"{place.host}:{port}" for place, port in zip(places, routes, strict=True)]
    urls = ", ".join(f'"nats-route://{address}"' for address in listening)
    return [
        NatsServer(
            folder / f"n{at}",
            clients[at],
            f"cluster {{ name: c, listen: {listening[at]}, routes: [{urls}] }}\n"
            if len(places) > 1
            else "",
            f"n{at}",
            place,
        )
        for at, place in enumerate(places)
    ]
