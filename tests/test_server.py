"""The daemon over a real socket: both framings, order, limits, backpressure, the way it stops."""

from __future__ import annotations

import re
import select
import shutil
import signal
import socket
import struct
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.conftest import PASSWORD, PASSWORD_HASH, Client, Daemon, Start, wait_for
from tests.lab import tracing
from tests.lab.proc import cpu_seconds, descriptors, rss_bytes

LINE = b"MESG " + b"x" * 9994 + b"\n"


def fill(deaf: Client) -> int:
    """Send lines without reading until the daemon takes no more; how many bytes it took."""
    deaf.socket.setblocking(False)
    sent = 0
    with suppress(BlockingIOError):
        while True:
            sent += deaf.socket.send(LINE[sent % len(LINE) :])
    return sent


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


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit is not installed")
def test_descriptors_for_all_clients_and_those_over_the_limit(start: Start) -> None:
    limit = ("prlimit", "--nofile=64:4096")
    msgd = start("listen: 127.0.0.1\nlimits: {clients: 40}\n", wrapper=limit)
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(msgd.line_client())
        msgd.signal(signal.SIGSTOP)
        others = [stack.enter_context(msgd.connect()) for _ in range(150)]
        msgd.signal(signal.SIGCONT)
        assert {other.rest() for other in others} == {b"FAIL busy\n"}
    assert "cannot accept" not in msgd.log


def test_networks_that_may_not_connect_are_closed_at_once(start: Start) -> None:
    daemon = start("allow: 127.0.0.2/32\n")
    with daemon.connect(source="127.0.0.1") as refused:
        assert refused.rest() == b""
    with daemon.connect(b"PING\n", source="127.0.0.2") as allowed:
        assert allowed.ask(b"PING\n") == b"PONG\n"
    daemon.wait_log(r"127\.0\.0\.1:\d+ may not connect")


def test_a_client_that_does_not_read_is_not_read_from(msgd: Daemon) -> None:
    before = rss_bytes(msgd.pid)
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
        assert rss_bytes(msgd.pid) - before < 24 << 20
        used = cpu_seconds(msgd.pid)
        time.sleep(1)  # the window in which its processor time is measured
        assert other.ask(b"PING\n") == b"PONG\n"
        assert cpu_seconds(msgd.pid) - used < 0.2
    deaf.close()


def test_who_reads_slowly_after_the_last_word_costs_no_processor(start: Start) -> None:
    msgd = start("listen: 127.0.0.1\nlimits: {idle_seconds: 0.2}\n", "--verbose")
    with msgd.line_client() as slow:
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        fill(slow)
        msgd.wait_log("closed after a time-out")
        slow.socket.setblocking(True)
        wait_for(lambda: slow.read(1 << 15) and has_said_goodbye(slow), "the server's FIN")
        used = cpu_seconds(msgd.pid)
        time.sleep(1)  # the window in which its processor time is measured
        assert cpu_seconds(msgd.pid) - used < 0.2


def has_said_goodbye(client: Client) -> bool:
    """Whether the server has closed its side, while the client has not read so far: FIN_WAIT1."""
    ports = [address[1] for address in (client.socket.getpeername(), client.socket.getsockname())]
    ends = [f"0100007F:{port:04X}" for port in ports]
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return any(line.split()[1:4] == [*ends, "04"] for line in lines)


def test_who_reads_slowly_is_not_idle(start: Start) -> None:
    """Five times as long as it may be idle it sends nothing, as nothing is taken from it."""
    msgd = start("listen: 127.0.0.1\nlimits: {idle_seconds: 0.4}\n")
    with msgd.line_client() as slow:
        sent = fill(slow)
        slow.socket.setblocking(True)
        end = time.monotonic() + 2
        read = 0
        while time.monotonic() < end:
            read += len(slow.read(1 << 16))
            time.sleep(0.05)  # its pace
        missing = -sent % len(LINE)
        slow.send(LINE[len(LINE) - missing :] + b"MESG last\n")
        slow.read(sent + missing - read)
        assert slow.line() == b"MESG last\n"


@pytest.mark.parametrize("reload", [False, True])
def test_who_is_half_closed_and_does_not_read_is_idle(start: Start, reload: bool) -> None:
    idle = "listen: 127.0.0.1\nlimits: {idle_seconds: 0.5}\n"
    msgd = start("listen: 127.0.0.1\n" if reload else idle)
    before = descriptors(msgd.pid)
    with msgd.line_client() as deaf:
        deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while not awaits_writing(msgd):  # with little to write, so that it still reads
            deaf.send(LINE)
        deaf.socket.shutdown(socket.SHUT_WR)
        msgd.line_client().close()  # by its answer the daemon has seen that, too
        if reload:
            msgd.config.write_text(idle)
            msgd.signal(signal.SIGHUP)
        wait_for(lambda: descriptors(msgd.pid) == before, "its end")


