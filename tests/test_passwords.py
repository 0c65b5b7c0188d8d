"""Passwords over a real socket: who waits for a verdict, and who leaves before it."""

from __future__ import annotations

import signal
import socket
import struct
from contextlib import ExitStack

import pytest

from msgd.server.guard import Guard
from tests.conftest import PASSWORD, PASSWORD_HASH, Client, Daemon, Start, wait_for
from tests.test_server import cpu_ticks, descriptors, rss

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
    """The queue of its address is full of those who are gone: the next one is verified."""
    with msgd.line_client() as last:
        before = descriptors(msgd)
        guessers = [guess(msgd, number, b"MESG behind it\n") for number in range(Guard.WAITING)]
        wait_for(lambda: descriptors(msgd) >= before + len(guessers))
        for guesser in guessers:
            reset(guesser)
        wait_for(lambda: descriptors(msgd) <= before + 1)  # 1: the pipe of a verification
        assert last.ask(b"TERM one more\n") == b"PWNO\n"
        # What came whole before the reset is kept, as it is from any client.
        wait_for(lambda: len(msgd.texts()) == len(guessers))


def test_who_closes_its_side_while_it_waits_is_answered_and_nothing_spins(msgd: Daemon) -> None:
    with ExitStack() as stack:
        first = [stack.enter_context(guess(msgd, number)) for number in range(30)]
        half_closed = guess(msgd, 100, b"TERM again\nMESG behind it\n")
        half_closed.socket.shutdown(socket.SHUT_WR)
        ticks = cpu_ticks(msgd)
        # 30 are before it, and their turns come every half second: it is given up before.
        assert half_closed.rest() == NOT_NOW + NOT_NOW + b"MESG behind it\n"
        assert cpu_ticks(msgd) - ticks < 150  # of the 500 that it waited; passwords cost some
        half_closed.close()
        assert {client.line() for client in first[:3]} == {b"PWNO\n"}


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


def test_what_waits_behind_a_password_costs_its_bytes_and_holds_up_nobody(start: Start) -> None:
    """Those who have earned large bites, and then have much refused that they do not read."""
    msgd = start("listen: 127.0.0.1\n")
    trusted, behind = b"MESG " + b"x" * 1994 + b"\n", b"a\n" * (100 << 10)
    with ExitStack() as stack:
        clients = [stack.enter_context(msgd.line_client()) for _ in range(8)]
        for client in clients:
            for _ in range(20):
                client.send(trusted * 128)
                client.expect(trusted * 128)
        before = rss(msgd)
        for number, client in enumerate(clients):
            client.send(b"TERM %d\n" % number + behind)
        assert {client.line() for client in clients} == {b"PWNO\n"}
        with msgd.line_client() as other:
            assert other.ask(b"MESG served\n") == b"MESG served\n"
        assert rss(msgd) - before < 16 << 20
        assert clients[0].read(1000) == b"FAIL unknown header\n" * 50


def test_without_a_password_the_answer_is_always_no(start: Start) -> None:
    """Also to those for whom a server with a password has no time."""
    msgd = start("listen: 127.0.0.1\n")
    with msgd.line_client() as client, msgd.line_client() as other:
        client.send(b"".join(b"TERM %d\n" % number for number in range(6)) + b"MESG end\n")
        assert client.finish() == b"PWNO\n" * 6 + b"MESG end\n"
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


def test_refusals_do_not_hide_a_wrong_password_in_the_log(msgd: Daemon) -> None:
    with ExitStack() as stack:
        for number in range(Guard.WAITING + 20):
            stack.enter_context(guess(msgd, number))
        msgd.wait_log("asked to stop: FAIL")
        msgd.wait_log("asked to stop: PWNO")
    assert msgd.log.count("asked to stop") <= 20
