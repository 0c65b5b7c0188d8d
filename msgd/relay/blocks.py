"""What stands in the stream, without I/O: subjects, headers, blocks, and where the cursor is.

A block is a part of a day file: subject ``msgd.NODE.DAY.GENERATION``, payload whole records (or a
part of one that is too long), header ``Msgd-Offset`` where in the file it begins.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import NamedTuple

PREFIX = "msgd"
DONE = ".done"  # how the subject of a `done` message ends
BLOCK = 256 << 10  # payload of a block, unless one record is longer

OFFSET, SOURCE = "Msgd-Offset", "Msgd-Source"
EXPECTED = "Nats-Expected-Last-Subject-Sequence"

_SUBJECT = re.compile(r"msgd\.([A-Za-z0-9_-]{1,64})\.(\d{4}-\d\d-\d\d)\.([1-9]\d{0,8})", re.ASCII)
_LINE_END = re.compile(rb"\n(?=[^\t])")
_FINISHED_BYTES = 200  # of a day in a `done` message, at most


class Part(NamedTuple):
    """A subject: one generation of one day of one node."""

    node: str
    day: str
    generation: int

    @property
    def subject(self) -> str:
        return f"{PREFIX}.{self.node}.{self.day}.{self.generation}"

    @property
    def name(self) -> str:
        """The collected file's, without what compression adds."""
        again = f".{self.generation}" if self.generation > 1 else ""
        return f"{self.day}{again}.log"


def parse_subject(subject: str) -> Part | None:
    """What a block's subject says; None for any other."""
    found = _SUBJECT.fullmatch(subject)
    return Part(found[1], found[2], int(found[3])) if found else None


def done_subject(node: str) -> str:
    return f"{PREFIX}.{node}{DONE}"


class Message(NamedTuple):
    """A message of the stream."""

    subject: str
    sequence: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def offset(self) -> int | None:
        """Where the block begins; None where the message has no proper header."""
        text = self.headers.get(OFFSET, "")
        return int(text) if re.fullmatch(r"\d{1,18}", text) else None


def headers(offset: int, source: str, expected: int) -> dict[str, str]:
    """Those of a block, to be put behind the subject's message with the sequence ``expected``."""
    return {OFFSET: str(offset), SOURCE: source, EXPECTED: str(expected)}


# "NATS/1.0", the longest values (an offset, a source and a sequence), and the line ends.
HEADER_BYTES = len("NATS/1.0\r\n\r\n") + sum(
    len(name) + len(": \r\n") + size for name, size in ((OFFSET, 20), (SOURCE, 32), (EXPECTED, 20))
)


def source(machine: str, archive: str) -> str:
    """Who ships: the same for a relay that was started again, another for any other."""
    return hashlib.sha256(f"{machine}\n{archive}".encode()).hexdigest()[:32]


def cut(data: bytes, size: int) -> int:
    """How many bytes of data go into one block: as many whole records as ``size`` bytes hold.

    Data of at most that size ends with the end of a record; longer data must have one byte more,
    which shows whether a record ends there. 0 means that the first record is longer.
    """
    if len(data) <= size:
        return len(data)
    end = size
    while (at := data.rfind(b"\n", 0, end)) >= 0:
        if data[at + 1 : at + 2] != b"\t":
            return at + 1
        end = at
    return 0


def cut_long(data: bytes, most: int) -> int:
    """The same where the first record is long: all of that record alone, up to ``most`` bytes."""
    found = _LINE_END.search(data)
    return min(found.end() if found else len(data), most)


class Finished(NamedTuple):
    """A day that has been shipped wholly."""

    generation: int
    size: int  # bytes
    sha256: str
    mtime: int  # of the file, in nanoseconds: whether to look at the file again


def done_days(max_payload: int) -> int:
    """How many days a `done` message can tell of."""
    return max((max_payload - HEADER_BYTES) // _FINISHED_BYTES, 2)


def write_done(days: Mapping[str, Finished], most: int) -> bytes:
    """The `done` message: the days that were finished last, at most so many."""
    found = {
        day: {"generation": f.generation, "size": f.size, "sha256": f.sha256, "mtime": f.mtime}
        for day, f in [*days.items()][-most:]
    }
    return json.dumps({"days": found}, separators=(",", ":")).encode()


def read_done(data: bytes) -> dict[str, Finished]:
    """The days of a `done` message; those that are not well formed are left out."""
    try:
        days = json.loads(data)["days"]
        return {str(day): found for day, row in days.items() if (found := _finished(row))}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _finished(row: Mapping[str, object]) -> Finished | None:
    generation, size, digest = row.get("generation"), row.get("size"), row.get("sha256")
    mtime = row.get("mtime", 0)
    if not (isinstance(generation, int) and isinstance(size, int) and isinstance(mtime, int)):
        return None
    return Finished(generation, size, digest, mtime) if isinstance(digest, str) else None
