"""The collected files: where each is, how long it is, and what proves a copy.

A file is its own cursor: how a block goes into it is in copyfile.py.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import suppress
from datetime import date
from typing import NamedTuple

from msgd.archive.source import days
from msgd.errors import Fatal
from msgd.process.lockfile import Lock
from msgd.relay.blocks import Part
from msgd.relay.copyfile import FILE_MODE, READ_AT_ONCE, Copy, open_day, packed_size, sync_directory
from msgd.relay.options import Collect

log = logging.getLogger("msgd")

DIRECTORY_MODE = 0o750
_NOTE, _PROVEN = ".msgd-relay.note", ".msgd-relay.proven"


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
            sync_directory(self.directory)
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
        return max(packed_size(self.folder(part.node), part.name) + plain, plain)

    def proof(self, part: Part) -> Proof | None:
        """What proves this copy, if something does."""
        return self._of(part.node).get(part.name)

    def prove(self, part: Part, size: int, sha256: str) -> bool:
        """Whether the first ``size`` bytes of the copy are what the node has. Takes long."""
        digest = hashlib.sha256()
        with open_day(self.folder(part.node), part.name) as day:
            at = 0
            while at < size and (data := day.read(at, min(READ_AT_ONCE, size - at))):
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
