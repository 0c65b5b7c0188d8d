"""The client library: against the real daemon, and against servers that misbehave."""

from __future__ import annotations

import os
import pickle
import select
import socket
import threading
from contextlib import suppress
from math import inf, nan
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.archive.records import Form
from msgd.client import (
    Client,
    ConnectionLost,
    InUse,
    MsgdError,
    NotConnected,
    NotNow,
    PasswordRefused,
    Receipt,
    Refused,
)
from msgd.client.inflight import Block, Pipeline
from msgd.wire.client import ProtocolError
from msgd.wire.events import Records
from msgd.wire.headers import encode_message
from msgd.wire.server import ServerProtocol
from msgd.wire.text import escape
from tests.conftest import PASSWORD, Daemon, Start
from tests.scripted import Part, echo, greet, receive, says, scripted, silent


@pytest.fixture
def msgd(shared_msgd: Daemon) -> Daemon:
    return shared_msgd


def test_send_returns_the_text_as_archived(msgd: Daemon) -> None:
    with Client(port=msgd.port) as client:
        assert client.send("hello") == "hello"
        assert client.send(b"bell \x07, bad \xff") == "bell \\x07, bad \\xff"
        assert client.send("two\nlines") == "two\nlines"
        assert client.send("") == ""
        assert client.send("no \ud800 in UTF-8") == "no \\ud800 in UTF-8"
        assert client.ping() > 0
    assert msgd.texts() == [
        "hello",
        "bell \\x07, bad \\xff",
        "two\nlines",
        "",
        "no \\ud800 in UTF-8",
    ]


def test_send_raises_what_the_server_refuses_and_goes_on(msgd: Daemon) -> None:
    with Client(port=msgd.port) as client:
        with pytest.raises(Refused, match="message too long") as caught:
            client.send("x" * 70_000)
        assert caught.value.reason == "message too long"
        assert client.send("next") == "next"


def test_send_many_gives_receipts_in_order(msgd: Daemon) -> None:
    texts = [f"line {n}" + " \x1b" * (n % 7 == 0) for n in range(5000)]
    texts[3000] = "x" * 70_000
    texts[3001] = "three\nlines\x00\nhere"
    with Client(port=msgd.port) as client:
        found = list(client.send_many(texts))
    assert [receipt.number for receipt in found] == list(range(1, 5001))
    assert found[3000] == Receipt(3001, None, "message too long")
    expected = [escape(text.encode()).decode() for text in texts]
    del expected[3000], found[3000]
    assert [receipt.text for receipt in found] == expected == msgd.texts()


def test_a_message_far_over_the_limit_is_refused_before_it_is_sent_whole(start: Start) -> None:
    daemon = start("limits: {message_bytes: 100}\nlisten: 127.0.0.1\n")
    with Client(port=daemon.port) as client:
        found = list(client.send_many(["a", "x" * 10_000_000, "b"]))
    assert [receipt.refusal for receipt in found] == [None, "message too long", None]
    assert daemon.texts() == ["a", "b"]


def test_more_than_any_buffer_holds_cannot_deadlock(msgd: Daemon) -> None:
    text = "x" * 60_000
    with Client(port=msgd.port) as client:
        assert sum(receipt.text == text for receipt in client.send_many([text] * 1000)) == 1000


def test_giving_up_the_iteration_closes_the_client() -> None:
    def owes_one(connection: socket.socket) -> None:
        greet(connection)
        assert receive(connection, 14) == b"MESG 0\nMESG 1\n"
        connection.sendall(b"MESG 0\n")
        assert connection.recv(1) == b""

    with scripted(owes_one) as port:
        client = Client(port=port)
        for _ in client.send_many(["0", "1"]):
            break
        with pytest.raises(ConnectionLost, match="closed"):
            client.send("more")


def test_terminate(msgd: Daemon) -> None:
    with Client(port=msgd.port) as client:
        for wrong in ("wrong", "line\nfeed", "", "\x07"):
            with pytest.raises(PasswordRefused) as caught:
                client.terminate(wrong)
            assert caught.value.well_formed == (wrong == "wrong")
        assert client.send("still there") == "still there"
        client.terminate(PASSWORD)
    assert msgd.wait() == 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not msgd"),
        (b"PING\n", "not msgd"),
        (b"MESG hello\n", "not msgd"),
        (b"FAIL busy\n", "refuses the connection: busy"),
        (b"FAIL \x1b[2J\n", r"refuses the connection: \\x1b\[2J"),
        (b"", "closed the connection"),
    ],
)
def test_what_listens_does_not_shake_hands(answer: bytes, words: str) -> None:
    def part(connection: socket.socket) -> None:
        receive(connection, 5)
        connection.sendall(answer)

    with scripted(part) as port, pytest.raises(NotConnected, match=words):
        Client(port=port)


