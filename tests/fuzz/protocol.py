"""A coverage-guided fuzz target for the protocol; README.md says how to run it.

What must hold for any bytes, however they are cut:

1. Nothing raises.
2. Replies and archive are those of the slow model (line framing), or do not depend on the cuts
   (anything else).
3. The archive parses, line by line, and holds as many records as were counted.
4. No reply and no record holds a control character, nor bytes that are not UTF-8.
"""

from __future__ import annotations

import sys
import unicodedata
from itertools import pairwise
from pathlib import Path

import atheris  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).parents[2]))
with atheris.instrument_imports(include=["msgd"]):
    from msgd.wire import lines
    from msgd.wire.events import Answer, Close, Dropped, Event, Records, Terminate
    from msgd.wire.server import ServerProtocol

from tests.model import BIDI_AND_SEPARATORS, Model

BEGIN = b"2026-11-23T02:51:07.123456+00:00 127.0.0.1:40312 "
LIMITS = [1, 5, 64, 2000]
PIECES = [16, 200, 28_000]  # bytes; the small ones bring the edges within reach
QUIET = b"\xfe\xff"  # in a bare stream: here the client is quiet


class Driver:
    """The protocol as the server drives it. Passwords are wrong, and verified late."""

    def __init__(self, limit: int) -> None:
        self.protocol = ServerProtocol(limit)
        self.replies = self.archive = b""
        self.messages = self.asked = 0
        self.closed = False

    def receive(self, data: bytes) -> None:
        if not self.closed:
            self.take(self.protocol.receive(data, BEGIN))

    def answer(self) -> None:
        while self.asked:
            self.asked -= 1
            self.replies += self.protocol.reply(b"PWNO").data
            while self.protocol.holds and not self.asked:
                self.take(self.protocol.resume(BEGIN, 10))

    def take(self, events: list[Event]) -> None:
        for event in events:
            assert not self.closed
            if isinstance(event, Records):
                self.archive += event.archive
                self.replies += event.echo
                self.messages += event.messages
            elif isinstance(event, Answer):
                self.replies += event.data
            elif isinstance(event, Terminate):
                self.asked += 1
            elif isinstance(event, Close):
                self.closed = True
            else:
                assert isinstance(event, Dropped)

    def texts(self) -> list[bytes]:
        texts: list[bytes] = []
        for line in self.archive.split(b"\n")[:-1]:
            if line.startswith(b"\t"):
                texts[-1] += b"\n" + line[1:]
            else:
                assert line.startswith(BEGIN)
                texts.append(line.removeprefix(BEGIN))
        return texts


def check(data: bytes) -> None:
    source = atheris.FuzzedDataProvider(data)
    limit = source.PickValueInList(LIMITS)
    lines.PIECE_BYTES = source.PickValueInList(PIECES)
    cuts = [source.ConsumeIntInRange(0, 4096) for _ in range(source.ConsumeIntInRange(0, 6))]
    kind = source.ConsumeIntInRange(0, 2)
    stream = source.ConsumeBytes(4096)
    if kind == 0:
        line_framed(b"PING\n" + stream + b"\n", cuts, limit)
    elif kind == 1:
        same_however_cut(b"PING " + stream, cuts, limit)
    else:
        same_however_cut(stream, cuts, limit)


def line_framed(stream: bytes, cuts: list[int], limit: int) -> None:
    model = Model(limit)
    model.line_framed(stream)
    for pieces in ([stream], cut(stream, cuts), [bytes([byte]) for byte in stream]):
        driver = run(pieces, limit)
        assert driver.replies == model.replies, (driver.replies, model.replies)
        assert driver.texts() == model.archive
        assert not driver.closed


def same_however_cut(stream: bytes, cuts: list[int], limit: int) -> None:
    parts = stream.split(QUIET)
    results = set()
    for edges in ([], cuts, list(range(len(stream)))):
        driver = Driver(limit)
        for part in parts:
            for piece in cut(part, edges):
                driver.receive(piece)
                driver.answer()
            if not driver.closed:
                driver.take(driver.protocol.quiet(BEGIN))
                driver.answer()
        if not driver.closed:
            driver.take(driver.protocol.end(BEGIN))
        sane(driver)
        results.add((driver.replies, driver.archive, driver.messages, driver.closed))
    assert len(results) == 1, results


def run(pieces: list[bytes], limit: int) -> Driver:
    """Each password is answered when the next bytes have come already."""
    driver = Driver(limit)
    for number, piece in enumerate(pieces):
        driver.receive(piece)
        if number % 2:
            driver.answer()
    driver.answer()
    sane(driver)
    return driver


def sane(driver: Driver) -> None:
    assert len(driver.texts()) == driver.messages
    for char in {*driver.replies.decode(), *driver.archive.decode()} - {"\t", "\n"}:
        assert unicodedata.category(char) != "Cc", repr(char)
        assert ord(char) not in BIDI_AND_SEPARATORS, repr(char)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(edge for edge in at if edge < len(data))})
    return [data[start:end] for start, end in pairwise(edges)]


if __name__ == "__main__":
    # libFuzzer runs this command again, by a shell, to merge a corpus.
    command = f"{sys.executable} -m tests.fuzz.protocol"
    atheris.Setup([command, *sys.argv[1:]], check)
    atheris.Fuzz()
