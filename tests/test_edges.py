"""The edges of the server: its own delays, places, proxies, figures, a stop on a slow disk."""

from __future__ import annotations

import re
import resource
import selectors
import signal
import socket
import struct
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics import parser

from msgd.archive.sessions import Sessions
from msgd.config.options import load
from msgd.server.addresses import tcp, unix
from msgd.server.clients import Clients
from msgd.server.connection import Connection
from msgd.server.fairness import BITE_MOST, Fairness, Pace, Turn
from msgd.server.figures import Figures
from msgd.server.sessions import Writers
from msgd.server.timers import Alarm
from msgd.server.transport import Plain
from msgd.wire.server import ServerProtocol
from tests.conftest import PASSWORD_HASH, Daemon, Start
from tests.lab import tracing
from tests.lab.client import Client
from tests.lab.waiting import wait_for

LOCAL = "listen: 127.0.0.1\n"


def test_time_outs_are_not_charged_for_our_own_delay(start: Start) -> None:
    """While the daemon is stopped its clients push: nobody of them is idle."""
    msgd = start(LOCAL + "limits: {idle_seconds: 0.5, handshake_seconds: 0.5}\n")
    with ExitStack() as stack:
        clients = [stack.enter_context(msgd.line_client()) for _ in range(20)]
        msgd.signal(signal.SIGSTOP)
        newcomers = [stack.enter_context(msgd.connect()) for _ in range(5)]
        for client in [*clients, *newcomers]:
            client.send(b"PING\n")
        end = time.monotonic() + 1.5  # what is waited for is time itself
        wait_for(lambda: time.monotonic() > end)
        msgd.signal(signal.SIGCONT)
        for client in [*clients, *newcomers]:
            assert client.line() == b"PONG\n"
        assert clients[0].ask(b"MESG in time\n") == b"MESG in time\n"
        assert clients[1].rest() == b""  # idle in the end


@pytest.mark.thorough
def test_whoever_asks_and_does_not_read_is_idle(start: Start) -> None:
    """Also where what it has asked waits to be answered: it could be, if it read the answers."""
    msgd = start(LOCAL + "limits: {idle_seconds: 0.2}\n", "--verbose")
    deaf = msgd.line_client()
    deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    deaf.socket.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            deaf.socket.send(b"SESS a\n" * 10_000)
    msgd.wait_log("closed after a time-out")


def test_a_bare_message_is_not_cut_by_our_own_delay(start: Start) -> None:
    msgd = start(LOCAL + "limits: {bare_quiet_ms: 100}\n")
    with msgd.bare_client() as client:
        client.send(b"MESG one ")
        msgd.signal(signal.SIGSTOP)
        client.send(b"message")
        end = time.monotonic() + 0.3
        wait_for(lambda: time.monotonic() > end)
        msgd.signal(signal.SIGCONT)
        client.expect(b"MESG one message")
    assert msgd.texts() == ["one message"]