def test_a_server_that_stops_answering_is_given_up() -> None:
    with scripted(silent) as port, Client(port=port, timeout=0.2) as client:
        with pytest.raises(ConnectionLost, match=r"no answer for 0\.2 seconds") as caught:
            list(client.send_many(["x" * 1000] * 20_000))
        assert (caught.value.confirmed, caught.value.refused) == (0, 0)
        assert caught.value.unknown > 0


def test_a_break_is_counted() -> None:
    part = says(b"MESG a\n", b"FAIL full\n", b"MESG ")
    with scripted(part) as port, Client(port=port) as client:
        receipts = client.send_many(list("abcdef"))
        found = [next(receipts), next(receipts)]
        with pytest.raises(ConnectionLost) as caught:
            next(receipts)
    assert found == [Receipt(1, "a"), Receipt(2, None, "full")]
    assert (caught.value.confirmed, caught.value.refused, caught.value.unknown) == (1, 1, 4)


@pytest.mark.parametrize("answer", [b"HELO\n", b"MESG b\nMESG a\n", b"PONG\n", b"x" * 10_000])
def test_answers_that_no_msgd_gives_end_the_connection(answer: bytes) -> None:
    def part(connection: socket.socket) -> None:
        says(answer)(connection)
        receive(connection, 1)  # until the client has gone

    with (
        scripted(part) as port,
        Client(port=port) as client,
        pytest.raises(MsgdError, match="not msgd"),
    ):
        list(client.send_many(["a"]))


def test_an_extra_reply_spoils_no_receipt_but_the_client() -> None:
    with scripted(says(b"MESG a\nMESG b\n")) as port, Client(port=port) as client:
        assert client.send("a") == "a"
        with pytest.raises(ConnectionLost, match="closed"):
            client.send("b")


def test_an_echo_server_takes_everything() -> None:
    with scripted(echo) as port, Client(port=port) as client:
        assert len(list(client.send_many(map(str, range(10_000))))) == 10_000


def test_ping_and_terminate_tell_strangers() -> None:
    with (
        scripted(says(b"MESG x\n")) as port,
        Client(port=port) as client,
        pytest.raises(ConnectionLost, match="not msgd"),
    ):
        client.ping()
    with (
        scripted(says(b"FAIL not now\n")) as port,
        Client(port=port) as client,
        pytest.raises(Refused, match="not now"),
    ):
        client.terminate("x")


def test_the_last_answers_are_read_when_the_server_has_gone() -> None:
    def part(connection: socket.socket) -> None:
        greet(connection)
        line = receive(connection, 7)
        connection.sendall(line)

    with scripted(part) as port, Client(port=port) as client:
        pipeline = Pipeline()
        pipeline.add(Block(b"MESG a\n" * 500_000, 500_000))
        with pytest.raises(ConnectionLost) as caught:
            list(client.transmit(pipeline, Nothing()))
    assert caught.value.confirmed == 1


class Nothing:
    """A source at its end."""

    ended = True

    def fileno(self) -> int | None:
        return None

    def read(self) -> Block:
        raise AssertionError


def test_a_client_in_use_gives_no_receipt_for_another_message(msgd: Daemon) -> None:
    with Client(port=msgd.port) as client:
        found = []
        for receipt in client.send_many(["A", "B"]):
            for call in (lambda: client.send("X"), client.ping, lambda: client.terminate("x")):
                with pytest.raises(InUse, match="in use"):
                    call()
            found.append(receipt)
        assert found == [Receipt(1, "A"), Receipt(2, "B")]
        assert client.send("X") == "X"
    assert msgd.texts() == ["A", "B", "X"]


