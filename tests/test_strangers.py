"""Clients that were written from msgd-protocol(7) alone, in other languages, against the daemon."""

from __future__ import annotations

import select
import shutil
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import SECONDS, Daemon, Start


@pytest.fixture
def msgd(shared_msgd: Daemon) -> Daemon:
    return shared_msgd


CLIENTS = Path(__file__).parent / "clients"

needs_nc = pytest.mark.skipif(shutil.which("nc") is None, reason="nc is not installed")


def run(
    msgd: Daemon | CutOff, *command: str | Path, input: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a client; its first two arguments are the daemon's host and port."""
    program, *arguments = map(str, command)
    return subprocess.run(
        [program, "127.0.0.1", str(msgd.port), *arguments],
        input=input,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client in C, compiled."""
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    program = tmp_path_factory.mktemp("clients") / "archive"
    subprocess.run(
        ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-o", program, CLIENTS / "archive.c"],
        check=True,
    )
    return program


@needs_nc
def test_shell_sends_lines(msgd: Daemon) -> None:
    lines = [f"line {number}" for number in range(20_000)]
    done = run(msgd, CLIENTS / "send.sh", input="\n".join(lines) + "\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == lines == msgd.texts()


@needs_nc
def test_shell_names_the_line_that_is_refused(start: Start) -> None:
    msgd = start("limits: {message_bytes: 10}\n")
    done = run(msgd, CLIENTS / "send.sh", input="short\nmuch too long\n\n")
    assert done.returncode == 1
    assert done.stderr == "line 2: FAIL message too long\n"
    assert done.stdout == "short\n\n"
    assert msgd.texts() == ["short", ""]


@needs_nc
def test_shell_sends_a_bare_message(msgd: Daemon) -> None:
    done = run(msgd, CLIENTS / "bare.sh", "two\nlines and \x1b")
    assert (done.returncode, done.stdout) == (0, "two\nlines and \\x1b\n")
    assert msgd.texts() == ["two\nlines and \\x1b"]


@needs_nc
def test_shell_says_what_is_refused(start: Start) -> None:
    msgd = start("limits: {message_bytes: 10}\n")
    done = run(msgd, CLIENTS / "bare.sh", "much too long")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "PONGFAIL message too long\n"


def test_c_sends_messages_of_one_and_several_lines(msgd: Daemon, archive: Path) -> None:
    done = run(msgd, archive, "one", "two\nlines\n", "", "\N{RIGHT-TO-LEFT OVERRIDE}three")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "one\ntwo\nlines\n\n\n\\u202ethree\n"
    assert msgd.texts() == ["one", "two\nlines\n", "", "\\u202ethree"]


def test_c_goes_on_after_a_refusal(start: Start, archive: Path) -> None:
    msgd = start("limits: {message_bytes: 10}\n")
    done = run(msgd, archive, "first", "too\nlong\nmessage", "last")
    assert (done.returncode, done.stdout) == (1, "first\nlast\n")
    assert done.stderr == "FAIL message too long\n"
    assert msgd.texts() == ["first", "last"]


def test_c_finds_nobody(msgd: Daemon, archive: Path) -> None:
    msgd.stop()
    done = run(msgd, archive, "text")
    assert (done.returncode, done.stderr) == (69, "archive: cannot connect\n")


class CutOff:
    """A way to the daemon that is cut, on each connection, behind a number of the client's bytes.

    None cuts nothing; nor is anything cut on the connections behind the last of these numbers.
    """

    def __init__(self, daemon_port: int, cuts: list[int | None]) -> None:
        self._to, self.cuts = ("127.0.0.1", daemon_port), cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> CutOff:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(SECONDS)
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # the end
                return
            with suppress(OSError), client, socket.create_connection(self._to) as server:
                self._pass(client, server, self.cuts.pop(0) if self.cuts else None)

    @staticmethod
    def _pass(client: socket.socket, server: socket.socket, left: int | None) -> None:
        """Pass bytes on, both ways, up to the cut; what is on its way then is lost."""
        other = {client: server, server: client}
        reading = [client, server]
        while reading:
            for one in select.select(reading, [], [], SECONDS)[0]:
                data = one.recv(4096)
                if one is client and left is not None:
                    data, left = data[:left], left - len(data)
                if data:
                    other[one].sendall(data)
                else:
                    other[one].shutdown(socket.SHUT_WR)
                    reading.remove(one)
                if left is not None and left <= 0:
                    return


@needs_nc
def test_shell_archives_once_over_broken_connections(msgd: Daemon) -> None:
    lines = [f"line {number}" for number in range(3000)]
    with CutOff(msgd.port, [None, 500, None, 5000, 3, None, 20_000]) as way:
        done = run(way, CLIENTS / "session.sh", "nightly", input="\n".join(lines) + "\n")
        assert way.cuts == []
    assert (done.returncode, done.stderr) == (0, "")
    assert msgd.texts() == lines
    again = run(msgd, CLIENTS / "session.sh", "nightly", input="\n".join([*lines, "more"]) + "\n")
    assert (again.returncode, again.stdout) == (0, "more\n")
    assert msgd.texts() == [*lines, "more"]


@needs_nc
def test_shell_says_whose_session_it_is_not(msgd: Daemon) -> None:
    assert run(msgd, CLIENTS / "session.sh", "a", input="one\ntwo\n").returncode == 0
    done = run(msgd, CLIENTS / "session.sh", "a", input="one\n")
    assert done.returncode == 1
    assert done.stderr == "session: somebody else writes this session: 2 of 1\n"
    done = run(msgd, CLIENTS / "session.sh", "/a", input="one\n")
    assert (done.returncode, done.stderr) == (1, "session: FAIL malformed session\n")


def test_c_reads_on_when_a_write_fails(archive: Path) -> None:
    """Who stops sends what it owes, and takes no more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        command = [str(archive), "127.0.0.1", port, "one", "two"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
            server, _ = listener.accept()
            with server:
                server.recv(100)
                server.sendall(b"PONG\n")
                server.recv(100)
                server.sendall(b"MESG one\n")
            out, errors = client.communicate(timeout=SECONDS)
    assert (client.returncode, out, errors) == (69, b"one\n", b"archive: connection lost\n")