def test_places_of_one_address_and_one_for_the_administrator(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "msgd.sock"
    msgd = start(f"listen: [127.0.0.1, {path}]\nlimits: {{clients: 6, clients_per_address: 4}}\n")
    with ExitStack() as stack:
        mine = [stack.enter_context(msgd.line_client()) for _ in range(4)]
        with msgd.connect() as fifth:
            assert fifth.rest() == b"FAIL busy\n"
        others = [stack.enter_context(msgd.connect(b"PING\n", "127.0.0.2")) for _ in range(2)]
        with msgd.connect(source="127.0.0.3") as seventh:
            assert seventh.rest() == b"FAIL busy\n"
        with socket.socket(socket.AF_UNIX) as local:
            local.connect(str(path))
            local.sendall(b"PING\nMESG here\n")
            wait_for(lambda: msgd.texts() == ["here"])
        mine.pop().close()
        others.pop().close()
        wait_for(lambda: _gets_in(msgd))
    msgd.wait_log(r"turned away: limits\.clients_per_address: 4")
    msgd.wait_log(r"turned away: limits\.clients: 6")


def _gets_in(msgd: Daemon) -> bool:
    with msgd.connect() as client:
        client.send(b"PING\n")
        return client.line() == b"PONG\n"


@pytest.mark.parametrize("version", [1, 2])
def test_a_proxy_tells_the_true_origin(start: Start, version: int) -> None:
    msgd = start(LOCAL + "proxy_from: 127.0.0.1\nallow: [127.0.0.1, 192.0.2.0/24]\n")
    with msgd.connect() as client:
        client.send(_header(version, "192.0.2.7", 4711) + b"PING\nMESG through\n")
        assert client.line() + client.line() == b"PONG\nMESG through\n"
    assert msgd.records()[0].origin == "192.0.2.7:4711"
    with msgd.connect() as client:  # whose network may not connect
        client.send(_header(version, "198.51.100.7", 4711) + b"PING\nMESG no\n")
        assert client.finish() == b""
    with msgd.connect(source="127.0.0.2") as client:  # is no proxy, nor allowed
        assert client.rest() == b""
    with msgd.connect() as client:  # a proxy that says nothing
        client.send(b"PING\n")
        assert client.finish() == b""
    assert msgd.texts() == ["through"]


def test_what_is_no_proxy_s_header_ends_that_connection_only(start: Start) -> None:
    msgd = start(LOCAL + "proxy_from: 127.0.0.1\n")
    with msgd.connect() as other:
        for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 a b 1 2\r\n", b"PING\n"):
            with msgd.connect() as client:
                client.send(nonsense)
                assert client.rest() == b""
        other.send(_header(1, "192.0.2.7", 4711) + b"PING\n")
        other.expect(b"PONG\n")
    msgd.wait_log("a PROXY line with a malformed address")


def test_a_local_socket_beside_proxies(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "msgd.sock"
    msgd = start(f"listen: [127.0.0.1, {path}]\nproxy_from: 127.0.0.1\n")
    with socket.socket(socket.AF_UNIX) as local:
        local.connect(str(path))
        local.sendall(b"PING\nMESG here\n")
        wait_for(lambda: msgd.texts() == ["here"])
    assert "cannot accept" not in msgd.log


def test_whoever_comes_through_a_proxy_is_judged_as_anybody(start: Start) -> None:
    """Also where its address is one from which proxies may speak."""
    config = "proxy_from: 127.0.0.0/8\nallow: 127.0.0.9\nlimits: {clients_per_address: 1}\n"
    msgd = start(LOCAL + config)
    with msgd.connect() as client:
        client.send(_header(2, "127.0.0.8", 4711) + b"PING\n")
        assert client.rest() == b""
    with msgd.connect() as first, msgd.connect() as second:
        first.send(_header(2, "127.0.0.9", 4711) + b"PING\n")
        first.expect(b"PONG\n")
        second.send(_header(2, "127.0.0.9", 4712) + b"PING\n")
        assert second.rest() == b"FAIL busy\n"


def test_whoever_is_closed_between_two_groups_of_a_turn_is_left_alone() -> None:
    """Nothing is asked of its descriptor, no time-out begins, and the loop has nothing to do."""
    with ExitStack() as stack:
        selector, fairness = stack.enter_context(selectors.DefaultSelector()), Fairness()
        alarm, figures, writers = Alarm(), Figures(), Writers(Sessions(1))
        clients = Clients(selector, alarm, fairness, writers, figures, load(None))
        now = time.monotonic()
        for _ in range(2):
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs).sendall(b"PINGMESG " + b"x" * 10_000)
            ours.setblocking(False)
            clients.admit(ours, unix(ours), now)
        first, second = both = list(clients)
        turn = Turn(fairness, both, Pace(1, 100.0), now)
        turn.made = 1
        for _ in both:  # each is a group
            for client in turn.group():
                client.take(4096, b"stamp")
                client.share.pushes = True
        clients.break_off(first)
        clients.settle()
        assert [*turn.group()] == [second]
        clients.heard(first, now)
        clients.settle()
        clients.expire(now + 1)
        assert first not in clients.resumable()
        clients.close()


def _may_grow(msgd: Daemon, size: int) -> None:
    found = re.search(r"VmSize:\s+(\d+)", Path(f"/proc/{msgd.pid}/status").read_text())
    assert found is not None
    most = (int(found[1]) << 10) + size
    resource.prlimit(msgd.pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def test_no_memory_for_what_a_client_sends_ends_that_client_only(start: Start) -> None:
    msgd = start(LOCAL + "limits: {message_bytes: 1048576}\n")
    with msgd.line_client() as other, msgd.line_client() as greedy:
        assert other.ask(b"MESG before\n") == b"MESG before\n"
        _may_grow(msgd, 3 << 20)
        with suppress(ConnectionError):
            while True:  # a record is four times as long as what came
                greedy.send(b"MESG " + b"\xff" * (1 << 20) + b"\n")
        assert other.ask(b"MESG behind\n") == b"MESG behind\n"
    msgd.wait_log("there is no memory for what it has sent")


def test_whatever_goes_wrong_in_a_reload_the_old_configuration_stays(start: Start) -> None:
    msgd = start(LOCAL + f"password_hash: {PASSWORD_HASH}\n")
    msgd.config.write_text(msgd.config.read_text() + "#\n" * (8 << 20))
    _may_grow(msgd, 4 << 20)
    msgd.signal(signal.SIGHUP)
    msgd.wait_log("the configuration cannot be read again: MemoryError")
    with msgd.line_client() as client:
        assert client.ask(b"MESG here\n") == b"MESG here\n"


def _header(version: int, host: str, port: int) -> bytes:
    if version == 1:
        return f"PROXY TCP4 {host} 127.0.0.1 {port} 6743\r\n".encode()
    ends = socket.inet_aton(host) + socket.inet_aton("127.0.0.1") + struct.pack("!HH", port, 6743)
    return b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack("!H", len(ends)) + ends


def families(text: str) -> list[Any]:
    return list(parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def test_figures_for_a_monitoring_system(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "msgd.prom"
    msgd = start(f"{LOCAL}metrics_file: {path}\npassword_hash: {PASSWORD_HASH}\n")
    with msgd.line_client() as client:
        for _ in range(3):
            assert client.ask(b"MESG x\n") == b"MESG x\n"
        assert client.ask(b"NONE x\n") == b"FAIL unknown header\n"
        assert client.ask(b"TERM wrong\n") == b"PWNO\n"
    assert msgd.stop() == 0
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(path.read_text())
        for sample in family.samples
    }
    assert found["msgd_archived_messages_total",] == 3
    assert found["msgd_archived_bytes_total",] == len(msgd.archive())
    assert found["msgd_refused_messages_total", "unknown header"] == 1
    assert found["msgd_wrong_passwords_total",] == 1
    assert found["msgd_accepted_connections_total",] == 1
    assert found["msgd_sync_seconds_count",] >= 3
    assert found["msgd_commit_seconds_count",] >= 3
    assert found["msgd_archive_free_bytes",] > 0


def test_a_stop_on_a_slow_disk_answers_what_had_arrived(start: Start, tmp_path: Path) -> None:
    """Each sync takes half a second, and all together longer than the time for deaf clients."""
    options = "--trace=fdatasync", "--inject=fdatasync:delay_exit=500000"
    msgd = start(LOCAL, wrapper=tracing.wrapper(tmp_path / "trace", *options))
    lines = b"".join(b"MESG %d %s\n" % (n, b"x" * 1000) for n in range(50))
    with ExitStack() as stack:
        clients = [stack.enter_context(msgd.line_client()) for _ in range(20)]
        for client in clients:
            client.socket.setblocking(False)
        sent = [client.socket.send(lines) for client in clients]
        msgd.signal(signal.SIGTERM)
        answers = [_all_of(client) for client in clients]
    assert msgd.wait() == 0
    for size, answer in zip(sent, answers, strict=True):
        assert answer == lines[: lines.rfind(b"\n", 0, size) + 1]
    assert len(msgd.texts()) == sum(answer.count(b"\n") for answer in answers)


def _all_of(client: Client) -> bytes:
    client.socket.setblocking(True)
    client.socket.settimeout(30)
    return client.rest()


@pytest.mark.thorough
def test_what_a_stop_leaves_is_said_in_numbers(start: Start) -> None:
    """A client that does not read: what it had sent in vain, and what it did not take."""
    msgd = start(LOCAL)
    with msgd.line_client() as client:
        client.socket.setblocking(False)
        lines, sent = b"MESG %s\n" % (b"x" * 5000) * 10, 0
        end = time.monotonic() + 20
        while time.monotonic() < end:  # until nothing is taken for a while
            try:
                sent += client.socket.send(lines)
                last = time.monotonic()
            except BlockingIOError:
                if time.monotonic() - last > 0.5:
                    break
        msgd.signal(signal.SIGTERM)
        left = msgd.wait_log(r"1 clients did not take .*: (\d+) bytes .* archived, (\d+) bytes")
        assert int(left[1]) > 0
        assert int(left[2]) > 0
    assert msgd.wait() == 0


class _Told(Plain):
    """A socket whose client has yet to acknowledge what the test says."""

    left = 0

    def unacknowledged(self) -> int:
        return self.left


class _Piece(bytes):
    """Tells when it is let go of."""

    gone = False

    def __del__(self) -> None:
        _Piece.gone = True


@pytest.mark.parametrize("size", [BITE_MOST, 8 * BITE_MOST])
def test_what_is_left_of_an_echo_keeps_little_more_than_itself(size: int) -> None:
    """The bound on memory counts what is not sent yet, not what it was a part of."""
    _Piece.gone = False
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        client = Connection(Plain(ours), tcp("127.0.0.1", 1), ServerProtocol(100), None)
        client.queue(_Piece(b"x" * size))
        client.send()
        while client.pending > max(BITE_MOST, size // 2) - 1:
            theirs.recv(1 << 20)
            client.send()
        assert client.pending
        assert _Piece.gone


def test_only_who_acknowledges_takes_output() -> None:
    """What is queued for a client, and our FIN, makes its debt larger: that is no sign of life."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = _Told(ours)
        client = Connection(transport, tcp("127.0.0.1", 1), ServerProtocol(100), None)
        client.queue(b"x" * 100)
        assert not client.takes_output()
        client.queue(b"y" * 50)
        assert not client.takes_output()
        transport.left = 20  # encrypted, or a FIN
        assert not client.takes_output()
        client.queue(b"z" * 50)
        transport.left = 19
        assert client.takes_output()
        assert not client.takes_output()