def test_an_interrupted_call_leaves_no_answer_for_the_next(msgd: Daemon) -> None:
    for interrupted in (Client.ping, lambda client: client.terminate("x")):
        client = Client(port=msgd.port)
        wait = client._link.wait

        def interrupt(*args: object) -> NoReturn:
            raise KeyboardInterrupt

        def once(*args: Any, client: Client = client, wait: Any = wait) -> object:
            client._link.wait = interrupt  # type: ignore[method-assign,assignment]
            return wait(*args)

        client._link.wait = once  # type: ignore[method-assign,assignment]
        with pytest.raises(KeyboardInterrupt):
            interrupted(client)
        with pytest.raises(ConnectionLost, match="ended without its answer"):
            client.send("next")


@pytest.mark.parametrize("text", [None, 5, ["x"], bytearray(b"x")])
def test_what_is_no_text_is_an_error_at_once(msgd: Daemon, text: Any) -> None:
    with Client(port=msgd.port) as client:
        with pytest.raises(TypeError, match="str or bytes"):
            client.send(text)
        with pytest.raises(TypeError, match="str or bytes"):
            client.terminate(text)
        assert client.send("next") == "next"
        with pytest.raises(TypeError, match="str or bytes"):
            list(client.send_many(["one", text, "three"]))


def test_a_single_text_is_not_several(msgd: Daemon) -> None:
    with Client(port=msgd.port) as client, pytest.raises(TypeError, match="several"):
        client.send_many("abc")


