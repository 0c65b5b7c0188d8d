"""The archive: one file a day, which only grows.

`Archive.commit` writes a batch of records with one write and, with
``sync: always``, one fdatasync. What commit has taken may be echoed, and nothing else.

What is not needed for that never stops it: `current.log`, `.msgd.state` and `.msgd.final` are
conveniences of others, and what goes wrong with them is a line of the log.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable

from msgd.archive.dayfile import FULL, Batch, DayFile, explain
from msgd.archive.days import elapsed
from msgd.archive.directory import Directory
from msgd.archive.final import FinalFile
from msgd.archive.links import CurrentLink
from msgd.archive.recovery import listing, recover, tail_of
from msgd.archive.room import KeepFree, Room
from msgd.archive.sessions import Sessions
from msgd.archive.state import State, StateFile
from msgd.errors import Fatal
from msgd.process.lockfile import Lock

log = logging.getLogger("msgd")

# What a start has to read at most, if msgd was killed: 0.3 s, and 5 s. A state speaks of what is on
# stable storage; with `never` it is all that syncs, and each 64 MiB that took a fifth of the speed.
_STATE_BYTES = {"always": 64 << 20, "second": 64 << 20, "never": 1 << 30}
_TRIES = 3  # to write to a file that others move away again and again


class Archive:
    """The day files in one directory, of which one is open."""

    def __init__(
        self,
        directory: str,
        sync: str,
        *,
        sessions: int = 10_000,
        keep_free: KeepFree | None = None,
    ) -> None:
        """Lock the directory (an absolute path), which is made where missing; raises `Fatal`."""
        self.directory = directory
        self.sync = sync  # "always", "second" or "never"
        self.room = Room(directory, keep_free)
        # The days that this process has written to, and when it did so last.
        self.written: dict[str, float] = {}
        self.synced: Callable[[float], object] = float  # is told the seconds of each fdatasync
        self.day = ""  # of the open file
        self.refusing = ""  # why records are refused; "" while they are not
        self.sessions = Sessions(sessions)  # who calls notes what a commit has kept, before the
        # next call of anything here: the state must not say less than the file that it speaks of
        self._works = True  # whether the last batch was taken
        self._refused_at = 0.0
        self._file: DayFile | None = None
        self._unsynced = False
        self._torn: set[str] = set()  # files whose end is not whole, as found at the start
        self._states = StateFile(directory)
        self._started = False
        self._state_due, self._since = False, 0  # bytes written since the last state
        self._listing: dict[str, int] = {}  # as it was when the file was opened
        self._final = FinalFile(directory)
        self._link = CurrentLink(directory)
        try:
            self._directory = Directory(directory)
            self.lock = Lock(directory)
        except OSError as error:
            raise Fatal(explain(error, directory)) from error

    def start(self, day: str) -> None:
        """Find the sessions, mend the newest file and open today's; raises `Fatal` unless it is
        a full disk.

        A full disk passes by itself, and its messages are refused for as long as it lasts.
        """
        try:
            self._listing = listing(self.directory)
            self._torn = recover(self.directory, self._states, self.sessions, self.sync)
            self._mend_newest(day)
            self._open(day)
        except OSError as error:
            if error.errno not in FULL:
                raise Fatal(explain(error, self._path(day))) from error
            self._refuse(error, day)
        if self._file is not None:  # not in a thread: the process may fork yet, into a daemon
            self._states.write(self._state(self._file))
            self._state_due = False
        self._started = True

    def _mend_newest(self, day: str) -> None:
        """A crash on another day may have left a torn end in its file.

        That is the one that the state speaks of, or where there is no state the newest one: the
        last by name or, if the clock was set back, where current.log leads to. Older damage is
        left as it is.
        """
        last = max((name for name in self._listing if name.endswith(".log")), default="")
        newest = {last, self._link.target(), *self._states.speaks}
        for name in self._torn.intersection(newest) - {f"{day}.log"}:
            path = os.path.join(self.directory, name)
            try:
                DayFile(path, torn=True).close()
                self._torn.discard(name)
            except OSError as error:  # nothing is written there any more: no reason to stop
                log.error("%s; its end is left as it is", explain(error, path))

    def filenos(self) -> list[int]:
        """The descriptors that it needs over a fork."""
        today = [self._file.fileno()] if self._file is not None else []
        others = self.lock.fd, self._directory.fd, self._final.fileno()
        return [*today, *(fd for fd in others if fd >= 0)]

    def commit(self, batch: Batch, day: str) -> int:
        """Write the batch to the file of this day; returns how many of its entries are kept.

        They are the first ones. With ``sync: always`` they are on stable storage. The others
        are not in the archive, and no part of them is. Raises `Fatal`.
        """
        if not batch:
            return 0
        self._save_state()
        try:
            kept, error = self._keep(batch, day)
        except OSError as failure:
            kept, error = 0, failure
        if kept and self._file is not None:
            self._final.renew(self._file.end)
        if error is not None:
            self._refuse(error, day)
        else:
            self._works = True
        return kept

    def _keep(self, batch: Batch, day: str) -> tuple[int, OSError | None]:
        """Write to the file until it is still in its place afterwards: an echo for a record in
        a file that was deleted or moved away would be a lie. Raises OSError, `Fatal`.
        """
        for _ in range(_TRIES):
            file = self._opened(day)
            fitting, full = self.room.fit(batch)
            kept, error = file.append(fitting)
            error = error or full
            self._unsynced |= kept > 0
            self._since += file.end - file.begin
            if not kept or self.sync != "always":
                return kept, error
            self._sync_or_take_back(file)  # which takes its time
            if file.is_in_place():
                return kept, error
        return 0, OSError(errno.ENOENT, "is moved or deleted again and again", self._path(day))

    def _sync_or_take_back(self, file: DayFile) -> None:
        """A disk that turns out to be full only now has kept nothing of this batch.

        What was kept before is on stable storage. The next batch begins on a descriptor that
        knows nothing of this failure. Raises OSError then, `Fatal` for any other failure.
        """
        try:
            self._sync()
        except OSError:
            file.take_back()
            self._forget_file()
            raise

    def flush(self) -> None:
        """Put all records on stable storage; raises `Fatal`.

        Where the disk turns out to be full only now, what was echoed stays in the file, and
        only its being on stable storage is in doubt: the log says so.
        """
        self._sync_or_say()
        self._save_state()

    def _sync_or_say(self) -> None:
        try:
            self._sync()
        except OSError as error:
            log.error("%s; what was echoed lately may not outlast a power failure",
                      explain(error, self._path(self.day)))  # fmt: skip
            self._forget_file()

    def _sync(self) -> None:
        if self._unsynced and self._file is not None:
            began = time.monotonic()
            self._file.sync()
            self.synced(time.monotonic() - began)
        self._unsynced = False

    def roll(self, day: str) -> None:
        """Go on to this day's file, so that a finished day's is no longer open."""
        closed = self._file is None
        try:
            self._opened(day)
            self._works |= closed  # where writing has failed, only a write shows that it works
        except OSError as error:
            self._refuse(error, day)
        if self._file is not None:
            self._link.point(self.day)
            self._final.check(self.day, self._file.end)
        self._save_state()

    def reopen(self, day: str) -> None:
        """Close and open the file, as SIGHUP asks."""
        works = self._works or self._file is None  # a file that opens need not take records
        self._close_file()
        self.roll(day)
        self._works &= works

    def close(self) -> None:
        """Flush (unless ``sync: never``), close, and release the directory; raises `Fatal`."""
        if self.sync != "never":
            self.flush()
        self._states.wait()
        if self._file is not None:
            self._states.write(self._state(self._file))
        self._close_file()
        self._final.close()
        self._directory.close()
        self.lock.release()

    def _opened(self, day: str) -> DayFile:
        """The file of this day; raises OSError.

        It is looked for under its name every time: see `_keep`.
        """
        if self._file is not None and day == self.day:
            if self._file.is_in_place():
                return self._file
            log.warning("%s: was moved or deleted; making a new one", self._file.path)
        return self._open(day)

    def _open(self, day: str) -> DayFile:
        self._close_file()
        self._directory.renew()
        self.lock.renew()
        name = f"{day}.log"
        self._listing = listing(self.directory)
        opened = DayFile(self._path(day), torn=name in self._torn)
        self._torn.discard(name)
        self._link.point(day)
        try:
            if self.sync != "never":
                self._directory.sync()
        except OSError:
            opened.close()
            raise
        self._file, self.day = opened, day
        self.written[day] = elapsed()
        self._final.open(day, opened.end)
        self._state_due = True
        self._save_state()
        return opened

    def _close_file(self) -> None:
        if self.sync != "never":
            self._sync_or_say()
        self._forget_file()

    def _forget_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self.written[self.day] = elapsed()
        self._file, self._unsynced = None, False

    def _save_state(self) -> None:
        """Begin to write the state, if it is due and all that it says is certain.

        Only where a batch is not under way: its sessions' numbers are noted behind the commit.
        """
        if not self._started or (not self._state_due and self._since < _STATE_BYTES[self.sync]):
            return
        certain = not self._unsynced or self.sync == "never"
        if certain and self._file is not None and not self._states.busy:
            self._states.begin(self._state(self._file))
            self._state_due, self._since = False, 0

    def _state(self, file: DayFile) -> State:
        """As of now."""
        name = f"{self.day}.log"
        self._listing[name] = file.end
        tail = tail_of(file.fileno(), file.end)
        files = dict(self._listing)
        return State(self.sync, name, file.end, tail, files, self.sessions.all())

    def _path(self, day: str) -> str:
        return os.path.join(self.directory, f"{day}.log")

    def _refuse(self, error: OSError, day: str) -> None:
        """Say so once, not once a message; and once more when the reason changes."""
        reason = explain(error, self._path(day))
        if self.refusing != reason:
            log.error("%s; messages are refused until it can be written", reason)
        self.refusing, self._works, self._refused_at = reason, False, time.monotonic()

    def settle(self) -> None:
        """Say that records are taken again, once that has been so for a second.

        On a device that is almost full short records still fit where long ones do not: without
        the second each of them would be news.
        """
        if self.refusing and self._works and time.monotonic() - self._refused_at >= 1:
            log.warning("%s: is being written again", self._path(self.day))
            self.refusing = ""
