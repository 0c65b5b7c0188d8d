r"""`.msgd.state`: the numbers of the sessions as of one moment, so that a start is quick.

    msgd state 1
    sync always
    speaks 2026-11-23.log 67108912 1c291ca3
    file 2026-11-22.log.gz 5120
    file 2026-11-23.log 67108912
    session 1501 /nightly
    session 20 @web1/backup
    crc 8587d865

It speaks of one day file up to an offset (the number behind that is the CRC-32 of the last bytes
before it), and of the other files as long as they have these sizes; what is not so is read
again (see `recovery`). So it may be as old as it likes, and says nothing that the archive does
not hold. The sessions stand in the order of their use. The last line has the CRC-32 of all others.
"""

from __future__ import annotations

import logging
import os
import re
from binascii import crc32
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import NamedTuple

log = logging.getLogger("msgd")

NAME = ".msgd.state"
TAIL_BYTES = 4096  # of the day file, whose CRC is kept
_MODE = 0o600  # nobody else needs it
_HEAD = re.compile(
    rb"msgd state 1\nsync (\w+)\nspeaks (\S+) (\d+) ([0-9a-f]{8})\n"
    rb"((?:file \S+ \d+\n)*)((?:session \d+ \S+\n)*)crc ([0-9a-f]{8})\n"
)
_FILE = re.compile(rb"file (\S+) (\d+)\n")
_SESSION = re.compile(r"session (\d+) (?:@([^/\s]*))?/(\S+)\n")

Numbers = list[tuple[tuple[str, str], int]]  # owner and id, number


class State(NamedTuple):
    """What the file says."""

    sync: str  # how the archive was synced: what an echo meant behind this state
    name: str  # of the day file that was open
    offset: int  # up to which it speaks
    tail: int  # CRC of the last bytes before
    files: dict[str, int]  # sizes of all day files that were there, by name
    sessions: Numbers

    def encode(self) -> bytes:
        lines = ["msgd state 1", f"sync {self.sync}"]
        lines.append(f"speaks {self.name} {self.offset} {self.tail:08x}")
        lines += [f"file {name} {size}" for name, size in self.files.items()]
        lines += [
            f"session {number} {'@' * bool(owner)}{owner}/{session}"
            for (owner, session), number in self.sessions
        ]
        data = ("\n".join(lines) + "\n").encode()
        return data + b"crc %08x\n" % crc32(data)


def decode(data: bytes) -> State | None:
    """None for what is not a whole and undamaged state."""
    found = _HEAD.fullmatch(data)
    if found is None or crc32(data[: found.start(7) - len("crc ")]) != int(found[7], 16):
        return None
    return State(
        found[1].decode(),
        found[2].decode(),
        int(found[3]),
        int(found[4], 16),
        {name.decode(): int(size) for name, size in _FILE.findall(found[5])},
        [
            ((owner, session), int(number))
            for number, owner, session in _SESSION.findall(found[6].decode("utf-8", "replace"))
        ],
    )


class StateFile:
    """Reads and writes the file; at most one writing is under way, beside the loop."""

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, NAME)
        self._directory = directory
        self._writer: Thread | None = None
        self._written = b""
        self._trouble = ""
        self.speaks: set[str] = set()  # of which file, as was read

    def read(self) -> State | None:
        """None where it is missing or damaged; which of them is for nobody to decide on."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with open(os.open(self.path, flags), "rb") as file:
                self._written = file.read()
        except OSError:
            return None
        state = decode(self._written)
        self.speaks = {state.name} if state is not None else set()
        return state

    @property
    def is_there(self) -> bool:
        return os.path.lexists(self.path)

    @property
    def busy(self) -> bool:
        return self._writer is not None and self._writer.is_alive()

    def begin(self, state: State) -> None:
        """Write it in a thread of its own, unless one is `busy`: a sync may take long."""
        writer = Thread(target=self.write, args=(state,), name="state", daemon=True)
        try:
            writer.start()
            self._writer = writer
        except RuntimeError as error:  # no more threads for this user
            self._warn(str(error))

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._writer is not None:
            self._writer.join()

    def write(self, state: State) -> None:
        """Replace the file; at every moment one of the two is there, whole.

        Nothing depends on it but the time that the next start takes, so that a failure is one
        line of the log.
        """
        try:
            data = state.encode()
            if data == self._written and self.is_there:
                return
            if state.sync == "never":
                self._sync(os.path.join(self._directory, state.name), os.O_RDONLY)
            self._replace(data)
        except (OSError, MemoryError, ValueError) as error:
            self._warn(getattr(error, "strerror", None) or str(error) or "no memory")
        else:
            self._written, self._trouble = data, ""

    def _replace(self, data: bytes) -> None:
        new = f"{self.path}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with suppress(FileNotFoundError):
            os.unlink(new)
        fd = os.open(new, flags, _MODE)
        try:
            with open(fd, "wb", buffering=0) as file:
                _write_all(file.write, data)
                os.fsync(fd)
            os.rename(new, self.path)
        except OSError:
            with suppress(OSError):
                os.unlink(new)
            raise
        self._sync(self._directory, os.O_RDONLY | os.O_DIRECTORY)

    @staticmethod
    def _sync(path: str, flags: int) -> None:
        """By a descriptor of its own: an error in write-back is told once to each (fsync(2))."""
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _warn(self, trouble: str) -> None:
        if self._trouble != trouble:
            log.warning(
                "%s: cannot be written: %s; the next start takes longer", self.path, trouble
            )
        self._trouble = trouble


def _write_all(write: Callable[[memoryview], int | None], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[write(rest) or 0 :]
