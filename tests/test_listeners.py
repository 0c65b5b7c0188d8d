"""Where msgd listens: sockets in the file system, and which address is in which network."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from msgd.config.values import NETWORKS, Network
from msgd.server import addresses
from msgd.server.addresses import Networks, Origin
from msgd.server.listeners import LocalSocket
from tests.conftest import PASSWORD, PASSWORD_HASH, Start
from tests.lab.waiting import SECONDS
from tests.test_daemon import Background, background, config

__all__ = ["background", "config"]


def network(text: str) -> Network:
    found = NETWORKS.parse(text)
    assert isinstance(found, Network)
    return found


class Local:
    """A client at a socket in the file system."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(SECONDS)
        self.socket.connect(str(path))

    def ask(self, request: bytes, size: int) -> bytes:
        if request:
            self.socket.sendall(request)
        answer = b""
        while len(answer) < size and (data := self.socket.recv(size - len(answer))):
            answer += data
        return answer

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "msgd.sock"


def test_a_local_client_has_its_process_and_user_in_the_record(start: Start, path: Path) -> None:
    """And ``allow`` does not concern it."""
    daemon = start(f"listen: [127.0.0.1, {path}]\nallow: 192.0.2.0/24\n")
    daemon.wait_log(rf"listening on 127\.0\.0\.1:\d+, {path}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    with Local(path) as client:
        assert client.ask(b"PING\nMESG hello\n", 16) == b"PONG\nMESG hello\n"
    origin = f" unix:{os.getpid()}@{addresses.user_name(os.getuid())} hello\n"
    assert daemon.archive().decode().endswith(origin)
    assert daemon.stop() == 0
    assert not path.exists()


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not installed")
def test_with_few_descriptors_too_there_is_a_place_for_a_local_client(
    start: Start, path: Path
) -> None:
    """The hard limit of descriptors is lower than what `limits.clients` needs."""
    daemon = start(f"listen: [127.0.0.1, {path}]\n", wrapper=("prlimit", "--nofile=300:300"))
    daemon.wait_log("limits.clients: 4096 need 4352 descriptors, .* is 300: up to 150 are let in")
    with ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(daemon.line_client())
        with daemon.connect() as one_more:
            assert one_more.rest() == b"FAIL busy\n"
        with Local(path) as client:
            assert client.ask(b"PING\nMESG a\n", 12) == b"PONG\nMESG a\n"


def test_a_bare_local_client_and_a_stop_by_password(start: Start, path: Path) -> None:
    daemon = start(f"listen: {path}\npassword_hash: {PASSWORD_HASH}\n", ready=False)
    daemon.wait_log("listening on ")
    with Local(path) as client:
        assert client.ask(b"PING", 4) == b"PONG"
        assert client.ask(b"MESG a", 6) == b"MESG a"
        client.socket.sendall(f"TERM {PASSWORD}".encode())
        client.socket.shutdown(socket.SHUT_WR)
        assert client.ask(b"", 5) == b"PWOK"
    assert daemon.wait() == 0


def test_what_arrived_at_a_local_socket_is_kept_at_a_stop(start: Start, path: Path) -> None:
    daemon = start(f"listen: [127.0.0.1, {path}]\n")
    with Local(path) as client:
        assert client.ask(b"PING\n", 5) == b"PONG\n"
        lines = b"MESG line\n" * 2000
        daemon.signal(signal.SIGSTOP)
        client.socket.sendall(lines)
        daemon.signal(signal.SIGTERM)
        daemon.signal(signal.SIGCONT)
        assert client.ask(b"", len(lines)) == lines
    assert daemon.wait() == 0


def test_a_daemon_in_the_background_keeps_its_socket(background: Background, path: Path) -> None:
    background.config.write_text(background.config.read_text() + f"listen: [127.0.0.1, {path}]\n")
    text = background.config.read_text().replace("listen: 127.0.0.1\n", "", 1)
    background.config.write_text(text)
    assert background.start() == (0, "", "")
    with Local(path) as client:
        assert client.ask(b"PING\n", 5) == b"PONG\n"
    background.stop()
    assert not path.exists()


def test_the_socket_of_a_dead_daemon_is_replaced(start: Start, path: Path) -> None:
    daemon = start(f"listen: [127.0.0.1, {path}]\n")
    daemon.process.kill()
    daemon.wait()
    assert path.is_socket()
    start(f"listen: [127.0.0.1, {path}]\n")
    with Local(path) as client:
        assert client.ask(b"PING\n", 5) == b"PONG\n"


def refused(start: Start, path: Path) -> str:
    daemon = start(f"listen: [127.0.0.1, {path}]\n", ready=False)
    assert daemon.wait() == 1
    assert daemon.log.count("\n") == 1
    return daemon.log.removeprefix(f"msgd: cannot listen on {path}: ").rstrip("\n")


def test_the_socket_of_a_living_daemon_is_left_alone(start: Start, path: Path) -> None:
    start(f"listen: [127.0.0.1, {path}]\n")
    assert refused(start, path) == "Address already in use (a daemon listens there already)"
    with Local(path) as client:
        assert client.ask(b"PING\n", 5) == b"PONG\n"


def test_a_full_backlog_is_a_living_daemon(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(OSError, match="Address already in use"):
            LocalSocket(str(path))
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link", "dangling"])
def test_what_is_no_socket_is_left_alone(start: Start, path: Path, kind: str) -> None:
    make: dict[str, Callable[[], object]] = {
        "file": lambda: path.write_text("mine"),
        "directory": path.mkdir,
        "link": lambda: path.symlink_to("/dev/null"),
        "dangling": lambda: path.symlink_to("nothing"),
    }
    make[kind]()
    before = path.lstat()
    assert "what stands there is not a socket that msgd has left behind" in refused(start, path)
    assert os.path.samestat(before, path.lstat())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_the_socket_of_another_user_is_left_alone(start: Start, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    os.chown(path, 65534, 65534)
    assert "what stands there is not a socket that msgd has left behind" in refused(start, path)
    assert path.exists()


def test_a_socket_that_nobody_asked_for_keeps_no_daemon_from_starting(
    start: Start, path: Path
) -> None:
    path.write_text("mine")
    daemon = start("", env={"RUNTIME_DIRECTORY": str(path.parent)})
    assert f"{path}: File exists (what stands there is not a socket" in daemon.log
    assert path.read_text() == "mine"


def test_a_directory_that_is_missing(start: Start, tmp_path: Path) -> None:
    assert refused(start, tmp_path / "none" / "msgd.sock") == (
        "No such file or directory (the directory must be there)"
    )


def test_a_socket_that_was_put_in_its_place_is_not_removed(start: Start, path: Path) -> None:
    daemon = start(f"listen: [127.0.0.1, {path}]\n")
    path.unlink()
    path.write_text("somebody else's")
    assert daemon.stop() == 0
    assert path.read_text() == "somebody else's"


def test_a_failed_start_leaves_no_socket(start: Start, path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon = start(f"listen: [{path}, 127.0.0.1]\n", "--port", str(port), ready=False)
        assert daemon.wait() == 1
    assert not path.exists()


# Who is who --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "port", "origin"),
    [
        ("10.1.2.3", 5, Origin("10.1.2.3:5", "10.1.2.3", "10.1.2.3", "10.1.2.0/24")),
        ("127.9.8.7", 5, Origin("127.9.8.7:5", "127.9.8.7", "127.9.8.7", "127.0.0.0/8")),
        ("::ffff:10.1.2.3", 5, Origin("10.1.2.3:5", "10.1.2.3", "10.1.2.3", "10.1.2.0/24")),
        (
            "fd00:1:2:3:4::5",
            6,
            Origin(*["[fd00:1:2:3:4::5]:6", "fd00:1:2:3:4::5"], *["fd00:1:2:3::/64"] * 2),
        ),
        ("fe80::1%eth0", 6, Origin("[fe80::1%eth0]:6", "fe80::1%eth0", *["fe80::/64"] * 2)),
    ],
)
def test_the_origin_of_a_connection(host: str, port: int, origin: Origin) -> None:
    assert addresses.tcp(host, port) == origin


def test_a_proved_name_counts_as_one_for_the_guard() -> None:
    found = addresses.tcp("10.1.2.3", 5).named("web 1")
    assert found == Origin("10.1.2.3:5@web_1", "10.1.2.3", "10.1.2.3", "name web_1", "web_1")


def test_a_user_s_name_and_its_odd_characters(tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_bytes(
        b"root:x:0:0::/:/bin/sh\nmachine$:x:7:7::\nb\xc3\xa4 r:x:8:8::\nagain:x:0:0:\n"
    )
    names = [addresses.user_name(uid, str(passwd)) for uid in (0, 7, 8, 9)]
    assert names == ["root", "machine$", "bä r", "9"]
    assert [addresses.safe_name(name) for name in names] == ["root", "machine_", "b__r", "9"]
    passwd.write_text("later:x:9:9::\n")
    assert addresses.user_name(9, str(passwd)) == "later"
    passwd.unlink()  # what it held before still holds, or a user's sessions would be lost
    assert addresses.user_name(9, str(passwd)) == "later"
    passwd.mkdir()
    assert addresses.user_name(9, str(passwd)) == "later"
    passwd.rmdir()
    passwd.write_text("now:x:9:9::\n")
    assert addresses.user_name(9, str(passwd)) == "now"
    assert addresses.user_name(9, str(tmp_path / "none")) == "9"


def test_networks_are_what_ipaddress_says() -> None:
    chance = random.Random(1)
    texts = {
        f"{chance.randrange(1, 224)}.{chance.randrange(256)}.0.0/{chance.randrange(16, 25)}"
        for _ in range(50)
    }
    texts |= {f"fd00:{chance.randrange(65536):x}::/{chance.randrange(32, 64)}" for _ in range(50)}
    texts |= {"198.51.100.7", "2001:db8::7"}
    wanted = [ip_network(text) for text in texts]
    known = Networks(map(network, texts))
    samples = [str(net[0]) for net in wanted] + [str(net[-1]) for net in wanted]
    samples += [str(net[-1] + 1) for net in wanted]
    samples += [str(ip_address(chance.getrandbits(32))) for _ in range(200)]
    for sample in samples:
        assert (sample in known) is any(ip_address(sample) in net for net in wanted), sample


def test_no_network_and_all_of_them() -> None:
    assert not Networks([])
    assert "10.0.0.1" not in Networks([network("::/0")])
    assert "10.0.0.1" in Networks([network("0.0.0.0/0")])
    assert "fe80::1%eth0" in Networks([network("fe80::/10")])