def test_receipts_that_nobody_asks_for_are_warned_of(msgd: Daemon) -> None:
    with Client(port=msgd.port) as client, pytest.warns(RuntimeWarning, match="nothing was sent"):
        client.send_many(["a"])


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"port": 6743 + 65536}, ValueError),
        ({"port": 0}, ValueError),
        ({"port": "6743"}, TypeError),
        ({"port": True}, TypeError),
        ({"host": ""}, ValueError),
        ({"host": None}, TypeError),
        ({"host": []}, ValueError),
        ({"host": ["a", None]}, TypeError),
        ({"host": "a\0b"}, ValueError),
        ({"host": "::1\0b"}, ValueError),
        ({"host": Path("/run/x")}, TypeError),
        ({"host": "x\x1b[31m"}, ValueError),
        ({"host": "a:70000"}, ValueError),
        ({"host": "/" + "x" * 200}, ValueError),
        ({"timeout": None}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": inf}, ValueError),
        ({"timeout": 1e7}, ValueError),
        ({"timeout": 10**400}, ValueError),
        ({"timeout": nan}, ValueError),
        ({"timeout": True}, TypeError),
        ({"tls": "yes"}, TypeError),
        ({"tls": True, "host": "/run/x"}, ValueError),
    ],
)
def test_what_cannot_be_meant_is_an_error(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Client(**wrong)


def drips(*parts: bytes) -> Part:
    """Answers everything with these bytes, and then with one x after the other for ever."""

    def part(connection: socket.socket) -> None:
        greeting = parts[0] == b"PONG\n"
        if greeting:
            greet(connection)
        connection.recv(1 << 16)
        connection.sendall(b"".join(parts[greeting:]))
        poll = select.poll()
        poll.register(connection, select.POLLRDHUP)
        while not poll.poll(10):
            connection.sendall(b"x")

    return part


@pytest.mark.parametrize("beginning", [b"MESG ", b"FAIL "])
def test_a_reply_has_one_deadline_whatever_trickles_in(beginning: bytes) -> None:
    with (
        scripted(drips(b"FAIL ")) as port,
        pytest.raises(NotConnected, match=r"no answer for 0\.2 seconds"),
    ):
        Client(port=port, timeout=0.2)
    for call in (Client.ping, lambda client: client.terminate("x")):
        with (
            scripted(drips(b"PONG\n", b"FAIL ")) as port,
            Client(port=port, timeout=0.2) as client,
            pytest.raises(ConnectionLost, match=r"no answer for 0\.2 seconds"),
        ):
            call(client)
    with (
        scripted(drips(b"PONG\n", beginning)) as port,
        Client(port=port, timeout=0.2) as client,
        pytest.raises(ConnectionLost, match=r"no answer for 0\.2 seconds"),
    ):
        client.send("x" * 60_000)


def test_a_server_that_talks_on_after_its_goodbye_holds_nobody() -> None:
    with (
        scripted(drips(b"PONG\n", b"PWOK\n")) as port,
        Client(port=port, timeout=0.2) as client,
    ):
        client.terminate("x")
        assert client.closed


def test_a_goodbye_that_comes_with_more_is_one() -> None:
    with scripted(says(b"PWOK\nPWOK\n")) as port, Client(port=port) as client:
        client.terminate("x")
        assert client.closed


@pytest.mark.parametrize(
    "error",
    [
        ConnectionLost("broken", 3, 2, 1),
        NotNow("archive cannot be written"),
        Refused("message too long"),
        PasswordRefused(well_formed=False),
        InUse(),
    ],
)
def test_errors_come_whole_out_of_a_pool_of_processes(error: MsgdError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("endless", [b"FAIL " + b"x" * 60, b"MORE x\n", b"MESG " + b"x" * 60])
def test_an_endless_reply_is_not_msgds(endless: bytes) -> None:
    def part(connection: socket.socket) -> None:
        greet(connection)
        connection.recv(1 << 16)
        while True:  # until the client goes
            connection.sendall(endless * 1000)

    for call in (Client.ping, lambda client: client.terminate("x"), lambda c: c.send("x" * 60)):
        with (
            scripted(part) as port,
            Client(port=port) as client,
            pytest.raises(ConnectionLost, match="not msgd"),
        ):
            call(client)


class Trickle:
    """A source that gives a message every 10 ms until it is stopped."""

    def __init__(self) -> None:
        self.ended = False
        self._read, self._write = os.pipe()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(0.01):
            os.write(self._write, b"x")

    def fileno(self) -> int | None:
        return self._read

    def read(self) -> Block:
        os.read(self._read, 1)
        return Block(b"MESG x\n", 1)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        os.close(self._read)
        os.close(self._write)


def test_sending_is_no_progress_of_a_server_that_does_not_answer() -> None:
    source = Trickle()
    try:
        with (
            scripted(silent) as port,
            Client(port=port, timeout=0.2) as client,
            pytest.raises(ConnectionLost, match="no answer") as caught,
        ):
            list(client.transmit(Pipeline(), source))
        assert caught.value.unknown > 0
    finally:
        source.stop()


@pytest.mark.parametrize(
    "answer",
    [b"MESG other\nMESG b\n", b"MESG A\n", b"MESG b\nMESG a\n", b"MESG \n", b"MESG a \n",
     b"MORE a\nMESG b\n", b"MESG a\rMESG b"],
)  # fmt: skip
def test_what_is_not_the_echo_of_what_was_sent_confirms_nothing(answer: bytes) -> None:
    def part(connection: socket.socket) -> None:
        greet(connection)
        assert receive(connection, 14) == b"MESG a\nMESG b\n"
        connection.sendall(answer)
        receive(connection, 1)  # until the client has gone

    with (
        scripted(part) as port,
        Client(port=port) as client,
        pytest.raises(ConnectionLost, match="not msgd") as caught,
    ):
        list(client.send_many(["a", "b"]))
    assert caught.value.confirmed == 0


def test_an_echo_without_the_escapes_is_not_msgds() -> None:
    with scripted(echo) as port, Client(port=port) as client:
        assert client.send("plain") == "plain"
        with pytest.raises(ConnectionLost, match="not msgd"):
            client.send("\x1b")


def test_an_echo_of_what_is_not_sent_yet_is_not_msgds() -> None:
    for text in (b"a", b"\x1b"):
        pipeline = Pipeline()
        pipeline.add(Block(b"MESG %b\n" % text * 3, 3))
        pipeline.sent(len(b"MESG %b\nME" % text))
        assert pipeline.receive(b"MESG %b\n" % escape(text))[0].messages == 1
        with pytest.raises(ProtocolError):
            pipeline.receive(b"MESG %b\n" % escape(text))


# The pipeline takes answers in blocks. The model below takes them one by one, as they are meant:
# an answer is a line of FAIL, or lines of MORE up to one of MESG.

messages = st.lists(
    st.tuples(st.sampled_from([b"a", b"", b"b\nc", b"\x1b", b"d\n\x07\n"]), st.booleans()),
    min_size=1,
    max_size=12,
)


@given(messages, st.lists(st.integers(1, 5), min_size=1), st.lists(st.integers(1, 30), min_size=1))
def test_the_pipeline_agrees_with_the_model(
    texts: list[tuple[bytes, bool]], groups: list[int], cuts: list[int]
) -> None:
    answers = [encode_message(escape(t)) if ok else b"FAIL no\n" for t, ok in texts]
    pipeline = Pipeline()
    left = [encode_message(text) for text, _ in texts]
    for size in groups * len(left):
        if left:
            pipeline.add(Block(b"".join(left[:size]), len(left[:size])))
            left = left[size:]
    while output := pipeline.output():
        pipeline.sent(len(output))
    data, found, numbers = b"".join(answers), b"", list[int]()
    for size in cuts * len(data):
        for answer in pipeline.receive(data[:size]):
            found += answer.echo + b"FAIL no\n" * (answer.messages * (answer.refusal is not None))
            numbers += range(answer.first, answer.first + answer.messages)
        data = data[size:]
        if not data:
            break
    assert found == b"".join(answers)
    assert numbers == list(range(1, len(texts) + 1))
    assert pipeline.idle
    assert pipeline.bytes_unanswered == 0
    assert pipeline.confirmed == sum(ok for _, ok in texts)


any_texts = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from(
            [b"a\r", b"\r\r", b"a\r\nb", b"\r\n", b"\xe2\x80", b"\xe2\x80\xae", b"\n\n"]
        ),
    ),
    min_size=1,
    max_size=8,
)


