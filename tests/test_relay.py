"""msgd-relay beside a real nats-server: what is shipped is collected, byte by byte."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgd.archive.final import final_line
from tests.lab.nats import NatsServer, find_server, free_ports
from tests.lab.relay import Relay
from tests.lab.waiting import wait_for

pytest.importorskip("nats")
pytestmark = pytest.mark.skipif(find_server() is None, reason="nats-server is not installed")

LINE = b"2026-11-%02dT02:51:07.123456+00:00 127.0.0.1:40312 a line, number %d\n"


class Bench:
    """A server, an archive that the test writes, and the programs between them."""

    def __init__(self, folder: Path, server: NatsServer) -> None:
        self.folder, self.server = folder, server
        self.archive = folder / "archive"
        self.archive.mkdir()
        self.collected = folder / "collected"
        self.relays: list[Relay] = []

    def run(self, verb: str, more: str = "", name: str = "") -> Relay:
        config = f"servers: {self.server.url}\nnode: web1\narchive: {self.archive}\n"
        config += f"collect:\n  directory: {self.collected}\n  max_bytes: 1073741824\n{more}"
        self.relays.append(Relay(self.folder / (name or verb), verb, config))
        return self.relays[-1]

    def write(self, day: str, data: bytes, final: bool = True) -> Path:
        """Add to a day's file, as msgd does."""
        path = self.archive / f"{day}.log"
        with path.open("ab") as file:
            file.write(data)
        if final:
            line = final_line(day, path.stat().st_size)
            (self.archive / ".msgd.final").write_bytes(line)
        return path

    def copy(self, name: str) -> bytes:
        path = self.collected / "web1" / name
        return path.read_bytes() if path.exists() else b""

    def wait_copy(self, name: str, data: bytes) -> None:
        wait_for(lambda: self.copy(name) == data, f"{name} with {len(data)} bytes")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    found = NatsServer(tmp_path / "nats", free_ports(1)[0])
    found.start()
    yield found
    found.kill()


@pytest.fixture
def bench(tmp_path: Path, server: NatsServer) -> Iterator[Bench]:
    bench = Bench(tmp_path, server)
    yield bench
    for relay in bench.relays:
        relay.kill()
        assert "Traceback" not in relay.log


def lines(day: int, count: int, since: int = 0) -> bytes:
    return b"".join(LINE % (day, number) for number in range(since, since + count))


def test_today_and_the_days_before(bench: Bench) -> None:
    old, packed, today = lines(20, 9000), lines(21, 5000), lines(22, 3)
    bench.write("2026-11-20", old)
    (bench.archive / "2026-11-21.log.gz").write_bytes(gzip.compress(packed))
    bench.write("2026-11-22", today)
    collect = bench.run("collect")
    ship = bench.run("ship")
    bench.wait_copy("2026-11-20.log", old)
    bench.wait_copy("2026-11-21.log", packed)
    bench.wait_copy("2026-11-22.log", today)
    collect.wait_log(r"2026-11-20\.log: is what web1 has")
    collect.wait_log(r"2026-11-21\.log: is what web1 has")
    for number in range(20):
        today += (more := lines(22, 1, number))
        bench.write("2026-11-22", more)
        bench.wait_copy("2026-11-22.log", today)
    # Only what is final goes out.
    bench.write("2026-11-22", b"not final", final=False)
    bench.write("2026-11-23", new := lines(23, 2))
    bench.wait_copy("2026-11-23.log", new)
    bench.wait_copy("2026-11-22.log", today + b"not final")  # its day is over: as it is
    assert ship.stop() == 0
    assert collect.stop() == 0
