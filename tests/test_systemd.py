"""systemd's protocols, against real sockets and in real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from msgd.process import systemd
from tests.conftest import PASSWORD_HASH, SECONDS, Client, Start, wait_for

_CONFIG = f"password_hash: {PASSWORD_HASH}\n"


@pytest.fixture(autouse=True)
def _nothing_untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_untold", {})


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where a service manager would listen for notifications."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.bind(str(tmp_path / "notify"))
        yield sock


# sd_notify(3) ------------------------------------------------------------------------------


def test_notify_sends_one_datagram(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    systemd.notify("READY=1", "STATUS=ä")
    assert manager.recv(100) == "READY=1\nSTATUS=ä".encode()


def test_notify_knows_abstract_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"msgd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        systemd.notify("READY=1")
        assert sock.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "@msgd-nobody", "vsock:2:1", "x"])
def test_notify_never_raises(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    systemd.notify("READY=1")


def test_notify_does_not_wait_for_a_manager_that_does_not_read(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had no room for comes when it reads again: of each kind the latest."""
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with suppress(BlockingIOError):
            while other.sendto(b"full", manager.getsockname()):
                pass
    for number in range(1000):
        systemd.notify("RELOADING=1\nMONOTONIC_USEC=1")
        systemd.notify("READY=1", f"STATUS={number}")
    manager.setblocking(False)
    with suppress(BlockingIOError):
        while manager.recv(100) == b"full":
            pass
    systemd.notify()
    assert manager.recv(100) == b"READY=1\nSTATUS=999"
    systemd.notify()
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_a_manager_that_does_not_read_holds_up_neither_messages_nor_the_stop(
    manager: socket.socket, start: Start
) -> None:
    env = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "3000"}
    daemon = start(_CONFIG, env=env)
    with daemon.line_client() as client:
        for _ in range(1000):
            assert client.ask(b"MESG hello\n") == b"MESG hello\n"
    assert daemon.stop() == 0


def test_notify_without_a_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")


def test_the_daemon_is_ready_when_it_listens(manager: socket.socket, start: Start) -> None:
    daemon = start(_CONFIG, env={"NOTIFY_SOCKET": manager.getsockname()})
    while not manager.recv(1000).startswith(b"READY=1"):
        pass
    with daemon.line_client() as client:
        assert client.ask(b"MESG hello\n") == b"MESG hello\n"
    assert daemon.stop() == 0
    while not manager.recv(1000).startswith(b"STOPPING=1"):
        pass


# sd_watchdog_enabled(3) --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [
        ("30000000", None, 30.0),
        ("500000", "own", 0.5),
        ("500000", "1", None),
        ("500000", "x", None),
        ("0", None, None),
        ("-1", None, None),
        ("x", None, None),
        (None, None, None),
    ],
)
def test_watchdog(
    monkeypatch: pytest.MonkeyPatch,
    microseconds: str | None,
    pid: str | None,
    seconds: float | None,
) -> None:
    for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value.replace("own", str(os.getpid())))
    assert systemd.watchdog_seconds() == seconds