@given(any_texts)
def test_the_servers_echo_of_any_text_is_what_must_come_back(texts: list[bytes]) -> None:
    server, form, pipeline = ServerProtocol(65536), Form("origin"), Pipeline()
    wire = b"".join(map(encode_message, texts))
    pipeline.add(Block(wire, len(texts)))
    pipeline.sent(len(wire))
    server.receive(b"PING\n", form)
    events = server.receive(wire, form)
    echo = b"".join(b"".join(event.echoes) for event in events if isinstance(event, Records))
    assert b"".join(answer.echo for answer in pipeline.receive(echo)) == echo
    assert pipeline.confirmed == len(texts)


@given(any_texts, st.data())
def test_a_changed_echo_confirms_nothing_behind_the_change(
    texts: list[bytes], data: st.DataObject
) -> None:
    wire = b"".join(map(encode_message, texts))
    pipeline = Pipeline()
    pipeline.add(Block(wire, len(texts)))
    pipeline.sent(len(wire))
    echo = escape(wire.replace(b"\r\n", b"\n"))
    at = data.draw(st.integers(0, len(echo) - 1))
    end = data.draw(st.integers(at, len(echo)))
    other = data.draw(st.binary(max_size=3))
    changed, found = echo[:at] + other + echo[end:], b""
    with suppress(ProtocolError):
        for start in range(0, len(changed), 3):
            found += b"".join(a.echo for a in pipeline.receive(changed[start : start + 3]))
    assert echo.startswith(found)
    assert changed.startswith(found) or pipeline.refused
    assert found.count(b"\nMESG") + found.startswith(b"MESG") == pipeline.confirmed


@given(st.integers(0, 60), st.integers(0, 60))
def test_rewind_sends_again_just_what_has_no_answer(sent: int, answered: int) -> None:
    lines = [b"MORE a\nMESG b\n", b"MESG \n", b"MESG cc\n"] * 2
    wire = b"".join(lines)
    sent = min(sent, len(wire))
    answered = min(answered, sent)
    pipeline = Pipeline()
    pipeline.add(Block(b"".join(lines[:3]), 3))
    pipeline.add(Block(b"".join(lines[3:]), 3))
    rest = sent
    while rest:
        size = min(rest, len(pipeline.output()))
        pipeline.sent(size)
        rest -= size
    pipeline.receive(wire[:answered])
    ends = [sum(map(len, lines[: n + 1])) for n in range(6)]
    confirmed = sum(end <= answered for end in ends)
    unknown = sum(answered < end <= sent for end in ends)
    for _ in range(2):
        assert (pipeline.confirmed, pipeline.unknown) == (confirmed, unknown)
        pipeline.rewind()
    again = b""
    while output := pipeline.output():
        again += bytes(output)
        pipeline.sent(len(output))
    assert again == b"".join(lines[confirmed:])
    pipeline.receive(again)
    assert pipeline.confirmed == 6


@pytest.mark.parametrize("data", [b"MESG a\n", b"FAIL x\n", b"PONG\n", b"MESGx\n", b"m"])
def test_an_answer_to_nothing_is_an_error(data: bytes) -> None:
    pipeline = Pipeline()
    pipeline.add(Block(b"MESG a\n", 1))
    with pytest.raises(ProtocolError):
        pipeline.receive(data)
