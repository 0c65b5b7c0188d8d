"""The collected files: what is there already, what goes where, and what proves a copy.

A file is its own cursor: a block is written where the file ends, or it is there already, which is
compared, or it waits for what is missing. Nothing that differs is ever overwritten.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from contextlib import suppress
from datetime import date
from enum import Enum
from typing import NamedTuple

from msgd.archive.source import Day, days
from msgd.errors import Fatal
from msgd.process.lockfile import Lock
from msgd.relay.blocks import Part
from msgd.relay.errors import Doubt
from msgd.relay.options import Collect

log = logging.getLogger("msgd")

DIRECTORY_MODE, FILE_MODE = 0o750, 0o640
_NOTE, _PROVEN = ".msgd-relay.note", ".msgd-relay.proven"
_HASHED_AT_ONCE = 1 << 20


class Put(Enum):
    """What became of a block."""

    WRITTEN = "written"
    HELD = "held"  # it was there already
    MISSING = "missing"  # what comes before it is not there


class Differs(Exception):
    """The file holds something else where the block belongs."""

    def __init__(self, at: int) -> None:
        super().__init__(f"byte {at}")
        self.at = at


class Place(NamedTuple):
    """Where a block belongs in a file of a certain size."""

    compare: int  # so many bytes of it are there already, and must be the same
    missing: bool  # there is a gap before it


def place(size: int, offset: int, length: int) -> Place:
    """For a block of this length at this offset."""
    if offset > size:
        return Place(0, missing=True)
    return Place(min(size - offset, length), missing=False)


def first_difference(one: bytes, other: bytes) -> int:
    """The first place at which two texts of the same length differ; -1 if they do not."""
    if one == other:
        return -1
    low, high = 0, len(one)  # they agree before low, and differ before high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle)
    return low


class Copy:
    """One collected file, open for a batch of blocks."""

    def __init__(self, folder: str, name: str) -> None:
        """Open it, or make it. Raises OSError, and Doubt while it is being compressed."""
        self.path = os.path.join(folder, name)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._is_new = not os.path.lexists(self.path)
        self._dirty = False
        self._fd = os.open(self.path, flags, FILE_MODE)
        try:
            # Retention, which compresses, holds the same lock.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(self._fd), os.lstat(self.path)):
                raise BlockingIOError
            if self._is_new:
                os.fchmod(self._fd, FILE_MODE)  # whatever the umask
            self._base = _packed_size(folder, name)
        except (BlockingIOError, FileNotFoundError):
            os.close(self._fd)
            raise Doubt(f"{self.path}: is being compressed") from None
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def size(self) -> int:
        return self._base + os.fstat(self._fd).st_size

    def put(self, offset: int, data: bytes) -> Put:
        """Write the block where it belongs. Raises Differs, OSError."""
        size = self.size
        compare, missing = place(size, offset, len(data))
        if missing:
            return Put.MISSING
        if compare:
            compare = self._compare(offset, data[:compare], size)
        if compare == len(data):
            return Put.HELD
        self._dirty = True
        at, rest = offset + compare - self._base, memoryview(data)[compare:]
        while rest:
            written = os.pwrite(self._fd, rest, at)
            at, rest = at + written, rest[written:]
        return Put.WRITTEN

    def _compare(self, offset: int, data: bytes, size: int) -> int:
        """How many bytes of data are there; what a power cut has left is cut off before."""
        skip = max(self._base - offset, 0)  # what is in the gzip was proven
        found = os.pread(self._fd, len(data) - skip, offset + skip - self._base)
        at = first_difference(found, data[skip : skip + len(found)])
        if at < 0:
            return skip + len(found)
        at += offset + skip
        if not self._only_nuls(at - self._base):
            raise Differs(at)
        os.ftruncate(self._fd, at - self._base)
        log.warning("%s: cut off the NULs that a power cut has left, from byte %d", self.path, at)
        return at - offset

    def _only_nuls(self, at: int) -> bool:
        while data := os.pread(self._fd, _HASHED_AT_ONCE, at):
            if data.strip(b"\0"):
                return False
            at += len(data)
        return True

    def sync(self) -> None:
        """Put what was written on stable storage. Raises OSError."""
        if self._dirty:
            os.fdatasync(self._fd)
            self._dirty = False
        if self._is_new:
            _sync_directory(os.path.dirname(self.path))

    def close(self) -> None:
        """Nothing is left of a file that was made in vain."""
        if self._is_new and not os.fstat(self._fd).st_size:
            with suppress(OSError):
                os.unlink(self.path)
        os.close(self._fd)


class Proof(NamedTuple):
    """A copy whose SHA-256 is what the node says."""

    size: int
    sha256: str


class Copies:
    """The directory of all copies: a folder a node. A lock keeps others out."""

    def __init__(self, config: Collect) -> None:
        """Raises Fatal."""
        self.directory = config.directory
        try:
            os.makedirs(self.directory, DIRECTORY_MODE, exist_ok=True)
            self._lock = Lock(self.directory)
        except OSError as error:
            raise Fatal(f"{self.directory}: {error.strerror}") from error
        except Fatal:
            raise Fatal(
                f"{self.directory}: another msgd-relay collects there, or a msgd archives there; "
                "stop it, or choose another collect.directory"
            ) from None
        self._proven: dict[str, dict[str, Proof]] = {}  # node -> file's name -> proof

    def close(self) -> None:
        self._lock.release()

    def folder(self, node: str) -> str:
        return os.path.join(self.directory, node)

    def path(self, part: Part) -> str:
        """Of the plain file."""
        return os.path.join(self.folder(part.node), part.name)

    def open(self, part: Part) -> Copy:
        """Raises OSError, Doubt."""
        folder = self.folder(part.node)
        if not os.path.isdir(folder):
            os.mkdir(folder, DIRECTORY_MODE)
            os.chmod(folder, DIRECTORY_MODE)
            _sync_directory(self.directory)
        return Copy(folder, part.name)

    def size(self, part: Part) -> int:
        """Bytes that the copy has, plain or compressed; 0 where there is none.

        What is compressed was proven, so its size is known without unpacking it.
        """
        path = self.path(part)
        try:
            plain = os.stat(path, follow_symlinks=False).st_size
        except OSError:
            plain = 0
        if not os.path.exists(f"{path}.gz"):
            return plain
        if not plain and (proof := self.proof(part)):
            return proof.size
        return max(_packed_size(self.folder(part.node), part.name) + plain, plain)

    def proof(self, part: Part) -> Proof | None:
        """What proves this copy, if something does."""
        return self._of(part.node).get(part.name)

    def prove(self, part: Part, size: int, sha256: str) -> bool:
        """Whether the first ``size`` bytes of the copy are what the node has. Takes long."""
        digest = hashlib.sha256()
        with _day(self.folder(part.node), part.name) as day:
            at = 0
            while at < size and (data := day.read(at, min(_HASHED_AT_ONCE, size - at))):
                digest.update(data)
                at += len(data)
        return at == size and digest.hexdigest() == sha256

    def note_proof(self, part: Part, proof: Proof) -> None:
        """Keep it; a proof that is lost is made again. Never raises."""
        found = self._of(part.node)
        found[part.name] = proof
        lines = [f"{proof.sha256} {proof.size} {name}\n" for name, proof in sorted(found.items())]
        with suppress(OSError):
            _replace(os.path.join(self.folder(part.node), _PROVEN), "".join(lines))

    def _of(self, node: str) -> dict[str, Proof]:
        if node not in self._proven:
            self._proven[node] = _read_proven(os.path.join(self.folder(node), _PROVEN))
        return self._proven[node]

    def first_unproven(self, node: str) -> str:
        """Retention may have what is older than this day. Raises OSError."""
        folder, today = self.folder(node), date.today().isoformat()
        for day in days(folder):
            part = Part(node, day, 1)
            proof = self.proof(part)
            if day >= today or proof is None or proof.size != self.size(part):
                return min(day, today)
        return today

    def nodes(self) -> list[str]:
        """Whose folders are there. Raises OSError."""
        return sorted(entry.name for entry in os.scandir(self.directory) if entry.is_dir())

    def read_note(self) -> dict[str, object]:
        """Where the stream was read up to: only a hint."""
        try:
            with open(os.path.join(self.directory, _NOTE), "rb") as file:
                found = json.loads(file.read(4096))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_note(self, note: dict[str, object]) -> None:
        """Raises OSError."""
        _replace(os.path.join(self.directory, _NOTE), json.dumps(note) + "\n")


def _read_proven(path: str) -> dict[str, Proof]:
    found = {}
    try:
        with open(path) as file:
            for line in file:
                sha256, size, name = line.split()
                found[name] = Proof(int(size), sha256)
    except (OSError, ValueError):
        return {}
    return found


def _replace(path: str, text: str) -> None:
    new = f"{path}.new"
    with open(new, "w") as file:
        os.fchmod(file.fileno(), FILE_MODE)
        file.write(text)
    os.rename(new, path)


def _day(folder: str, name: str) -> Day:
    return Day(folder, name.removesuffix(".log"))


def _packed_size(folder: str, name: str) -> int:
    """Bytes of the day that come before the plain file's first. Raises OSError, as gzip does."""
    if not os.path.exists(os.path.join(folder, f"{name}.gz")):
        return 0
    with _day(folder, name) as day:
        return day.base


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