def test_the_daemon_feeds_the_watchdog(manager: socket.socket, start: Start) -> None:
    start(_CONFIG, env={"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "200000"})
    for _ in range(3):
        while manager.recv(1000) != b"WATCHDOG=1":
            pass


# systemd.exec(5): $JOURNAL_STREAM ----------------------------------------------------------


def test_under_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as file:
        found = os.fstat(file.fileno())
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert not systemd.under_journal(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert systemd.under_journal(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
        assert not systemd.under_journal(file.fileno())
        closed = file.fileno()
    assert not systemd.under_journal(closed)


# sd_listen_fds(3) --------------------------------------------------------------------------


class Service:
    """A process that was started as systemd does: sockets from 3 on, LISTEN_PID its own."""

    def __init__(
        self, folder: Path, sockets: Sequence[socket.socket | IO[str]], code: str = "", **env: str
    ):
        moved = "".join(
            f"os.dup2({sock.fileno()}, {100 + number});" for number, sock in enumerate(sockets)
        ) + "".join(f"os.dup2({100 + number}, {3 + number});" for number in range(len(sockets)))
        variables = {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": "msgd.socket", **env}
        (folder / "msgd.yaml").write_text(_CONFIG)
        daemon = [sys.executable, "-m", "msgd.daemon", "-c", str(folder / "msgd.yaml")]
        daemon += ["-d", str(folder / "archive")]
        command = [sys.executable, "-c", code] if code else daemon
        launcher = (
            f"import os; {moved} os.environ.setdefault('LISTEN_PID', str(os.getpid()));"
            f"os.execv({sys.executable!r}, {command!r})"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", launcher],
            pass_fds=[sock.fileno() for sock in sockets],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def result(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, err


def listener(address: str = "127.0.0.1", family: int = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((address, 0))
    sock.listen()
    return sock


def test_the_daemon_takes_the_sockets(tmp_path: Path) -> None:
    with listener() as one, listener() as two:
        # These wait in the backlog before the daemon is there, and are served when it is.
        clients = [Client(sock.getsockname()) for sock in (one, two)]
        service = Service(tmp_path, [one, two])
        for client in clients:
            client.send(b"PING\nMESG early\n")
            client.expect(b"PONG\nMESG early\n")
            client.close()
        service.process.terminate()
        status, _, errors = service.result()
        # The sockets stay systemd's: they listen on for the next start.
        Client(one.getsockname()).close()
        addresses = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in (one, two)]
    assert status == 0
    assert f"listening on {', '.join(addresses)}\n" in errors


_SHOW = """
import os
from msgd.process.systemd import listen_sockets
sockets = listen_sockets()
print([(s.fileno(), s.get_inheritable(), s.getblocking()) for s in sockets])
print(sorted(name for name in os.environ if name.startswith("LISTEN_")))
print(listen_sockets())
"""


def test_sockets_do_not_block_and_are_closed_on_exec(tmp_path: Path) -> None:
    with listener() as one, listener() as two:
        status, out, errors = Service(tmp_path, [one, two], _SHOW).result()
    assert (status, errors) == (0, "")
    assert out.splitlines() == ["[(3, False, False), (4, False, False)]", "[]", "[]"]


@pytest.mark.parametrize("env", [{"LISTEN_PID": "1"}, {"LISTEN_PID": "x"}, {"LISTEN_FDS": ""}])
def test_sockets_of_another_process_are_left_alone(tmp_path: Path, env: dict[str, str]) -> None:
    with listener() as one:
        status, out, errors = Service(tmp_path, [one], _SHOW, **env).result()
    assert (status, errors) == (0, "")
    assert out.splitlines() == ["[]", "[]", "[]"]


def refused(tmp_path: Path, sockets: Sequence[socket.socket | IO[str]], **env: str) -> str:
    status, _, errors = Service(tmp_path, sockets, **env).result()
    assert status == 1
    assert errors.count("\n") == 1
    return errors


_NOT_LISTENING = (
    "msgd: socket activation: descriptor 3 is not a listening stream socket; "
    "the socket unit needs ListenStream=, and Accept=no\n"
)


def test_a_socket_that_does_not_listen_is_refused(tmp_path: Path) -> None:
    with socket.socket() as sock:
        assert refused(tmp_path, [sock]) == _NOT_LISTENING


def test_a_datagram_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert refused(tmp_path, [sock]) == _NOT_LISTENING


def test_a_socket_in_the_file_system_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as client:
        sock.bind(str(path))
        sock.listen()
        client.settimeout(SECONDS)
        client.connect(str(path))
        service = Service(tmp_path, [sock])
        client.sendall(b"PING\nMESG hello\n")
        assert client.recv(5) == b"PONG\n"
        assert client.recv(11) == b"MESG hello\n"
        service.process.terminate()
        status, _, errors = service.result()
    assert status == 0
    assert f"listening on {path}\n" in errors
    assert path.exists()  # it is the manager's


def test_a_datagram_socket_in_the_file_system_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        assert refused(tmp_path, [sock]) == _NOT_LISTENING


def test_a_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert refused(tmp_path, [file]) == (
            "msgd: socket activation: descriptor 3 is not a socket\n"
        )


def test_a_descriptor_that_is_missing_is_refused(tmp_path: Path) -> None:
    with listener() as one:
        assert refused(tmp_path, [one], LISTEN_FDS="2") == (
            "msgd: socket activation: descriptor 4 is not a socket\n"  # but the log's
        )


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    with listener() as one:
        assert refused(tmp_path, [one], LISTEN_FDS="many") == (
            "msgd: socket activation: LISTEN_FDS is not a number of sockets\n"
        )


def test_priorities_for_the_journal(tmp_path: Path, start: Start) -> None:
    """Standard error is the journal's when $JOURNAL_STREAM names it."""
    launcher = (
        "import os, sys; found = os.fstat(2);"
        "os.environ['JOURNAL_STREAM'] = f'{found.st_dev}:{found.st_ino}';"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    daemon = start(_CONFIG, wrapper=(sys.executable, "-c", launcher))
    assert daemon.stop() == 0
    wait_for(lambda: "stopped" in daemon.log)
    assert all(line.startswith("<6>") for line in daemon.log.splitlines())
    assert "<6>listening on " in daemon.log
