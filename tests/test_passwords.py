"""Passwords over a real socket: who waits for a verdict, and who leaves before it."""

from __future__ import annotations

import signal

from tests.conftest import Daemon

STOPPING = b"FAIL server is stopping\n"
NOT_NOW = b"FAIL password cannot be verified now\n"


def test_a_stop_answers_thousands_of_passwords(msgd: Daemon) -> None:
    with msgd.line_client() as client, msgd.line_client() as other:
        client.send(b"TERM a\nMESG b\n" * 1000)
        assert other.ask(b"PING\n") == b"PONG\n"
        msgd.signal(signal.SIGTERM)
        assert client.rest() == (STOPPING + b"MESG b\n") * 1000
    assert msgd.wait() == 0
    assert msgd.texts() == ["b"] * 1000
