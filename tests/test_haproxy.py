"""msgd behind a real haproxy, as packaging/haproxy/msgd.cfg has it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.client import Client
from tests.lab.daemon import Daemon, Start
from tests.lab.nats import free_ports
from tests.lab.waiting import wait_for

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")

CONFIG = (Path(__file__).parent.parent / "packaging" / "haproxy" / "msgd.cfg").read_text()
BEHIND = "listen: 127.0.0.1\nproxy_from: 127.0.0.1\nallow: [127.0.0.5, 127.0.0.6]\n"


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Start haproxy; the port of its frontend."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(config: str) -> int:
        (port,) = free_ports(1)
        path = tmp_path / "haproxy.cfg"
        path.write_text(config.replace("bind :6743", f"bind 127.0.0.1:{port}"))
        processes.append(subprocess.Popen(["haproxy", "-q", "-db", "-f", str(path)]))
        wait_for(lambda: _answers(port), "haproxy with a server that is up")
        return port

    yield start
    for process in processes:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        with Client(("127.0.0.1", port), "127.0.0.5") as client:
            return client.ask(b"PING\n") == b"PONG\n"
    except OSError:
        return False


def for_daemons(config: str, *daemons: Daemon) -> str:
    for daemon, address in zip(daemons, ("10.0.0.11", "10.0.0.12"), strict=True):
        assert f"{address}:6743" in config
        config = config.replace(f"{address}:6743", f"127.0.0.1:{daemon.port}")
    return config


@pytest.mark.parametrize("send", ["send-proxy", "send-proxy-v2"])
def test_the_true_origin(start: Start, haproxy: Callable[[str], int], send: str) -> None:
    one, two = start(BEHIND), start(BEHIND)
    config = for_daemons(CONFIG, one, two).replace("send-proxy-v2", send)
    port = haproxy(config)
    for source in ("127.0.0.5", "127.0.0.6"):
        with Client(("127.0.0.1", port), source) as client:
            client.send(b"PING\nMESG from %b\nMESG half-closed" % source.encode() + b"\n")
            assert client.finish().count(b"MESG") == 2
            origin = client.origin
        assert f"{origin} from {source}" in (one.archive() + two.archive()).decode()
    with Client(("127.0.0.1", port), "127.0.0.7") as client:  # whom msgd does not allow
        client.send(b"PING\n")
        assert client.rest() == b""
    assert "127.0.0.7" in one.log + two.log


def test_a_session_stays_where_it_was(start: Start, haproxy: Callable[[str], int]) -> None:
    daemons = start(BEHIND), start(BEHIND)
    port = haproxy(for_daemons(CONFIG, *daemons))
    for number in range(1, 6):
        with Client(("127.0.0.1", port), "127.0.0.5") as client:
            client.ask(b"PING\n")
            assert client.ask(b"SESS s\n") == b"SESS %d\n" % (number - 1)
            assert client.ask(b"MESG x\n") == b"MESG x\n"
    (archive,) = [found for daemon in daemons if b"/s:" in (found := daemon.archive())]
    assert re.findall(rb"/s:(\d+) x\n", archive) == [b"001", b"002", b"003", b"004", b"005"]


def test_without_the_header_nobody_comes_in(start: Start, haproxy: Callable[[str], int]) -> None:
    msgd = start(BEHIND)
    with msgd.connect() as client:
        client.send(b"PING\n")
        assert client.rest() == b""
    assert msgd.archive() == b""
