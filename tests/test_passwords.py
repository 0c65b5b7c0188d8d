"""Passwords over a real socket: who waits for a verdict, and who leaves before it."""

from __future__ import annotations

import signal
from contextlib import ExitStack

import pytest

from msgd.password import Guard
from tests.conftest import PASSWORD, PASSWORD_HASH, Client, Daemon, Start

STOPPING = b"FAIL server is stopping\n"
NOT_NOW = b"FAIL password cannot be verified now\n"


def guess(msgd: Daemon, number: int, then: bytes = b"") -> Client:
    """A client that waits for the verdict on a password that nobody else tries."""
    client = msgd.line_client()
    client.send(b"TERM guess %d\n" % number + then)
    return client


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