def awaits_writing(msgd: Daemon) -> bool:
    """Whether the daemon has output for which a socket has no room: it is watched for EPOLLOUT."""
    for info in Path(f"/proc/{msgd.pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):
            watched = re.findall(r"^tfd:.* events: +([0-9a-f]+)", info.read_text(), re.MULTILINE)
            if any(int(events, 16) & select.EPOLLOUT for events in watched):
                return True
    return False


def test_resets_leave_nothing_behind(msgd: Daemon) -> None:
    with msgd.line_client() as client:
        before = descriptors(msgd.pid)
        for opening in (b"", b"PI", b"PING", b"PING\nMESG a", b"PING\nMORE b\n", b"PINGMESG c"):
            for _ in range(10):
                peer = msgd.connect()
                peer.send(opening) if opening else None
                linger = struct.pack("ii", 1, 0)  # close by a reset: socket(7), SO_LINGER
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                peer.close()
        wait_for(lambda: descriptors(msgd.pid) == before)
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


def test_a_right_password_from_another_network_passes_the_guessers(start: Start) -> None:
    msgd = start(f"password_hash: {PASSWORD_HASH}\nlisten: [127.0.0.1, '::1']\n")
    guessers = [msgd.line_client() for _ in range(30)]
    for number, guesser in enumerate(guessers):
        guesser.send(b"TERM guess %d\n" % number)
    with msgd.connect(b"PING\n", host="::1") as owner:
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


def test_a_stop_answers_those_who_have_connected_just_before(msgd: Daemon) -> None:
    """More than are let in at once; the daemon sleeps until all have connected, and the stop."""
    msgd.signal(signal.SIGSTOP)
    clients = [msgd.connect() for _ in range(150)]
    for client in clients:
        client.send(b"PING\nMESG a\n")
    msgd.signal(signal.SIGTERM)
    msgd.signal(signal.SIGCONT)
    assert [client.rest() for client in clients] == [b"PONG\nMESG a\n"] * 150
    assert msgd.wait() == 0
    assert msgd.texts() == ["a"] * 150


def test_what_comes_after_a_stop_takes_no_echo_away(msgd: Daemon) -> None:
    """Closed with unread input, the stream would be reset, and what is still on its way dropped."""
    with msgd.line_client() as slow:
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lines = b"MESG " + b"x" * 94 + b"\n"
        slow.send(lines * 600)
        wait_for(lambda: msgd.archive().count(b"\n") == 600, "all in the archive")
        msgd.signal(signal.SIGTERM)
        wait_for(lambda: has_said_goodbye(slow), "the server's FIN")
        slow.send(b"MESG late\n")
        assert slow.rest() == lines * 600
    assert msgd.wait() == 0


@pytest.mark.skipif(not tracing.is_installed(), reason="strace is not installed")
def test_a_stop_and_a_connection_at_once(start: Start, tmp_path: Path) -> None:
    """In one turn, in this order: while the turn before syncs, and sends the echo."""
    trace = tmp_path / "trace"
    inject = (f"--inject={call}:delay_enter=500000" for call in ("fdatasync", "sendto"))
    options = "--trace=fdatasync,sendto", "--signal=SIGTERM", *inject
    msgd = start("listen: 127.0.0.1\n", wrapper=tracing.wrapper(trace, *options))
    with msgd.line_client() as first:
        first.send(b"MESG a\n")
        wait_for(lambda: b"a\n" in msgd.archive(), "the write before the sync")
        msgd.signal(signal.SIGTERM)
        wait_for(lambda: "SIGTERM" in trace.read_text(), "the signal, before the echo")
        with msgd.connect() as second:
            second.send(b"PING\nMESG b\n")
            assert first.rest() == b"MESG a\n"
            assert second.rest() == b"PONG\nMESG b\n"
    assert msgd.wait() == 0
    assert "cannot accept" not in msgd.log


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


def test_a_reload_sets_the_time_outs_of_those_who_are_there(msgd: Daemon) -> None:
    with msgd.line_client() as client:
        msgd.config.write_text("limits: {idle_seconds: 0.2}\n")
        msgd.signal(signal.SIGHUP)
        assert client.rest() == b""


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
    directory = ("--log-directory", str(msgd.log_directory))
    third = start("", *directory, "--port", str(msgd.port), ready=False)
    assert third.wait() == 1
    assert f"another msgd (pid {msgd.pid})" in third.log


def test_an_idle_daemon_uses_no_processor(msgd: Daemon) -> None:
    clients: list[Client] = [msgd.line_client() for _ in range(50)]
    half_closed = msgd.connect()
    half_closed.socket.shutdown(socket.SHUT_WR)
    assert half_closed.rest() == b""
    used = cpu_seconds(msgd.pid)
    assert clients[0].ask(b"TERM wrong\n") == b"PWNO\n"  # about a second passes here
    assert cpu_seconds(msgd.pid) - used < 0.2
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
    with msgd.connect() as client:  # all at once: it may be idle in a moment
        client.send(b"PING\nMESG still there\n")
        assert client.finish() == b"PONG\nMESG still there\n"
    assert msgd.stop() == 0
