"""Socket activation: systemd listens, the service comes and goes behind it."""

from __future__ import annotations

import pytest

from .machine import wait_for
from .server import PEER, UNIT, Server

SOCKET = "msgd.socket"

# Connects, sends one message each, says "connected", and then waits for the echoes.
CLIENTS = """
import socket
peers = [socket.create_connection(("127.0.0.1", 6743), 30) for _ in range(20)]
for number, peer in enumerate(peers):
    peer.sendall(b"PING\\nMESG waits %d\\n" % number)
print("connected", flush=True)
for number, peer in enumerate(peers):
    wanted = b"PONG\\nMESG waits %d\\n" % number
    with peer.makefile("rb") as stream:
        got = stream.read(len(wanted))
    assert got == wanted, got
"""


@pytest.fixture
def activated(server: Server) -> Server:
    """The socket listens, the service has not been started."""
    server.machine.shell(f"systemctl stop {UNIT}; systemctl start {SOCKET}")
    return server


def test_the_first_connection_starts_the_service(activated: Server) -> None:
    assert not activated.is_active()
    assert activated.send("knock") == "knock"
    assert activated.is_active()
    assert activated.machine.run("msgctl", "--host", "::1", "send", "six").stdout == "six\n"
    assert activated.texts() == ["knock", "six"]


def test_the_service_does_not_pass_its_sockets_on(activated: Server) -> None:
    activated.send("knock")
    environment = activated.machine.path(f"/proc/{activated.pid}/fd")
    held = sorted(path.name for path in environment.iterdir())
    assert {"3", "4"} <= set(held)
    flags = activated.machine.shell(f"grep flags /proc/{activated.pid}/fdinfo/3")
    assert int(flags.split()[1], 8) & 0o2000000, "close-on-exec"


def test_a_restart_loses_no_waiting_connection_and_nothing_echoed(activated: Server) -> None:
    """The service is held still while twenty clients connect and send, then restarted."""
    activated.send("before")
    pid = activated.pid
    activated.machine.shell(f"kill -STOP {pid}")
    activated.machine.path("/root/clients.py").write_text(CLIENTS)
    run = "python3 /root/clients.py && echo served"
    activated.machine.shell(f"({run}) >/root/out 2>&1 </dev/null &")
    out = activated.machine.path("/root/out")
    wait_for(lambda: out.exists() and "connected" in out.read_text(), why="connected")
    activated.restart()
    wait_for(lambda: out.read_text() != "connected\n", why="the clients' end")
    assert out.read_text() == "connected\nserved\n"
    assert activated.pid != pid
    texts = activated.texts()
    assert texts[0] == "before"
    assert sorted(texts[1:]) == sorted(f"waits {number}" for number in range(20))


def test_a_port_below_1024(server: Server) -> None:
    server.machine.run("systemctl", "stop", UNIT)
    server.drop_in("[Socket]\nListenStream=\nListenStream=127.0.0.1:601\n", SOCKET)
    server.machine.run("systemctl", "start", SOCKET)
    assert server.machine.run("msgctl", "--port", "601", "send", "low").stdout == "low\n"


def test_the_service_needs_no_network_where_systemd_listens(server: Server) -> None:
    """What README.Debian says of the exposure; all else works as before."""
    server.machine.run("systemctl", "stop", UNIT)
    server.machine.shell(f"{PEER}useradd alice")
    server.drop_in("[Socket]\nListenStream=10.9.9.1:6743\n", SOCKET)
    server.drop_in(
        "[Service]\nRestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX\nPrivateNetwork=yes\n"
    )
    server.machine.run("systemctl", "start", SOCKET)
    alice = ("runuser", "-u", "alice", "--", "msgctl", "--host", "/run/msgd/msgd.sock", "send")
    assert server.machine.run(*alice, "by alice").stdout == "by alice\n"
    peer = ("ip", "netns", "exec", "peer", "msgctl", "--host", "10.9.9.1", "send")
    assert server.machine.run(*peer, "from afar").stdout == "from afar\n"
    server.configure(f"password_hash: {server.hash('secret')}\n")
    server.machine.run("systemctl", "reload", UNIT)
    server.machine.run("systemd-analyze", "security", "--threshold=5", UNIT)
    server.machine.run("msgctl", "terminate", "--password-stdin", input="secret\n")
    wait_for(lambda: not server.is_active(), why="stopped")
    origins = server.machine.shell("cut -d ' ' -f 2 /var/log/msgd/current.log")
    assert [origin.partition("@")[2] or origin.partition(":")[0] for origin in origins.split()] == [
        "alice",
        "10.9.9.2",
    ]


def test_public_addresses_are_dropped_by_the_socket_too(server: Server) -> None:
    """The lines of the service do not concern the sockets that it is handed."""
    server.machine.run("systemctl", "stop", UNIT)
    server.machine.shell(PEER.replace("10.9.9.", "203.0.113."))
    server.drop_in("[Socket]\nListenStream=203.0.113.1:6743\n", SOCKET)
    server.machine.run("systemctl", "start", SOCKET)
    peer = ("ip", "netns", "exec", "peer", "msgctl", "--host", "203.0.113.1", "--timeout", "1")
    assert server.machine.run(*peer, "send", "dropped", check=False).returncode == 69
    assert server.send("from here") == "from here"
    allow = "[Socket]\nListenStream=203.0.113.1:6743\nIPAddressAllow=203.0.113.0/24\n"
    server.drop_in(allow, SOCKET)
    server.machine.run("systemctl", "stop", SOCKET, UNIT)
    server.machine.run("systemctl", "start", SOCKET)
    assert server.machine.run(*peer, "send", "let in").stdout == "let in\n"
    assert server.texts() == ["from here", "let in"]


def test_terminate_takes_the_socket_along(activated: Server) -> None:
    activated.configure(f"password_hash: {activated.hash('secret')}\n")
    activated.send("before")
    terminate = ("msgctl", "terminate", "--password-stdin")
    activated.machine.run(*terminate, input="secret\n")
    wait_for(lambda: activated.show("ActiveState", SOCKET) == "inactive", why="socket down")
    assert activated.machine.run("msgctl", "send", "x", check=False).returncode == 69
    assert not activated.is_active()
    activated.machine.run("systemctl", "start", SOCKET)
    assert activated.send("after") == "after"


def test_a_crash_and_a_restart_leave_the_socket(activated: Server) -> None:
    activated.send("before")
    activated.restart()
    assert activated.is_active(SOCKET)
    pid = activated.pid
    activated.machine.shell(f"kill -KILL {pid}")
    assert activated.send("after") == "after"
    activated.wait_for_restart(pid)
    assert activated.is_active(SOCKET)
