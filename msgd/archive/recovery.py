"""Finds the numbers of the sessions again at the start, in whatever way msgd was stopped.

The state file is believed as far as the archive still is what it speaks of. Everything else is
read: the rest of the file that it names, other files that have changed, or all of them.
"""

from __future__ import annotations

import logging
import os
import stat
from binascii import crc32
from collections.abc import Iterator
from contextlib import suppress

from msgd.archive.days import is_day
from msgd.archive.scan import Scan, scan, split
from msgd.archive.sessions import Sessions
from msgd.archive.state import TAIL_BYTES, State, StateFile
from msgd.errors import Fatal
from msgd.process.systemd import notify

log = logging.getLogger("msgd")

_BLOCK = 256 << 10


def listing(directory: str) -> dict[str, int]:
    """The sizes of all day files, by name, plain and gzip, in the order of their days.

    Those that cannot be seen are left out: then they are read at the next start.
    """
    found = {}
    with suppress(OSError):
        for name in os.listdir(directory):
            day, _, ending = name.partition(".")
            if ending in ("log", "log.gz") and is_day(day):
                status = os.lstat(os.path.join(directory, name))
                if stat.S_ISREG(status.st_mode):
                    found[name] = status.st_size
    return dict(sorted(found.items()))


def tail_of(fd: int, offset: int) -> int:
    """The CRC of the last bytes before this offset; -1, which fits nothing, for a bad disk."""
    start = max(offset - TAIL_BYTES, 0)
    try:
        return crc32(os.pread(fd, offset - start, start))
    except OSError:
        return -1


def recover(directory: str, states: StateFile, sessions: Sessions, sync: str) -> set[str]:
    """Fill the table; the names of plain files whose end is not whole. Raises OSError, `Fatal`.

    What was read is put on stable storage (unless ``sync: never``) before anybody is told of it:
    behind a kill it may be in memory only.
    """
    state = _believed(directory, states)
    for (owner, session), number in state.sessions if state is not None else ():
        sessions.note(owner, session, number)
    changed = _changed(directory, state)
    if any(changed.values()):
        log.warning("%s: reading %d day files to find the sessions' numbers", directory,
                    len(changed))  # fmt: skip
    torn = set()
    # First: an older state may be the last one that could be written, and days have followed it.
    if state is not None and not _read_rest(directory, state, sessions, sync):
        torn.add(state.name)
    for name, size in changed.items():
        if not _read_all(directory, name, size, sessions, sync):
            torn.add(name)
    return torn


def _believed(directory: str, states: StateFile) -> State | None:
    state = states.read()
    if state is None and states.is_there:
        log.warning("%s: is damaged, and is not believed", states.path)
    if state is not None and not _fits(directory, state):
        log.warning("%s: does not fit the archive, and is not believed", states.path)
        return None
    return state


def _changed(directory: str, state: State | None) -> dict[str, int]:
    """The sizes of the files that the state says nothing of, or not as they are."""
    there = listing(directory)
    if state is None:
        return there
    return {
        name: size for name, size in there.items()
        if name != state.name and not _is_known(directory, name, size, state.files)
    }  # fmt: skip


def _fits(directory: str, state: State) -> bool:
    """Whether the file that it speaks of is there, and as it was up to that offset."""
    try:
        with _Opened(os.path.join(directory, state.name)) as fd:
            return os.fstat(fd).st_size >= state.offset and tail_of(fd, state.offset) == state.tail
    except OSError:
        return False


def _is_known(directory: str, name: str, size: int, known: dict[str, int]) -> bool:
    """Whether it has not changed; or is the gzip of one that has not, whose size stands in its
    last four bytes (RFC 1952).
    """
    if known.get(name) == size:
        return True
    plain = known.get(name.removesuffix(".gz"))
    if not name.endswith(".gz") or plain is None or size < 4:
        return False
    with suppress(OSError), _Opened(os.path.join(directory, name)) as fd:
        return int.from_bytes(os.pread(fd, 4, size - 4), "little") == plain & 0xFFFFFFFF
    return False


def _read_rest(directory: str, state: State, sessions: Sessions, sync: str) -> bool:
    """What stands behind the state, in the order in which it was written."""
    with _Opened(os.path.join(directory, state.name)) as fd:
        found = scan(_blocks(fd, state.offset))
        _make_certain(fd, state.name, sync)
    for key, number in found.last.items():
        sessions.note(*split(key), number)
    return found.whole


def _read_all(directory: str, name: str, size: int, sessions: Sessions, sync: str) -> bool:
    """A whole file. After a clock was set back the order of the names is not that of the
    messages, so that the highest number counts.
    """
    # The service manager is to wait for that: 10 MB/s would be slow.
    notify(f"EXTEND_TIMEOUT_USEC={(30 + size // 10_000_000) * 1_000_000}")
    path = os.path.join(directory, name)
    try:
        if name.endswith(".gz"):
            found = _scan_gzip(path)
        else:
            with _Opened(path) as fd:
                found = scan(_blocks(fd, 0))
                _make_certain(fd, name, sync)
    except (OSError, EOFError, ValueError) as error:
        log.error("%s: cannot be read: %s; sessions that end there are not known", path, error)
        return True
    for key, number in found.last.items():
        owner, session = split(key)
        sessions.note(owner, session, max(number, sessions.last(owner, session)))
    return found.whole or name.endswith(".gz")


def _scan_gzip(path: str) -> Scan:
    import gzip  # only where there is one to be read: start-up
    import zlib

    try:
        with gzip.open(path) as file:
            return scan(iter(lambda: file.read(_BLOCK), b""))
    except zlib.error as error:
        raise ValueError(str(error)) from error


class _Opened:
    """A descriptor for the time of a ``with``; regular files only; raises OSError."""

    def __init__(self, path: str) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._fd = os.open(path, flags)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)


def _blocks(fd: int, offset: int) -> Iterator[bytes]:
    while block := os.pread(fd, _BLOCK, offset):
        yield block
        offset += len(block)


def _make_certain(fd: int, name: str, sync: str) -> None:
    if sync != "never":
        try:
            os.fdatasync(fd)
        except OSError as error:
            raise Fatal(f"{name}: fdatasync: {error.strerror}") from error
