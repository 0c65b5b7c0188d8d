"""The socket in the file system, as this machine's own users see it."""

from __future__ import annotations

import pytest

from .server import UNIT, Server

PATH = "/run/msgd/msgd.sock"


@pytest.fixture(params=["service", "socket unit"])
def local(server: Server, request: pytest.FixtureRequest) -> Server:
    """msgd listens at PATH by itself, or systemd does."""
    if request.param == "socket unit":
        server.machine.shell(f"systemctl stop {UNIT}; systemctl start msgd.socket")
    server.machine.shell("useradd alice")
    return server


def test_the_name_of_an_ordinary_user_is_in_the_record(local: Server) -> None:
    alice = ("runuser", "-u", "alice", "--", "msgctl", "--host", PATH, "send")
    assert local.machine.run(*alice, "by alice").stdout == "by alice\n"
    assert local.machine.run("msgctl", "--host", PATH, "send", "by root").stdout == "by root\n"
    origins = local.machine.shell("cut -d ' ' -f 2 /var/log/msgd/current.log | sed 's/[0-9]*@/@/'")
    assert origins.split() == ["unix:@alice", "unix:@root"]


def test_msgctl_finds_it_whatever_the_port(server: Server) -> None:
    server.configure("port: 7000\n")
    server.restart()
    server.machine.path("/etc/msgd.yaml").chmod(0o600)  # so that nobody reads the port there
    server.machine.shell("useradd alice")
    alice = ("runuser", "-u", "alice", "--", "msgctl", "send")
    assert server.machine.run(*alice, "found").stdout == "found\n"
    assert "@alice found" in server.machine.shell("cat /var/log/msgd/current.log")


def test_nobody_else_listens_there_while_msgd_is_down(server: Server) -> None:
    server.machine.shell(f"useradd mallory; systemctl stop {UNIT}")
    script = f"import socket; socket.socket(socket.AF_UNIX).bind('{PATH}')"
    done = server.machine.run(
        "runuser", "-u", "mallory", "--", "python3", "-c", script, check=False
    )
    assert "Permission denied" in done.stderr
    server.machine.run("systemctl", "start", UNIT)
    assert server.send("again") == "again"


def test_the_service_and_the_socket_unit_take_turns(server: Server) -> None:
    """Neither finds what the other has left behind in its way."""
    for start, stop in ((UNIT, "msgd.socket"), ("msgd.socket", UNIT)) * 2:
        server.machine.shell(f"systemctl stop {stop} {UNIT}; systemctl start {start}")
        server.send("hello")
        assert server.machine.shell(f"stat --format=%a {PATH}") == "666"
