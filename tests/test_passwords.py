"""Passwords over a real socket: who waits for a verdict, and who leaves before it."""

from __future__ import annotations

import signal
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import PASSWORD, PASSWORD_HASH, Client, Daemon, Start, wait_for
from tests.lab.proc import cpu_seconds, descriptors, rss_bytes

STOPPING = b"FAIL server is stopping\n"
NOT_NOW = b"FAIL password cannot be verified now\n"


def guess(msgd: Daemon, number: int, then: bytes = b"") -> Client:
    """A client that waits for the verdict on a password that nobody else tries."""
    client = msgd.line_client()
    client.send(b"TERM guess %d\n" % number + then)
    return client


def reset(client: Client) -> None:
    linger = struct.pack("ii", 1, 0)  # close by a reset: socket(7), SO_LINGER
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.close()


def test_who_resets_while_it_waits_leaves_its_descriptor_and_its_place(msgd: Daemon) -> None:
    """However many of its network are gone: the next one is verified."""
    with msgd.line_client() as last:
        before = descriptors(msgd.pid)
        guessers = [guess(msgd, number) for number in range(64)]
        wait_for(lambda: descriptors(msgd.pid) >= before + len(guessers))
        for guesser in guessers:
            reset(guesser)
        wait_for(lambda: descriptors(msgd.pid) <= before + 1)  # 1: the pipe of a verification
        assert last.ask(b"TERM one more\n") == b"PWNO\n"


def test_who_closes_its_side_while_it_waits_is_answered_and_nothing_spins(msgd: Daemon) -> None:
    with ExitStack() as stack:
        others = [stack.enter_context(guess(msgd, number)) for number in range(5)]
        half_closed = guess(msgd, 100, b"TERM again\nMESG behind it\n")
        half_closed.socket.shutdown(socket.SHUT_WR)
        used = cpu_seconds(msgd.pid)
        answers = half_closed.rest().removesuffix(b"MESG behind it\n").splitlines(keepends=True)
        assert len(answers) == 2
        assert set(answers) <= {b"PWNO\n", NOT_NOW}
        assert cpu_seconds(msgd.pid) - used < 1  # of the 2 or more that it waited
        assert {client.line() for client in others} <= {b"PWNO\n", NOT_NOW}


@pytest.mark.parametrize("password", [b"wrong", PASSWORD.encode()])
def test_a_bare_client_that_closes_its_side_behind_a_password(
    msgd: Daemon, password: bytes
) -> None:
    with msgd.bare_client() as client:
        client.send(b"TERM " + password)
        assert client.finish() == (b"PWNO" if password == b"wrong" else b"PWOK")


def test_who_waits_for_a_verdict_is_not_idle(start: Start) -> None:
    msgd = start(f"password_hash: {PASSWORD_HASH}\nlimits: {{idle_seconds: 0.3}}\n")
    with msgd.line_client() as client:
        assert client.ask(b"TERM wrong\n") == b"PWNO\n"
        assert client.rest() == b""


@pytest.mark.thorough
def test_what_waits_behind_a_password_costs_its_bytes_and_holds_up_nobody(start: Start) -> None:
    """Those who have earned large bites, and then have much refused that they do not read."""
    msgd = start("listen: 127.0.0.1\n")
    trusted, behind = b"MESG " + b"x" * 1994 + b"\n", b"a\n" * (100 << 10)
    with ExitStack() as stack:
        clients = [stack.enter_context(msgd.line_client()) for _ in range(4)]
        for client in clients:
            for _ in range(8):
                client.send(trusted * 128)
                client.expect(trusted * 128)
        before = rss_bytes(msgd.pid)
        for number, client in enumerate(clients):
            client.send(b"TERM %d\n" % number + behind)
        assert {client.line() for client in clients} == {b"PWNO\n"}
        with msgd.line_client() as other:
            assert other.ask(b"MESG served\n") == b"MESG served\n"
        assert rss_bytes(msgd.pid) - before < 8 << 20
        assert clients[0].read(1000) == b"FAIL unknown header\n" * 50


@pytest.mark.thorough
def test_without_a_password_the_answer_is_always_no(start: Start) -> None:
    """Also to those for whom a server with a password has no time."""
    msgd = start("listen: 127.0.0.1\n")
    with msgd.line_client() as client, msgd.line_client() as other:
        client.send(b"".join(b"TERM %d\n" % number for number in range(3)) + b"MESG end\n")
        assert client.finish() == b"PWNO\n" * 3 + b"MESG end\n"
        other.send(b"TERM a\n" * 3)
        assert other.line() == b"PWNO\n"
        msgd.signal(signal.SIGTERM)
        assert other.rest() == b"PWNO\n" * 2
    assert msgd.wait() == 0


def test_a_stop_answers_thousands_of_passwords(msgd: Daemon) -> None:
    with msgd.line_client() as client, msgd.line_client() as other:
        client.send(b"TERM a\nMESG b\n" * 1000)
        assert other.ask(b"PING\n") == b"PONG\n"
        msgd.signal(signal.SIGTERM)
        assert client.rest() == (STOPPING + b"MESG b\n") * 1000
    assert msgd.wait() == 0
    assert msgd.texts() == ["b"] * 1000


def test_a_right_password_does_not_wait_for_guessers(start: Start, tmp_path: Path) -> None:
    """Hundreds of them on one network, and one user of the socket in the file system."""
    path = tmp_path / "msgd.sock"
    msgd = start(f"password_hash: {PASSWORD_HASH}\nlisten: [127.0.0.1, {path}]\n")
    with ExitStack() as stack, socket.socket(socket.AF_UNIX) as local:
        for number in range(300):
            client = msgd.connect(b"PING\n", source=f"127.1.{number >> 8}.{number & 255}")
            stack.enter_context(client)
            client.send(b"TERM guess %d\n" % number)
        local.settimeout(3)  # what PROTOCOL.md promises
        local.connect(str(path))
        local.sendall(f"PING\nTERM {PASSWORD}\n".encode())
        answer = b""
        while not answer.endswith(b"PWOK\n"):
            answer += local.recv(100)
        assert answer == b"PONG\nPWOK\n"
    assert msgd.wait() == 0


def test_from_other_networks_the_answer_is_no(start: Start) -> None:
    msgd = start(f"password_hash: {PASSWORD_HASH}\nlisten: 127.0.0.1\nterminate_from: 127.0.0.9\n")
    with msgd.connect(b"PING\n") as client:
        assert client.ask(f"TERM {PASSWORD}\n".encode()) == b"PWNO\n"
    with msgd.connect(b"PING\n", source="127.0.0.9") as client:
        assert client.ask(f"TERM {PASSWORD}\n".encode()) == b"PWOK\n"
    assert msgd.wait() == 0
