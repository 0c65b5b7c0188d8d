"""An archive's records, as tests look at them: by the product's own reader, and as text."""

from __future__ import annotations

from typing import NamedTuple

from msgd.archive.reader import records


class Record(NamedTuple):
    """One record of the archive."""

    stamp: str
    origin: str
    text: str


def parse(archive: str) -> list[Record]:
    """The records in an archive file; fails on a line that is neither record nor continuation."""
    return [
        Record(found.stamp.decode(), found.origin.decode(), found.text.decode())
        for found in records([archive.encode()], strict=True)
    ]
