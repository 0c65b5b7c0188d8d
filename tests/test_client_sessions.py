"""Sessions, the client's side: exactly once, whatever breaks."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.client import (
    Client,
    ConnectionLost,
    NoSessions,
    NotConnected,
    NotNow,
    Receipt,
    Refused,
    SessionError,
)
from msgd.client.inflight import Answer, Block, Pipeline
from msgd.wire.client import ProtocolError
from msgd.wire.headers import encode_message
from msgd.wire.text import escape
from tests.conftest import Daemon, Start
from tests.scripted import says, scripted
from tests.session_server import Connection, Sessions

TOO_LONG = b"long" * 10


def refuse(text: bytes) -> str:
    return "message too long" if text == TOO_LONG else ""


class Wires:
    """A pipeline and a model server, with what is on its way between them."""

    def __init__(self, sessions: Sessions, pipeline: Pipeline) -> None:
        self.sessions, self.pipeline = sessions, pipeline
        self.there, self.back = b"", b""
        self.server = Connection(sessions)

    def connect(self) -> list[Answer]:
        self.there, self.back = b"", b""
        self.server = Connection(self.sessions)
        told = self.server.receive(b"SESS s\n")
        last = int(told[5:-1])
        self.pipeline.begin("s", last, last + 1)
        return self.pipeline.told()

    def step(self, size: int, kind: int) -> list[Answer]:
        """Move some bytes: out of the pipeline, through the server, or back."""
        if kind == 0:
            output = bytes(self.pipeline.output()[:size])
            self.there += output
            if output:
                self.pipeline.sent(len(output))
        elif kind == 1:
            self.back += self.server.receive(self.there[:size])
            self.there = self.there[size:]
        else:
            data, self.back = self.back[:size], self.back[size:]
            return self.pipeline.receive(data) if data else []
        return []


texts = st.lists(
    st.sampled_from([b"a", b"", b"b\nc", b"\x1b", b"d\n\x07\n", TOO_LONG]), min_size=1, max_size=12
)
steps = st.lists(st.tuples(st.integers(1, 60), st.sampled_from([0, 0, 0, 1, 1, 1, 2, 2, 2, 3])))


@given(texts, st.lists(st.integers(1, 5), min_size=1), steps)
def test_each_message_is_archived_once_whatever_breaks(
    messages: list[bytes], groups: list[int], course: list[tuple[int, int]]
) -> None:
    sessions, pipeline = Sessions(refuse), Pipeline()
    wires = Wires(sessions, pipeline)
    left = list(messages)
    for size in groups * len(left):
        if left:
            block, left = left[:size], left[size:]
            pipeline.add(Block(b"".join(map(encode_message, block)), len(block)))
    answers = wires.connect()
    for size, kind in course:
        answers += wires.step(size, kind) if kind < 3 else wires.connect()
    for _ in range(1000):
        for kind in range(3):
            answers += wires.step(1 << 20, kind)
    assert pipeline.idle
    wanted = {n: escape(text) for n, text in enumerate(messages, 1) if text != TOO_LONG}
    assert sessions.archive.get("s", {}) == wanted
    assert b"".join(a.echo for a in answers) == b"".join(map(encode_message, wanted.values()))
    assert [n for a in answers for n in range(a.first, a.first + a.messages)] == [
        *range(1, len(messages) + 1)
    ]
    assert [a.first for a in answers if a.refusal] == [
        n for n, text in enumerate(messages, 1) if text == TOO_LONG
    ]
    assert (pipeline.confirmed, pipeline.refused) == (len(wanted), len(messages) - len(wanted))
    assert pipeline.bytes_unanswered == 0


def test_a_client_opens_a_session_and_goes_on_behind_its_last_number() -> None:
    sessions = Sessions(refuse)
    with scripted(sessions.serve(), sessions.serve()) as port:
        with Client(port=port, session="s.1_x-") as client:
            assert client.last == 0
            assert client.send("a") == "a"
            assert list(client.send_many(["b", TOO_LONG, "c\nd"])) == [
                Receipt(1, "b"),
                Receipt(2, None, "message too long"),
                Receipt(3, "c\nd"),
            ]
            assert client.last == 4
            with pytest.raises(Refused):
                client.send(TOO_LONG)
            assert client.send("e") == "e"
        with Client(port=port, session="s.1_x-") as client:
            assert client.last == 6
    assert sessions.archive == {"s.1_x-": {1: b"a", 2: b"b", 4: b"c\nd", 6: b"e"}}


def test_a_pipeline_goes_on_over_connections_and_confirms_by_number() -> None:
    sessions = Sessions()
    lines = [b"MESG %d\n" % n for n in range(1, 2001)]
    pipeline, answers = Pipeline(), list[Answer]()
    breaks = [sessions.serve(700), sessions.serve(1), sessions.serve()]
    source = _Blocks(lines)
    with scripted(*breaks) as port:
        for _ in breaks:
            with Client(port=port, session="s") as client, suppress(ConnectionLost):
                answers += client.transmit(pipeline, source)
    assert b"".join(answer.echo for answer in answers) == b"".join(lines)
    assert sessions.texts("s") == [b"%d" % n for n in range(1, 2001)]


def test_what_the_session_holds_already_is_not_sent_again() -> None:
    sessions = Sessions()
    sessions.archive["s"] = {1: b"1", 2: b"2"}
    pipeline = Pipeline()
    with scripted(sessions.serve()) as port, Client(port=port, session="s") as client:
        answers = list(client.transmit(pipeline, _Blocks([b"MESG 1\nMESG 2\nMESG 3\n"], 3)))
    assert answers == [
        Answer(1, 2, b"MESG 1\nMESG 2\n", already=True),
        Answer(3, 1, b"MESG 3\n"),
    ]
    assert (pipeline.already, pipeline.confirmed) == (2, 3)
    assert sessions.texts("s") == [b"1", b"2", b"3"]


def test_a_session_that_holds_more_than_the_input_is_another() -> None:
    sessions = Sessions()
    sessions.archive["s"] = {1: b"1", 2: b"2"}
    with (
        scripted(sessions.serve()) as port,
        Client(port=port, session="s") as client,
        pytest.raises(SessionError, match="holds 2 messages, and there are only 1 here"),
    ):
        list(client.transmit(Pipeline(), _Blocks([b"MESG 1\n"])))


@pytest.mark.parametrize(
    ("told", "words"), [(0, "has lost the session s"), (3, "somebody else writes the session s")]
)
def test_a_number_that_cannot_be_ends_the_session(told: int, words: str) -> None:
    sessions = Sessions()
    pipeline, source = Pipeline(), _Blocks([b"MESG 1\n", b"MESG 2\n"])
    with scripted(sessions.serve(1), sessions.serve(1)) as port:
        with Client(port=port, session="s") as client, pytest.raises(ConnectionLost):
            list(client.transmit(pipeline, source))
        sessions.archive["s"] = {told: b"?"} if told else {}
        with Client(port=port, session="s") as client, pytest.raises(SessionError, match=words):
            list(client.transmit(pipeline, source))


def test_a_session_goes_on_at_another_server_with_the_numbers_that_it_has() -> None:
    here, there = Sessions(), Sessions()
    pipeline, source = Pipeline(), _Blocks([b"MESG %d\n" % n for n in range(1, 7)])
    parts = [here.serve(2, gently=True), here.serve(1, gently=True)]
    with scripted(*parts) as one, scripted(there.serve(2, gently=True)) as other:
        for port in (one, other, one):
            with suppress(ConnectionLost), Client(port=port, session="s") as client:
                list(client.transmit(pipeline, source))
    both = here.archive["s"], there.archive["s"]
    assert here.last("s") > there.last("s")
    assert sorted({**both[0], **both[1]}.items()) == [(n, b"%d" % n) for n in range(1, 6)]
    assert all(text == b"%d" % n for archive in both for n, text in archive.items())


def test_a_session_that_was_taken_over_is_not_taken_back() -> None:
    sessions = Sessions()
    with scripted(sessions.serve()) as port, Client(port=port, session="s") as client:
        client.send("mine")
        sessions.writer["s"] = Connection(sessions)
        with pytest.raises(SessionError, match="session s was taken over"):
            client.send("not mine")
        with pytest.raises(ConnectionLost, match="its session cannot go on"):
            client.send("again")
    assert sessions.texts("s") == [b"mine"]


def test_a_server_that_cannot_write_now_leaves_no_number_out() -> None:
    full = True
    sessions = Sessions(lambda text: "archive cannot be written" if full and text == b"2" else "")
    pipeline, source = Pipeline(), _Blocks([b"MESG 1\nMESG 2\nMESG 3\n"], 3)
    with scripted(sessions.serve(), sessions.serve()) as port:
        with (
            Client(port=port, session="s") as client,
            pytest.raises(NotNow, match="archive cannot be written") as caught,
        ):
            list(client.transmit(pipeline, source))
        assert (caught.value.confirmed, caught.value.refused) == (1, 0)
        full = False
        with Client(port=port, session="s") as client:
            list(client.transmit(pipeline, source))
    assert sessions.archive["s"] == {1: b"1", 2: b"2", 3: b"3"}


def test_servers_without_sessions_say_so() -> None:
    with (
        scripted(says(b"FAIL unknown header\n")) as port,
        pytest.raises(NoSessions, match="too old"),
    ):
        Client(port=port, session="s")


@pytest.mark.parametrize(
    "reply",
    [b"SESS\n", b"SESS 01\n", b"SESS -1\n", b"SESS x\n", b"PONG\n", b"SESS 0\nSESS 0\n"],
)
def test_what_is_no_number_is_not_msgd(reply: bytes) -> None:
    with scripted(says(reply)) as port, pytest.raises((NotConnected, ConnectionLost)) as caught:
        Client(port=port, session="s")
    assert "not msgd" in str(caught.value)


@pytest.mark.parametrize("session", ["", "-a", ".a", "a b", "a/b", "ä", "a\n", "x" * 65, 7])
def test_names_that_no_session_can_have(session: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        Client(port=1, session=session)


def test_an_echo_behind_a_refusal_is_not_msgds() -> None:
    pipeline = Pipeline()
    pipeline.begin("s", 0, 1)
    pipeline.add(Block(b"MESG a\nMESG b\n", 2))
    pipeline.sent(len(pipeline.output()))
    with pytest.raises(ProtocolError):
        pipeline.receive(b"FAIL message too long\n") and pipeline.receive(b"MESG b\n")


class _Blocks:
    """A source of these blocks."""

    ended = False

    def __init__(self, blocks: list[bytes], messages: int = 1) -> None:
        self._blocks = [Block(wire, messages) for wire in blocks]

    def fileno(self) -> int | None:
        return None

    def read(self) -> Block:
        block = self._blocks.pop(0)
        self.ended = not self._blocks
        return block


def test_a_session_of_the_real_daemon_goes_on_after_kill_9(start: Start) -> None:
    daemon = start("listen: 127.0.0.1\n")
    texts = [
        f"line {n}" + " \x1b" * (n % 7 == 0) + "\nand more" * (n % 5 == 0) for n in range(3000)
    ]
    texts[1000] = "x" * 70_000
    with Client(port=daemon.port, session="s") as client:
        assert client.last == 0
        found = list(client.send_many(texts[:1500]))
        assert [receipt.number for receipt in found if receipt.refusal] == [1001]
        assert client.last == 1500
        daemon.process.kill()
        daemon.wait()
    again = start("listen: 127.0.0.1\n", folder=daemon.folder)
    with Client(port=again.port, session="s") as client:
        assert client.last == 1500
        list(client.send_many(texts[client.last :]))
    wanted = [escape(text.encode()).decode() for text in texts]
    del wanted[1000]
    assert again.texts() == wanted


def test_another_client_of_the_real_daemon_takes_the_session_over(msgd: Daemon) -> None:
    with Client(port=msgd.port, session="s") as first:
        first.send("one")
        with Client(port=msgd.port, session="s") as second:
            assert second.last == 1
            with pytest.raises(SessionError, match="taken over"):
                first.send("two")
            assert second.send("three") == "three"
    assert msgd.texts() == ["one", "three"]
