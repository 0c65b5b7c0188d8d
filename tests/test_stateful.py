"""Several clients at once, in both framings, cut and broken off at random, against the model."""

from __future__ import annotations

import socket
import struct
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    rule,
    run_state_machine_as_test,
)

from msgd.archive.reader import records
from tests.conftest import Daemon, Start, wait_for
from tests.model import Model

LIMIT = 200
CONFIG = f"listen: 127.0.0.1\nlimits: {{message_bytes: {LIMIT}, bare_quiet_ms: 5}}\n"

TEXTS = st.one_of(st.binary(max_size=20), st.text(max_size=10).map(str.encode), st.just(b"x" * 250))
LINES = st.tuples(
    st.sampled_from([b"MESG ", b"MESG ", b"MORE ", b"PING", b"TERM\n", b"MESG", b"WHAT "]), TEXTS
).map(b"".join)


IDS = st.sampled_from([b"a", b"b.c"])


class Talk:
    """A client with line framing, and what it is owed."""

    def __init__(self, daemon: Daemon, sessions: dict[bytes, int]) -> None:
        self.client = daemon.line_client()
        self.origin = self.client.origin
        self.read = b"PONG\n"
        self.broken = False
        self.model = Model(LIMIT, sessions)
        self.model.line_framed(b"PING\n")

    def send(self, data: bytes) -> None:
        self.client.send(data)
        self.model.lines(data)

    def catch_up(self) -> None:
        """Read every reply that is due."""
        due = self.model.replies
        self.read += self.client.read(len(due) - len(self.read))
        assert self.read == due


class Traffic(RuleBasedStateMachine):
    """What clients do, in any order."""

    talks: Bundle[Talk] = Bundle("talks")

    def __init__(self, daemon: Daemon) -> None:
        super().__init__()
        self.daemon = daemon
        self.before = len(daemon.archive())
        self.all: list[Talk] = []
        self.bare: list[tuple[str, list[bytes]]] = []
        self.sessions: dict[bytes, int] = {}  # last numbers: the daemon keeps them between runs
        self.writers: dict[bytes, Talk] = {}  # who has opened them

    @rule(target=talks)
    def connect(self) -> Talk:
        talk = Talk(self.daemon, self.sessions)
        self.all.append(talk)
        return talk

    @rule(talk=talks, lines=st.lists(LINES, max_size=8), cut=st.integers(0, 1000))
    def send(self, talk: Talk, lines: list[bytes], cut: int) -> None:
        data = b"".join(line + b"\n" for line in lines)
        for piece in (data[:cut], data[cut:]):
            talk.send(piece)

    @rule(talk=talks, start=st.binary(max_size=30).filter(lambda data: b"\n" not in data))
    def send_a_beginning(self, talk: Talk, start: bytes) -> None:
        if len(talk.model.tail) < 500:
            talk.send(start)

    @rule(talk=talks)
    def read(self, talk: Talk) -> None:
        talk.catch_up()

    @rule(talk=talks, name=IDS, skip=st.one_of(st.none(), st.integers(-1, 1000)))
    def open_a_session(self, talk: Talk, name: bytes, skip: int | None) -> None:
        """Whoever wrote it before has its replies by then, unless it is gone."""
        name = name + b"-%d" % self.before  # another one in each run
        earlier = self.writers.get(name)
        if earlier is not None and not earlier.broken:
            earlier.catch_up()
        talk.send(b"\n")  # the end of a line that was begun
        talk.catch_up()
        if earlier is not None and earlier.broken:
            self.find_number(name)
        last = self.sessions.get(name, 0)
        talk.send(b"SESS " + name + (b"\n" if skip is None else b" %d\n" % (last + skip + 1)))
        talk.catch_up()
        if talk.model.refusal:
            return
        self.writers = {key: writer for key, writer in self.writers.items() if writer != talk}
        self.writers[name] = talk
        if earlier not in (None, talk):
            assert earlier is not None
            earlier.model.taken_over()

    def find_number(self, name: bytes) -> None:
        """How far a session came whose writer was reset with messages on their way."""
        with self.daemon.line_client() as client:
            number = int(client.ask(b"SESS " + name + b"\n").split()[1])
        assert number <= self.sessions.get(name, 0)
        self.sessions[name] = number
        del self.writers[name]

    @rule(talk=consumes(talks))
    def close_our_side(self, talk: Talk) -> None:
        talk.client.socket.shutdown(socket.SHUT_WR)
        talk.catch_up()
        assert talk.client.rest() == b""

    @rule(talk=consumes(talks))
    def reset(self, talk: Talk) -> None:
        talk.broken = True
        linger = struct.pack("ii", 1, 0)
        talk.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        talk.client.close()

    @rule(messages=st.lists(TEXTS, max_size=3))
    def talk_bare(self, messages: list[bytes]) -> None:
        model = Model(LIMIT)
        with self.daemon.bare_client() as client:
            for text in messages:
                if len(text) > LIMIT:
                    continue
                before = len(model.replies)
                model.bare_message(b"MESG " + text)
                client.send(b"MESG " + text)
                client.expect(model.replies[before:])
            self.bare.append((client.origin, model.archive))

    def teardown(self) -> None:
        for talk in self.all:
            if not talk.broken:
                talk.catch_up()
            talk.client.close()
        self.settle()
        found: dict[str, list[tuple[bytes, bytes]]] = {}
        numbers: dict[bytes, list[int]] = {}
        for record in records([self.daemon.archive()[self.before :]], strict=True):
            further = record.text.count(b"\n")
            mark = b"/%b:%03d" % (record.session, record.number) if record.session else b""
            mark += b"+%d" % further if record.session and further else b""
            found.setdefault(record.origin.decode(), []).append((mark, record.text))
            numbers.setdefault(record.session, []).append(record.number)
        for origin, texts in self.bare:
            assert [text for _, text in found.pop(origin, [])] == texts
        for talk in self.all:
            archived = found.pop(talk.origin, [])
            expected = list(zip(talk.model.marks, talk.model.archive, strict=True))
            if talk.broken:  # what was on its way then may be gone
                expected = expected[: max(len(archived), talk.read.count(b"\nMESG "))]
            assert archived == expected
        assert not found
        for each in (numbers[name] for name in numbers if name):  # exactly once
            assert all(one < next for one, next in pairwise(each))

    def settle(self) -> None:
        """A last message, behind all that the daemon may still have been about to archive."""
        with self.daemon.line_client() as client:
            client.ask(b"MESG last\n")
            origin = client.origin
        wait_for(lambda: self.daemon.archive().endswith(f" {origin} last\n".encode()))
        self.bare.append((origin, [b"last"]))


def test_traffic(start: Start) -> None:
    daemon = start(CONFIG)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        lambda: Traffic(daemon),
        settings=settings(
            max_examples=settings().max_examples // 4, stateful_step_count=25, deadline=None
        ),
    )
