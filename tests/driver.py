"""The protocol as the server drives it; what its tests and the fuzz target have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

from msgd.archive.records import Form
from msgd.wire.events import Answer, Close, Dropped, Event, Open, Records, Terminate
from msgd.wire.headers import NUMBER_USED
from msgd.wire.server import ServerProtocol
from tests.model import Model

STAMP = b"2026-11-23T02:51:07.123456+00:00"
ORIGIN = "127.0.0.1:40312"
BEGIN = b"%b %b " % (STAMP, ORIGIN.encode())


RECORD = re.compile(re.escape(BEGIN[:-1]) + rb"(/[A-Za-z0-9._-]+:[0-9]{3,}(?:\+[1-9][0-9]*)?)? ")


class Driver:
    """The protocol as the server drives it, with an archive that works and no right password."""

    def __init__(
        self, limit: int, sessions: dict[str, int] | None = None, *, line_only: bool = False
    ) -> None:
        self.protocol = ServerProtocol(limit, line_only)
        self.form = Form(ORIGIN)
        self.form.at(STAMP)
        self.sessions = {} if sessions is None else sessions  # the last number of each
        self.session = ""
        self.replies = b""
        self.archive = b""
        self.messages = self.dropped = 0
        self.closed = False
        self.broken: set[int] = set()  # writes to the archive that fail
        self.written = 0
        self.asked: Terminate | Open | None = None  # what needs an answer

    def receive(self, data: bytes) -> None:
        """Take bytes, and answer at once what needs an answer."""
        self.feed(data)
        self.answer()

    def quiet(self) -> None:
        self.take(self.protocol.quiet(self.form))
        self.answer()

    def end(self) -> None:
        if not self.closed:
            self.take(self.protocol.end(self.form))
            self.answer()

    def feed(self, data: bytes) -> None:
        self.take(self.protocol.receive(data, self.form))

    def answer(self) -> None:
        """Answer what needs an answer, and go on behind it."""
        while self.protocol.paused:
            asked, self.asked = self.asked, None
            if isinstance(asked, Open):
                self.open(asked)
            elif asked is not None:
                self.replies += self.protocol.reply(b"PWNO").data
            self.take(self.protocol.resume(self.form, 10))

    def take(self, events: list[Event]) -> None:
        failed = False  # an archive keeps nothing behind what it could not write at once
        for event in events:
            assert not self.closed
            assert self.asked is None or isinstance(event, Close)
            if isinstance(event, Records):
                assert bool(event.last) == bool(self.session)
                self.written += 1
                failed = failed or self.written in self.broken
                if failed:
                    self.replies += self.protocol.refused(event.messages).data
                    continue
                self.archive += b"".join(event.archive)
                self.replies += b"".join(event.echoes)
                self.messages += event.messages
                if event.last:
                    self.sessions[self.session] = event.last
            elif isinstance(event, Answer):
                self.replies += self.protocol.told(event).data
            elif isinstance(event, Terminate | Open):
                self.asked = event
            elif isinstance(event, Dropped):
                self.dropped += event.size
            else:
                self.closed = True

    def open(self, event: Open) -> None:
        last = self.sessions.get(event.id, 0)
        if event.number is not None and event.number <= last:
            self.replies += self.protocol.refuse_open(NUMBER_USED).data
        else:
            self.session = event.id
            self.replies += self.protocol.opened(event.id, last, self.form).data

    def records(self) -> list[tuple[bytes, bytes]]:
        """The archive, read back as its format says: what stands behind the address; the text."""
        records: list[tuple[bytes, bytes]] = []
        for line in self.archive.split(b"\n")[:-1]:
            if line.startswith(b"\t"):
                mark, text = records.pop()
                records.append((mark, text + b"\n" + line[1:]))
            else:
                begin = RECORD.match(line)
                assert begin
                records.append((begin[1] or b"", line[begin.end() :]))
        return records

    def texts(self) -> list[bytes]:
        return [text for _, text in self.records()]

    def assert_is(self, model: Model) -> None:
        assert self.replies == model.replies
        assert self.records() == list(zip(model.marks, model.archive, strict=True))
        assert self.messages == len(model.archive)
        assert {name.encode(): last for name, last in self.sessions.items()} == model.sessions


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(edge % (len(data) + 1) for edge in at)})
    return [data[a:b] for a, b in pairwise(edges)]
