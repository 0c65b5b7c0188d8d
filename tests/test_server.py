"""The daemon over a real socket: both framings, order, limits, backpressure, the way it stops."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import PASSWORD, PASSWORD_HASH, Client, Daemon, Start, wait_for


def cpu_ticks(daemon: Daemon) -> int:
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def rss(daemon: Daemon) -> int:
    """Resident memory, in bytes."""
    return int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1]) * 4096


def descriptors(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def fill(deaf: Client) -> None:
    """Send without reading until the daemon takes no more."""
    deaf.socket.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            deaf.socket.send(b"MESG " + b"x" * 9994 + b"\n")


def test_a_bare_client_gets_every_answer(msgd: Daemon) -> None:
    with msgd.connect() as client:
        for request, answer in (
            (b"PING", b"PONG"),
            (b"MESG hello", b"MESG hello"),
            (b"TERM", b"PWIV"),
            (b"TERM secret", b"PWNO"),
            (b"PING", b"PONG"),
            (b"MESG two\nlines\n", b"MESG two\nlines"),
        ):
            client.send(request)
            client.expect(answer)
    assert msgd.texts() == ["hello", "two\nlines"]


def test_forty_bare_clients_at_once(msgd: Daemon) -> None:
    def talk(number: int) -> None:
        text = b"MESG hello from %d" % number
        with msgd.connect() as client:
            for request, answer in ((b"PING", b"PONG"), (text, text), (b"TERM secret", b"PWNO")):
                client.send(request)
                client.expect(answer)
            done.add(number)

    done: set[int] = set()
    threads = [threading.Thread(target=talk, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == set(range(40))
    assert sorted(msgd.texts()) == sorted(f"hello from {number}" for number in range(40))


def test_a_bare_message_sent_in_parts_is_one(start: Start) -> None:
    daemon = start("limits: {bare_quiet_ms: 400}\n")
    with daemon.bare_client() as client:
        for part in (b"MES", b"G a", b" b\n", b"c"):
            client.send(part)
        client.expect(b"MESG a b\nc")
        client.send(b"MESG last")
        assert client.finish() == b"MESG last"
    assert daemon.texts() == ["a b\nc", "last"]


def test_records_carry_the_origin_and_the_echo_is_what_is_archived(msgd: Daemon) -> None:
    with msgd.line_client() as client:
        assert client.ask("MESG \x1b[31mred\u2028\tü\n".encode()) == (
            b"MESG \\x1b[31mred\\u2028\t\xc3\xbc\n"
        )
        origin = client.origin
    (record,) = msgd.records()
    assert (record.origin, record.text) == (origin, "\\x1b[31mred\\u2028\tü")


def test_ipv6(start: Start) -> None:
    daemon = start('listen: ["127.0.0.1", "::1"]\n')
    assert f"127.0.0.1:{daemon.port}" in daemon.log
    assert f"[::1]:{daemon.port}" in daemon.log
    with daemon.connect(b"PING\n", host="::1") as client:
        client.ask(b"MESG six\n")
        assert daemon.records()[0].origin == client.origin


def test_replies_keep_their_order(msgd: Daemon) -> None:
    with msgd.line_client() as client:
        client.send(b"MESG a\nPING\nMESG b\nTERM wrong\nMESG c\nNOPE\nPING\n")
        assert client.finish() == (
            b"MESG a\nPONG\nMESG b\nPWNO\nMESG c\nFAIL unknown header\nPONG\n"
        )


def test_half_close_with_much_behind_it(msgd: Daemon) -> None:
    lines = b"".join(b"MESG %d\n" % number for number in range(20_000))
    with msgd.line_client() as client:
        sender = threading.Thread(target=client.send, args=(lines,))
        sender.start()
        client.expect(lines)
        sender.join()
        client.send(b"MESG last\nMESG unfinished")
        assert client.finish() == b"MESG last\n"
    assert len(msgd.texts()) == 20_001
    msgd.wait_log(r"dropped an unfinished message of 15 bytes")


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n\r\n", b"X", b"PINK", b"\n"])
def test_no_handshake_is_refused(msgd: Daemon, first: bytes) -> None:
    with msgd.connect() as client:
        client.send(first)
        assert client.rest() == b"FAIL handshake expected\n"


def test_handshake_timeout_and_idle_timeout(start: Start) -> None:
    daemon = start("limits: {handshake_seconds: 0.2, idle_seconds: 0.4}\n")
    with daemon.connect() as silent, daemon.line_client() as idle:
        assert silent.rest() == b""
        assert idle.rest() == b""


def test_the_limit_of_clients_admits_just_as_many(start: Start) -> None:
    daemon = start("limits: {clients: 3}\n")
    clients = [daemon.line_client() for _ in range(3)]
    for _ in range(20):
        with daemon.connect() as one_more:
            assert one_more.rest() == b"FAIL busy\n"
    assert clients[0].ask(b"MESG still here\n") == b"MESG still here\n"
    clients.pop().close()

    def free() -> bool:
        with daemon.connect() as client:
            client.send(b"PING\n")
            return client.line() == b"PONG\n"

    wait_for(free)
    for client in clients:
        client.close()


def test_networks_that_may_not_connect_are_closed_at_once(start: Start) -> None:
    daemon = start("allow: 127.0.0.2/32\n")
    with daemon.connect(source="127.0.0.1") as refused:
        assert refused.rest() == b""
    with daemon.connect(b"PING\n", source="127.0.0.2") as allowed:
        assert allowed.ask(b"PING\n") == b"PONG\n"
    daemon.wait_log(r"127\.0\.0\.1:\d+ may not connect")


def test_a_client_that_does_not_read_is_not_read_from(msgd: Daemon) -> None:
    before = rss(msgd)
    deaf = msgd.line_client()
    deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.socket.setblocking(False)
    block = b"MESG " + b"x" * 995 + b"\n"
    sent = 0
    with msgd.line_client() as other:

        def is_stuck() -> bool:
            nonlocal sent
            try:
                sent += deaf.socket.send(block * 100)
            except BlockingIOError:
                # Stuck once the daemon has answered others and still takes nothing.
                for _ in range(50):
                    other.ask(b"PING\n")
                try:
                    sent += deaf.socket.send(b"x" * 1)
                except BlockingIOError:
                    return True
            return False

        wait_for(is_stuck)
        assert rss(msgd) - before < 24 << 20
        ticks = cpu_ticks(msgd)
        for _ in range(10):
            assert other.ask(b"PING\n") == b"PONG\n"
        assert cpu_ticks(msgd) - ticks < 50
    deaf.close()


def test_resets_leave_nothing_behind(msgd: Daemon) -> None:
    with msgd.line_client() as client:
        before = descriptors(msgd)
        for opening in (b"", b"PI", b"PING", b"PING\nMESG a", b"PING\nMORE b\n", b"PINGMESG c"):
            for _ in range(10):
                peer = msgd.connect()
                peer.send(opening) if opening else None
                linger = struct.pack("ii", 1, 0)  # close by a reset: socket(7), SO_LINGER
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                peer.close()
        wait_for(lambda: descriptors(msgd) == before)
        assert client.ask(b"MESG alive\n") == b"MESG alive\n"


def test_the_right_password_stops_it_and_all_is_answered(msgd: Daemon) -> None:
    with msgd.line_client() as other, msgd.bare_client() as bare, msgd.line_client() as client:
        other.send(b"MESG from the other\nMESG unfinished")
        client.send(b"MESG before\nTERM %b\nMESG behind\n" % PASSWORD.encode())
        assert client.rest() == b"MESG before\nPWOK\nMESG behind\n"
        assert other.rest() == b"MESG from the other\n"
        assert bare.rest() == b""
    assert msgd.wait() == 0
    assert sorted(msgd.texts()) == ["before", "behind", "from the other"]
    assert PASSWORD not in msgd.log


def test_many_with_the_right_password(msgd: Daemon) -> None:
    """One verification answers all who wait for the same; none is left without an answer."""
    clients = [msgd.line_client() for _ in range(5)]
    for client in clients:
        client.send(b"TERM %b\n" % PASSWORD.encode())
    assert {client.rest() for client in clients} <= {b"PWOK\n", b"FAIL server is stopping\n"}
    assert msgd.wait() == 0


def test_wrong_passwords_go_on(msgd: Daemon) -> None:
    with msgd.line_client() as client:
        assert client.ask(b"TERM wrong horse\n") == b"PWNO\n"
        assert client.ask(b"TERM %b \n" % PASSWORD.encode()) == b"PWNO\n"  # byte for byte
        for malformed in (b"", b" ", b" " + b"x" * 1025, b" a\tb", b" \xff", b" a\xc2\x80"):
            assert client.ask(b"TERM%b\n" % malformed) == b"PWIV\n"
        assert client.ask(b"MESG on\n") == b"MESG on\n"
    assert "wrong horse" not in msgd.log
    assert "horse" not in msgd.archive().decode()


def test_without_a_hash_nobody_can_stop_it(start: Start) -> None:
    daemon = start()
    with daemon.line_client() as client:
        assert client.ask(b"TERM secret\n") == b"PWNO\n"


def test_a_right_password_from_another_address_passes_the_guessers(msgd: Daemon) -> None:
    guessers = [msgd.line_client() for _ in range(30)]
    for number, guesser in enumerate(guessers):
        guesser.send(b"TERM guess %d\n" % number)
    with msgd.connect(b"PING\n", source="127.0.0.2") as owner:
        assert owner.ask(b"TERM %b\n" % PASSWORD.encode()) == b"PWOK\n"
    answers = [guesser.rest() for guesser in guessers]
    assert set(answers) <= {
        b"PWNO\n",
        b"FAIL server is stopping\n",
        b"FAIL password cannot be verified now\n",
    }
    assert msgd.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it_and_lose_nothing(msgd: Daemon, number: int) -> None:
    with msgd.line_client() as client, msgd.bare_client() as bare:
        client.send(b"MESG one\nMESG two\n")
        bare.send(b"MESG three")
        # What has arrived at the daemon's socket when it is told to stop counts.
        client.expect(b"MESG one\nMESG two\n")
        msgd.signal(number)
        assert client.rest() == b""
        assert bare.rest() == b"MESG three"
    assert msgd.wait() == 0
    assert sorted(msgd.texts()) == ["one", "three", "two"]


def test_a_second_signal_stops_it_at_once(msgd: Daemon) -> None:
    deaf = msgd.line_client()
    fill(deaf)
    with msgd.line_client() as client:
        client.ask(b"PING\n")
    msgd.signal(signal.SIGTERM)
    msgd.wait_log("stopping: SIGTERM")
    msgd.signal(signal.SIGTERM)
    msgd.wait_log("stopping at once")
    assert msgd.wait() == 0


def test_reload_takes_what_is_new_and_keeps_the_clients(start: Start) -> None:
    daemon = start(f"password_hash: {PASSWORD_HASH}\n")
    with daemon.line_client() as client:
        daemon.config.write_text("limits: {message_bytes: 10}\nsync: never\nport: 1\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_log("configuration read again")
        with daemon.line_client() as new:
            assert new.ask(b"MESG 12345678901\n") == b"FAIL message too long\n"
            assert new.ask(b"TERM %b\n" % PASSWORD.encode()) == b"PWNO\n"
        assert client.ask(b"MESG 12345678901\n") == b"MESG 12345678901\n"


def test_a_reload_without_a_hash_leaves_nobody_waiting(msgd: Daemon) -> None:
    guessers = [msgd.line_client() for _ in range(5)]
    for number, guesser in enumerate(guessers):
        guesser.send(b"TERM guess %d\n" % number)
    msgd.config.write_text("")
    msgd.signal(signal.SIGHUP)
    assert [guesser.line() for guesser in guessers] == [b"PWNO\n"] * 5


def test_a_broken_configuration_changes_nothing(start: Start) -> None:
    daemon = start("limits: {message_bytes: 10}\n")
    daemon.config.write_text("limits:\n  mesage_bytes: 20\n")
    daemon.signal(signal.SIGHUP)
    daemon.wait_log(r"msgd\.yaml:2: limits\.mesage_bytes: .*message_bytes.*old configuration")
    with daemon.line_client() as client:
        assert client.ask(b"MESG 12345678901\n") == b"FAIL message too long\n"


def test_reload_opens_the_file_again(msgd: Daemon) -> None:
    with msgd.line_client() as client:
        client.ask(b"MESG first\n")
        (day,) = msgd.files()
        day.rename(day.with_suffix(".1"))
        msgd.signal(signal.SIGHUP)
        msgd.wait_log("configuration read again")
        wait_for(day.exists)
        client.ask(b"MESG second\n")
    assert msgd.texts() == ["second"]


def test_a_port_that_is_taken(start: Start, msgd: Daemon) -> None:
    other = start("listen: 127.0.0.1\n", "--port", str(msgd.port), ready=False)
    assert other.wait() == 1
    assert f"cannot listen on 127.0.0.1:{msgd.port}: Address already in use" in other.log
    assert other.log.count("\n") == 1


def test_two_daemons_on_one_directory(start: Start, msgd: Daemon) -> None:
    other = start("", "--log-directory", str(msgd.log_directory), ready=False)
    assert other.wait() == 1
    assert f"another msgd (pid {msgd.pid})" in other.log


def test_an_idle_daemon_uses_no_processor(msgd: Daemon) -> None:
    clients: list[Client] = [msgd.line_client() for _ in range(50)]
    half_closed = msgd.connect()
    half_closed.socket.shutdown(socket.SHUT_WR)
    assert half_closed.rest() == b""
    ticks = cpu_ticks(msgd)
    assert clients[0].ask(b"TERM wrong\n") == b"PWNO\n"  # about a second passes here
    assert cpu_ticks(msgd) - ticks < 20
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("first", "limits"),
    [(b"X", ""), (b"PINGMESG " + b"a" * 2000, "message_bytes: 1024"), (b"P", "idle_seconds: 0.01")],
    ids=["no handshake", "too long", "idle"],
)
def test_who_goes_on_after_the_server_has_closed_harms_nobody(
    start: Start, first: bytes, limits: str
) -> None:
    """Its bytes and its end come while the server waits for the acknowledgement of its own."""
    msgd = start(f"limits: {{{limits}}}\n")
    for number in range(60):
        with msgd.connect() as client:
            client.send(first)
            client.rest()
            client.send(b"Y" * (number % 3))
    with msgd.line_client() as client:
        assert client.ask(b"MESG still there\n") == b"MESG still there\n"
    assert msgd.stop() == 0
