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
from pathlib import Path

import atheris  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).parents[2]))
with atheris.instrument_imports(include=["msgd"]):
    from msgd.wire import lines
    from tests.driver import Driver, cut
from tests.model import Model, is_unsafe

LIMITS = [1, 5, 64, 2000]
PIECES = [16, 200, 28_000]  # bytes; the small ones bring the edges within reach
QUIET = b"\xfe\xff"  # in a bare stream: here the client is quiet


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
        same_however_cut(b"PINGM" + stream, cuts, limit)
    else:
        same_however_cut(stream, cuts, limit)


def line_framed(stream: bytes, cuts: list[int], limit: int) -> None:
    model = Model(limit)
    model.line_framed(stream)
    for pieces in ([stream], cut(stream, cuts), [bytes([byte]) for byte in stream]):
        driver = run(pieces, limit)
        driver.assert_is(model)
        assert not driver.closed


def same_however_cut(stream: bytes, cuts: list[int], limit: int) -> None:
    parts = stream.split(QUIET)
    results = set()
    for edges in ([], cuts, list(range(len(stream)))):
        driver = Driver(limit)
        for part in parts:
            for piece in cut(part, edges):
                if not driver.closed:
                    driver.receive(piece)
            if not driver.closed:
                driver.quiet()
        driver.end()
        sane(driver)
        results.add((driver.replies, driver.archive, driver.messages, driver.closed))
    assert len(results) == 1, results


def run(pieces: list[bytes], limit: int) -> Driver:
    """Each password is answered when the next bytes have come already."""
    driver = Driver(limit)
    for number, piece in enumerate(pieces):
        driver.feed(piece)
        if number % 2:
            driver.answer()
    driver.answer()
    sane(driver)
    return driver


def sane(driver: Driver) -> None:
    assert len(driver.texts()) == driver.messages
    for char in {*driver.replies.decode(), *driver.archive.decode()} - {"\t", "\n"}:
        assert not is_unsafe(char), repr(char)


if __name__ == "__main__":
    # libFuzzer runs this command again, by a shell, to merge a corpus.
    command = f"{sys.executable} -m tests.fuzz.protocol"
    atheris.Setup([command, *sys.argv[1:]], check)
    atheris.Fuzz()
