"""Retention: delete day files that are too old, compress finished ones.

Both may take long, so that the daemon runs this file as a program of its own, one at a time,
and passes on what it prints: one line for each thing that was done or went wrong, with its
priority before it as sd-daemon(3) says.

    python -I retention.py DIRECTORY TODAY KEEP_DAYS COMPRESS [DAY...]

TODAY's file and any of a later day are never touched, nor is anything but a day file. The days at
the end are not deleted, however old. It imports nothing of msgd's, so that it starts quickly.
"""

from __future__ import annotations

import fcntl
import gzip
import os
import re
import shutil
import stat
import sys
import zlib
from collections.abc import Collection
from contextlib import suppress
from datetime import date, timedelta
from typing import BinaryIO

_DAY_FILE = re.compile(r"(\d{4}-\d\d-\d\d)\.log(\.gz)?", re.ASCII)
_LEFT = re.compile(r"\.\d{4}-\d\d-\d\d\.log\.gz\.new", re.ASCII)
_DONE, _FAILED = "<6>", "<3>"
_CHUNK = 1 << 20
_SYNC_BYTES = 4 << 20  # of what is read, so that never much is written at once: see _pack
_FAILURES = (OSError, EOFError, ValueError, zlib.error)  # the last three: of a damaged gzip


def main(
    directory: str, today: str, keep_days: int, compress: str, spared: Collection[str] = ()
) -> None:
    """Go through the directory once. Every failure is one printed line; the rest goes on."""
    with suppress(OSError):  # the systemd unit forbids it, as it does all that sets priorities
        os.nice(10)
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        _print_failure(directory, error)
        return
    for name in names:
        path = os.path.join(directory, name)
        try:
            if _LEFT.fullmatch(name):
                _remove_left(path)
            elif (found := _DAY_FILE.fullmatch(name)) and found[1] < today and _is_regular(path):
                if keep_days and found[1] < _oldest(today, keep_days) and found[1] not in spared:
                    os.unlink(path)
                    _print(_DONE, path, f"deleted, older than {keep_days} days")
                elif compress == "gzip" and found[2] is None:
                    _compress(path)
        except _FAILURES as error:
            _print_failure(path, error)


def _print(level: str, path: str, words: str) -> None:
    print(f"{level}{path}: {words}", flush=True)


def _remove_left(new: str) -> bool:
    """Remove what a compression has left that was killed.

    Returns False where one is still at it: perhaps the helper of a daemon that was killed.
    """
    if os.path.islink(new):
        os.unlink(new)
    try:
        fd = os.open(new, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(new)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _print_failure(path: str, error: Exception) -> None:
    _print(_FAILED, path, f"{error}; tried again tomorrow")


def _oldest(today: str, keep_days: int) -> str:
    return (date.fromisoformat(today) - timedelta(days=keep_days)).isoformat()


def _is_regular(path: str) -> bool:
    """Whether it is a file, and has no other name, which may be somebody else's."""
    status = os.lstat(path)
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _compress(path: str) -> None:
    """Replace the file by its gzip; at every moment one of the two is there, whole."""
    packed = f"{path}.gz"
    if not _remove_left(_new_name(packed)):
        return
    with _open(path) as source:
        # Both are there where a crash came between the two, or the clock went back to that day.
        before = _unpacked_size(packed) if os.path.exists(packed) else 0
        skip = before - os.fstat(source.fileno()).st_size
        if skip < 0 or not os.path.exists(packed) or not _holds(packed, skip, source):
            try:
                _pack(source, packed, before)
            except _FAILURES:
                with suppress(OSError):  # on a full disk it would keep the daemon from writing
                    os.unlink(_new_name(packed))
                raise
    os.unlink(path)
    _sync_directory(path)
    _print(_DONE, path, "compressed")


def _open(path: str) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def _create(new: str) -> BinaryIO:
    """A new file of our own, whatever links others may have put there; locked.

    The day's file could be locked by everybody who may read it.
    """
    target = os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    fcntl.flock(target, fcntl.LOCK_EX)  # for as long as it is being made: see _remove_left
    return target


def _pack(source: BinaryIO, packed: str, before: int) -> None:
    """Write the gzip beside its place, read it again, and only then move it there.

    What an earlier gzip of this day holds stays in front: several members one after the other
    are one gzip file (RFC 1952, section 2.2). It is synced piece by piece: the daemon's own syncs
    wait behind a large one, as ext4 has one journal for both.
    """
    new, status = _new_name(packed), os.fstat(source.fileno())
    with _create(new) as target:
        if before:
            with _open(packed) as earlier:
                shutil.copyfileobj(earlier, target, _CHUNK)
        source.seek(0)
        with gzip.GzipFile("", "wb", 6, target, status.st_mtime) as member:
            for _ in iter(lambda: _copy(source, member, _SYNC_BYTES), 0):
                target.flush()
                os.fdatasync(target.fileno())
        target.flush()
        os.utime(target.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        if not _holds(new, before, source):
            raise ValueError("its gzip does not unpack to the same bytes")
        with suppress(OSError):  # not every file system has modes
            os.fchmod(target.fileno(), status.st_mode & 0o777)
        os.fsync(target.fileno())
        os.rename(new, packed)
    _sync_directory(packed)


def _copy(source: BinaryIO, target: BinaryIO | gzip.GzipFile, most: int) -> int:
    """Copy up to ``most`` bytes, or up to the end; how many there were."""
    data = source.read(most)
    target.write(data)
    return len(data)


def _holds(packed: str, skip: int, source: BinaryIO) -> bool:
    """Whether the gzip, without its first ``skip`` bytes, unpacks to what the source holds."""
    source.seek(0)
    with _open(packed) as file, gzip.open(file) as unpacked:
        unpacked.seek(skip)
        while chunk := source.read(_CHUNK):
            if unpacked.read(len(chunk)) != chunk:
                return False
        return not unpacked.read(1)


def _unpacked_size(packed: str) -> int:
    with _open(packed) as file, gzip.open(file) as unpacked:
        while unpacked.read(_CHUNK):
            pass
        return unpacked.tell()


def _new_name(packed: str) -> str:
    directory, name = os.path.split(packed)
    return os.path.join(directory, f".{name}.new")


def _sync_directory(path: str) -> None:
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5:])
