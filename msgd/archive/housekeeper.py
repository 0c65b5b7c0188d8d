"""Runs retention beside the daemon: one process at a time, which the loop never waits for."""

from __future__ import annotations

import logging
import os
import select
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgd.archive.days import elapsed
from msgd.process import children

if TYPE_CHECKING:
    import subprocess

log = logging.getLogger("msgd")

# Run, not imported: what it needs would take 5 ms of each start.
_PROGRAM = os.path.join(os.path.dirname(__file__), "retention.py")

_STOP_SECONDS = 1.0  # for a child that was killed to end
_DAY_SECONDS = 86_400
_SLACK_SECONDS = _DAY_SECONDS // 2  # days have 23 to 25 hours, and do not end to the second
_LEFT = ".log.gz.new"  # what a compression that was killed leaves
_LEVELS = {"<6>": logging.INFO, "<4>": logging.WARNING}  # as sd-daemon(3) has them


class Housekeeper:
    """Starts retention for a new day, and puts what it says into the daemon's log.

    A clock that is wrong for a while deletes nothing: see `wish` and `_spared`.
    """

    def __init__(self, directory: str, written: Mapping[str, float] | None = None) -> None:
        """``written`` tells when this process has last written to a day, by `days.elapsed`."""
        self._directory = directory
        self._written = {} if written is None else written
        self.day = ""  # the last wish: a run may touch every file of an earlier day
        self._due = ""  # the wish for which no run has begun
        self._seen: tuple[str, float] | None = None  # the day of the last wish, and when that was
        self._jumped = ""  # the day to which the clock has jumped
        self._child: subprocess.Popen[bytes] | None = None
        self._said = b""  # an unfinished line of it

    @property
    def running(self) -> bool:
        return self._child is not None

    def wish(self, day: str) -> None:
        """Run for this day, when `step` finds that no other run is under way.

        A day that has come too early for the time that has passed is one to which the clock
        has jumped. It may be wrong now, so that nothing is deleted before the next day.
        """
        from datetime import date  # not before it is needed: start-up

        now = elapsed()
        if self._seen is not None:
            last, at = self._seen
            days = (date.fromisoformat(day) - date.fromisoformat(last)).days
            if days > (now - at) // _DAY_SECONDS + 1:
                self._jumped = day
                log.warning("retention: the clock has jumped from %s to %s; nothing is deleted "
                            "before the next day", last, day)  # fmt: skip
        self._seen = day, now
        self.day = self._due = day

    def step(self, keep_days: int, compress: str) -> None:
        """Go on, and log what was said; to be called at least when a child has ended (SIGCHLD)."""
        if self._child is not None:
            ended = self._child.poll() is not None  # first: what it says last comes before
            self._read(self._child)
            if ended:
                self._finish(self._child)
        if self._due and self._child is None:
            keep_days = 0 if self._due == self._jumped else keep_days
            if keep_days or compress != "none" or self._has_left_something():
                self._start(keep_days, compress)
            self._due = ""

    def stop(self) -> None:
        """End it; what it was compressing is begun again another day.

        A child that hangs in a system call ends as soon as that returns, and does nothing more.
        """
        self.day = self._due = ""
        child = self._child
        if child is None:
            return
        child.kill()
        if not self._wait_for_end(child, time.monotonic() + _STOP_SECONDS):
            log.warning("retention: process %d was killed and does not end; going on", child.pid)
        self._close(child)

    def _wait_for_end(self, child: subprocess.Popen[bytes], until: float) -> bool:
        """Whether it ends in time: with it goes the last writer of what it says."""
        assert child.stdout is not None
        wait = select.poll()
        wait.register(child.stdout, select.POLLIN)
        while (left := until - time.monotonic()) > 0:
            wait.poll(left * 1000)
            if self._read(child):
                child.wait()
                return True
        return False

    def _has_left_something(self) -> bool:
        """Whether there is something to be removed, though nothing is to be done any more."""
        try:
            return any(name.endswith(_LEFT) for name in os.listdir(self._directory))
        except OSError:
            return False

    def _spared(self, keep_days: int) -> list[str]:
        """The days that this process has written to in the last ``keep_days`` days, whatever the
        clock said then: an archive of 1970 is not old once the clock is right.
        """
        since = elapsed() - keep_days * _DAY_SECONDS + _SLACK_SECONDS
        return [day for day, at in self._written.items() if at > since]

    def _start(self, keep_days: int, compress: str) -> None:
        arguments = [self._directory, self._due, str(keep_days), compress, *self._spared(keep_days)]
        try:  # there may be no descriptor left, nor a process
            import subprocess  # not before it is needed: start-up

            child = subprocess.Popen(
                [sys.executable, "-I", _PROGRAM, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
            )
        except (OSError, ImportError) as error:  # without descriptors nothing is imported either
            words = getattr(error, "strerror", None) or error
            log.error("retention: cannot start: %s; tried again tomorrow", words)
            return
        assert child.stdout is not None
        os.set_blocking(child.stdout.fileno(), False)
        self._child, self._said = child, b""
        children.own.add(child.pid)

    def _read(self, child: subprocess.Popen[bytes]) -> bool:
        """Log the lines that it has said by now. It waits for us, and we never for it.

        Returns whether there will be no more.
        """
        assert child.stdout is not None
        while data := child.stdout.read(1 << 16):
            *lines, self._said = (self._said + data).split(b"\n")
            for line in lines:
                text = line.decode("utf-8", "replace")
                level = _LEVELS.get(text[:3], logging.ERROR)
                log.log(level, "%s", text[3:] if text.startswith("<") else text)
        return data is not None

    def _finish(self, child: subprocess.Popen[bytes]) -> None:
        if child.returncode != 0:
            log.error("retention: ended with status %d; tried again tomorrow", child.returncode)
        self._close(child)

    def _close(self, child: subprocess.Popen[bytes]) -> None:
        assert child.stdout is not None
        child.stdout.close()
        children.own.discard(child.pid)
        self._child = None
