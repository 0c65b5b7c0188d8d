"""Several clients at once, in both framings, cut and broken off at random, against the model."""

from __future__ import annotations

import socket
import struct

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    rule,
    run_state_machine_as_test,
)

from tests.conftest import Daemon, Start, parse, wait_for
from tests.model import Model

LIMIT = 200
CONFIG = f"listen: 127.0.0.1\nlimits: {{message_bytes: {LIMIT}, bare_quiet_ms: 5}}\n"

TEXTS = st.one_of(st.binary(max_size=20), st.text(max_size=10).map(str.encode), st.just(b"x" * 250))
LINES = st.tuples(
    st.sampled_from([b"MESG ", b"MESG ", b"MORE ", b"PING", b"TERM\n", b"MESG", b"WHAT "]), TEXTS
).map(b"".join)


class Session:
    """A client with line framing, and what it has sent and read."""

    def __init__(self, daemon: Daemon) -> None:
        self.client = daemon.line_client()
        self.origin = self.client.origin
        self.sent = b"PING\n"
        self.read = b"PONG\n"
        self.broken = False

    def model(self) -> Model:
        model = Model(LIMIT)
        model.line_framed(self.sent)
        return model

    def catch_up(self) -> None:
        """Read every reply that is due."""
        due = self.model().replies
        self.read += self.client.read(len(due) - len(self.read))
        assert self.read == due


class Traffic(RuleBasedStateMachine):
    """What clients do, in any order."""

    sessions: Bundle[Session] = Bundle("sessions")

    def __init__(self, daemon: Daemon) -> None:
        super().__init__()
        self.daemon = daemon
        self.before = len(daemon.archive())
        self.all: list[Session] = []
        self.bare: list[tuple[str, list[bytes]]] = []

    @rule(target=sessions)
    def connect(self) -> Session:
        session = Session(self.daemon)
        self.all.append(session)
        return session

    @rule(session=sessions, lines=st.lists(LINES, max_size=8), cut=st.integers(0, 1000))
    def send(self, session: Session, lines: list[bytes], cut: int) -> None:
        data = b"".join(line + b"\n" for line in lines)
        for piece in (data[:cut], data[cut:]):
            session.client.send(piece)
        session.sent += data

    @rule(session=sessions, start=st.binary(max_size=30).filter(lambda data: b"\n" not in data))
    def send_a_beginning(self, session: Session, start: bytes) -> None:
        if len(session.sent) - session.sent.rindex(b"\n") < 500:
            session.client.send(start)
            session.sent += start

    @rule(session=sessions)
    def read(self, session: Session) -> None:
        session.catch_up()

    @rule(session=consumes(sessions))
    def close_our_side(self, session: Session) -> None:
        session.client.socket.shutdown(socket.SHUT_WR)
        session.catch_up()
        assert session.client.rest() == b""

    @rule(session=consumes(sessions))
    def reset(self, session: Session) -> None:
        session.broken = True
        linger = struct.pack("ii", 1, 0)
        session.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        session.client.close()

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
        for session in self.all:
            if not session.broken:
                session.catch_up()
            session.client.close()
        self.settle()
        found: dict[str, list[bytes]] = {}
        for record in parse(self.daemon.archive()[self.before :].decode()):
            found.setdefault(record.origin, []).append(record.text.encode())
        for origin, texts in self.bare:
            assert found.pop(origin, []) == texts
        for session in self.all:
            archived, expected = found.pop(session.origin, []), session.model().archive
            if session.broken:  # what was on its way then may be gone
                expected = expected[: max(len(archived), session.read.count(b"\nMESG "))]
            assert archived == expected
        assert not found

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
        settings=settings(max_examples=25, stateful_step_count=25, deadline=None),
    )
