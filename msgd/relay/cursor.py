"""What of one day is to be published next: the cursor in the stream, held against the file.

Without I/O to the servers: the publisher asks `Progress` for the next block and tells it what
became of it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from contextlib import suppress
from typing import NamedTuple

from msgd.archive.source import Day
from msgd.relay.blocks import (
    BLOCK,
    HEADER_BYTES,
    SOURCE,
    Finished,
    Message,
    Part,
    cut,
    cut_long,
    parse_subject,
)
from msgd.relay.errors import Denied

log = logging.getLogger("msgd")

DAMAGED = (OSError, EOFError, zlib.error)  # a file that cannot be read

_HASHED_AT_ONCE = 1 << 20


class Progress:
    """How far one generation of one day has been published."""

    def __init__(self, part: Part, offset: int = 0, sequence: int = 0) -> None:
        self.part = part
        self.offset = offset  # the next block's
        self.sequence = sequence  # of the subject's last message, 0 for none
        self._ahead = b""  # the next block, if it was read ahead

    def block(self, day: Day, end: int, max_payload: int) -> bytes:
        """The next block of what is final, which is up to ``end``; raises as `Day.read`."""
        ahead, self._ahead = self._ahead, b""
        if ahead and len(ahead) <= end - self.offset:
            return ahead
        return _block(day, self.offset, end, max_payload)

    def read_ahead(self, day: Day, end: int, max_payload: int, sent: int) -> None:
        """Have the block behind the next ``sent`` bytes, which are on their way, at hand.

        Only a full one: a shorter one would be longer by the time it is its turn.
        """
        offset = self.offset + sent
        if end - offset > BLOCK:
            with suppress(*DAMAGED):  # which shows when it is its turn
                self._ahead = _block(day, offset, end, max_payload)

    def published(self, size: int, sequence: int) -> None:
        self.offset += size
        self.sequence = sequence

    def again(self) -> Progress:
        """The next generation, from the file's beginning."""
        return Progress(self.part._replace(generation=self.part.generation + 1))


def _block(day: Day, offset: int, end: int, max_payload: int) -> bytes:
    most = max(max_payload - HEADER_BYTES, 1)
    size = min(BLOCK, most)
    data = _read(day, offset, min(size + 1, end - offset))
    if taken := cut(data, size):
        return data[:taken]
    data = _read(day, offset, min(most + 1, end - offset))
    return data[: cut_long(data, most)]


def _read(day: Day, offset: int, most: int) -> bytes:
    """Up to ``most`` bytes; fewer only at the end of the file."""
    parts, missing = [], most
    while missing > 0 and (data := day.read(offset + most - missing, missing)):
        parts.append(data)
        missing -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def check_source(message: Message, node: str, source: str) -> None:
    """Raises Denied where another relay has published under this node's name."""
    found = message.headers.get(SOURCE, "")
    if found != source:
        raise Denied(
            f"node {node} is shipped already by another machine, or from another directory "
            f"({SOURCE} {found or 'missing'}, ours is {source}): "
            "give this one a name of its own with `node`"
        )


def resume(node: str, day: Day, last: Message | None, done: Finished | None) -> Progress:
    """Where to go on, from the last message of the day's subjects.

    Where the file does not hold what that message does, the next generation begins, with an error
    in the log. Raises as `Day.read`.
    """
    if last is None:
        return Progress(Part(node, day.day, done.generation if done else 1))
    part, offset = parse_subject(last.subject), last.offset
    if part is None or offset is None:
        raise Denied(f"{last.subject}: message {last.sequence} is not one of msgd-relay's")
    progress = Progress(part, offset + len(last.data), last.sequence)
    if _read(day, offset, len(last.data)) == last.data:
        return progress
    progress = progress.again()
    say_again(day.day, progress.part.generation, f"at byte {offset} it is another")
    return progress


def say_again(day: str, generation: int, why: str) -> None:
    log.error(
        "%s.log: is not what was shipped (%s): somebody has cut, edited or replaced it; "
        "all of it is shipped again as generation %d, and the earlier copies stay",
        day, why, generation,
    )  # fmt: skip


def damage(error: Exception) -> str:
    """Why a file cannot be read."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


class Sums(NamedTuple):
    """A file's size and SHA-256, and that of its beginning."""

    size: int
    sha256: str
    begin: str  # of the first bytes, as many as were asked for; "" if there are not so many


def sums(day: Day, end: int, begin: int) -> Sums:
    """Read all of the day up to end; raises as `Day.read`. Takes long for a long day."""
    digest, at, first = hashlib.sha256(), 0, ""
    while True:
        if at == begin:
            first = digest.hexdigest()
        most = min(_HASHED_AT_ONCE, end - at, begin - at if at < begin else _HASHED_AT_ONCE)
        data = day.read(at, most) if most > 0 else b""
        if not data:
            return Sums(at, digest.hexdigest(), first)
        digest.update(data)
        at += len(data)


class Look(NamedTuple):
    """What the file system says of a day: whether to look into its files at all."""

    plain: tuple[int, int, int] | None  # inode, size, mtime in nanoseconds
    packed: tuple[int, int, int] | None

    @property
    def mtime(self) -> int:
        """Retention gives the gzip the time of what it holds."""
        found = self.plain or self.packed
        return found[2] if found else 0

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(found[1] for found in self if found)

    def same_as(self, done: Finished) -> bool:
        """Whether this is, by all signs, what was finished."""
        if self.plain and self.packed:
            return False
        return self.mtime == done.mtime and (self.plain is None or self.plain[1] == done.size)


def look(directory: str, day: str) -> Look:
    """Never raises; a day that is gone has neither file."""
    return Look(*(_stat(os.path.join(directory, f"{day}.log{end}")) for end in ("", ".gz")))


def _stat(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
