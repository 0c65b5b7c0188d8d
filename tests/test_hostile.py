"""A server that means harm, or is none: cut, changed and endless answers, at every byte.

Whatever it sends, the library raises what it documents, in time; a receipt is for the message as
the text rules show it; the handler keeps its thread; msgctl says harmless lines.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from time import monotonic

import pytest

from msgd.client import Client, MsgdError, Receipt
from msgd.handler import MsgdHandler
from msgd.wire.headers import encode_message
from msgd.wire.text import escape
from tests.ctl import msgctl
from tests.matrix import every_other
from tests.scripted import Part

TEXTS = ["one", "two\nlines", "a bell \a", "ü"]
ECHOES = [escape(encode_message(text.encode())) for text in TEXTS]
ARCHIVED = [escape(text.encode()).decode() for text in TEXTS]
TIMEOUT = 0.2

# What no msgd says there, said again and again.
NOISE = [
    b"A" * 60, b"MORE x\n", b"MESG " + b"x" * 60, b"MESG one\n", b"FAIL \x1b[31m\n", b"FAIL",
    b"FAIL message too long\n", b"FAIL session interrupted\n", b"FAIL session taken over\n",
    b"PONG\n", b"PWOK\n", b"PWNO\n", b"PING\n", b"\0", b"\n", b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"SESS 1\n", b"SESS 00\n", b"SESS -1\n", b"SESS 1 2\n", b"SESS \n",
    b"SESS " + b"9" * 20 + b"\n",
]  # fmt: skip


@contextmanager
def serving(part: Part) -> Iterator[int]:
    """A server that does the same with each connection; what it meets itself is no matter."""

    def play(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            part(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connections.append(listener.accept()[0])
                connections[-1].settimeout(20)
                threads.append(threading.Thread(target=play, args=(connections[-1],)))
                threads[-1].start()

    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threads = [threading.Thread(target=accept)]
        threads[0].start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        threads[0].join()
    for connection in connections:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
    for thread in threads[1:]:
        thread.join()


def replies(session: str | None) -> list[bytes]:
    return [b"PONG\n", *([b"SESS 0\n"] if session else []), *ECHOES]


def answers(*parts: bytes, then: Callable[[socket.socket], None]) -> Part:
    """Each part once as many lines have come as it has itself, the last at once."""

    def part(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            for answer in parts:
                for _ in range(answer.count(b"\n")):
                    lines.readline()
                connection.sendall(answer)
            then(connection)

    return part


def closes(connection: socket.socket) -> None: ...


def waits(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


def receipts(port: int, session: str | None) -> tuple[list[Receipt], MsgdError | None]:
    """Those that came before the error; any other error than a MsgdError is the test's."""
    found = list[Receipt]()
    trouble: MsgdError | None = None
    begin = monotonic()
    try:
        with Client(port=port, timeout=TIMEOUT, session=session) as client:
            found.extend(client.send_many(TEXTS[client.last :]))
    except MsgdError as error:
        trouble = error
    finally:
        assert monotonic() - begin < 20, "it waits without a deadline"
    assert not set("\n\x1b") & set(str(trouble))
    return found, trouble


@pytest.mark.parametrize("session", [None, "s"])
def test_closing_at_each_byte(session: str | None) -> None:
    whole = b"".join(replies(session))
    for size in range(len(whole)):
        left, parts = whole[:size], list[bytes]()
        for reply in replies(session):
            parts.append(left[: len(reply)])
            left = left[len(reply) :]
        with serving(answers(*parts, then=closes)) as port:
            found, error = receipts(port, session)
        assert error is not None
        assert [receipt.text for receipt in found] == ARCHIVED[: len(found)]


@pytest.mark.parametrize("session", [None, "s"])
def test_a_change_at_each_byte_of_the_echoes(session: str | None) -> None:
    echoes, opening = b"".join(ECHOES), replies(session)[: -len(ECHOES)]
    for at in range(len(echoes)):
        byte = echoes[at : at + 1]
        for other in (b"", b"X", byte + byte, byte.swapcase()):
            changed = echoes[:at] + other + echoes[at + 1 :]
            if changed == echoes:
                continue
            with serving(answers(*opening, changed, then=closes)) as port:
                found, error = receipts(port, session)
            assert error is not None
            assert [receipt.text for receipt in found] == ARCHIVED[: len(found)]


def endless(noise: bytes) -> Callable[[socket.socket], None]:
    def part(connection: socket.socket) -> None:
        while True:  # until the client goes
            connection.sendall(noise * 100)

    return part


def drips(noise: bytes) -> Callable[[socket.socket], None]:
    def part(connection: socket.socket) -> None:
        poll = select.poll()
        poll.register(connection, select.POLLRDHUP)
        for byte in cycle(noise):
            if poll.poll(TIMEOUT * 200):  # milliseconds: a fifth of the client's patience
                return
            connection.sendall(bytes([byte]))

    return part


@pytest.mark.parametrize(("then", "session"), [(endless, None), (endless, "s"), (drips, "s")])
@pytest.mark.parametrize("noise", NOISE)
def test_noise_gives_nobody_a_receipt(
    noise: bytes, then: Callable[[bytes], Part], session: str | None
) -> None:
    """Behind the handshake, and in place of the second echo."""
    for known in (1, len(replies(session)[: 1 - len(ECHOES)])):
        with serving(answers(*replies(session)[:known], then=then(noise))) as port:
            found, _ = receipts(port, session)
        for receipt in found:
            assert receipt.text in (None, ARCHIVED[receipt.number - 1])


def says_at_once(text: bytes) -> Part:
    def part(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(text)

    return part


@pytest.mark.parametrize("call", [Client.ping, lambda client: client.terminate("x")])
def test_noise_behind_an_answer_leaves_no_open_client(call: Callable[[Client], object]) -> None:
    for answer in (b"PONG\n", b"PWOK\n", b"PWNO\n", b"FAIL busy\n", b"MESG x\n"):
        for noise in NOISE:
            both = says_at_once(answer + noise)
            with (
                serving(answers(b"PONG\n", then=both)) as port,
                Client(port=port, timeout=TIMEOUT) as client,
            ):
                with suppress(MsgdError):
                    call(client)
                assert client.closed or client.closed_by_server()


@pytest.mark.parametrize("noise", NOISE[::4])
def test_the_handler_outlives_noise(noise: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    for known in range(4):
        with serving(answers(*replies("s")[:known], then=endless(noise))) as port:
            handler = MsgdHandler(port=port, timeout=TIMEOUT)
            for text in TEXTS:
                handler.emit(logging.makeLogRecord({"msg": text}))
            handler.close()
        said = capsys.readouterr().err
        assert "an error of its own" not in said
        assert all(line.startswith("msgd.handler: ") for line in said.splitlines())


VERBS = [["send"], ["send", "x"], ["ping", "-c1"], ["terminate", "--password-stdin"]]


@pytest.mark.parametrize(("verb", "noise"), every_other(VERBS, NOISE[1::4]))
def test_msgctl_says_harmless_lines(verb: list[str], noise: bytes) -> None:
    for known in range(2):
        with serving(answers(*replies(None)[:known], then=endless(noise))) as port:
            done = msgctl(*verb, "--timeout", str(TIMEOUT), "-p", port, stdin=b"one\ntwo\n")
        answered = verb[0] == "ping" and noise == b"PONG\n"
        assert done.returncode in (1, 69, 77) or answered
        assert "a bug" not in done.stderr
        assert all(line.startswith("msgctl: ") for line in done.stderr.split("\n")[:-1])
        assert not set(map(chr, range(32))) - {"\n"} & set(done.stderr + done.stdout)
