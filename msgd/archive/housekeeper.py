"""Runs retention beside the daemon: one process at a time, which the loop never waits for."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from msgd.process import children

if TYPE_CHECKING:
    import subprocess

log = logging.getLogger("msgd")

# Run, not imported: what it needs would take 5 ms of each start.
_PROGRAM = os.path.join(os.path.dirname(__file__), "retention.py")


class Housekeeper:
    """Starts retention for a new day, and puts what it says into the daemon's log."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self.day = ""  # for which it was last wished: no file of an earlier day is safe from it
        self._due = ""  # the same, as long as it has not begun
        self._child: subprocess.Popen[bytes] | None = None
        self._said = -1  # a file in memory: unlike a pipe it never makes the child wait

    def wish(self, day: str) -> None:
        """Run for this day, when `step` finds that no other run is under way."""
        self.day = self._due = day

    def step(self, keep_days: int, compress: str) -> None:
        """Go on; to be called when a child has ended (SIGCHLD)."""
        if self._child is not None and self._child.poll() is not None:
            self._report()
        if self._due and self._child is None:
            if keep_days or compress != "none":
                self._start(keep_days, compress)
            self._due = ""

    def stop(self) -> None:
        """End it, before this returns; what it was compressing is begun again another day."""
        self.day = self._due = ""
        if self._child is not None:
            self._child.terminate()
            self._child.wait()
            self._report()

    def _start(self, keep_days: int, compress: str) -> None:
        arguments = [self._directory, self._due, str(keep_days), compress]
        said = -1
        try:  # there may be no descriptor left, nor a process
            import subprocess  # not before it is needed: start-up

            said = os.memfd_create("retention", os.MFD_CLOEXEC)
            self._child = subprocess.Popen(
                [sys.executable, "-I", _PROGRAM, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
            self._said = said
            children.own.add(self._child.pid)
        except OSError as error:
            log.error("retention: cannot start: %s; tried again tomorrow", error.strerror)
            if said >= 0:
                os.close(said)

    def _report(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            children.own.discard(child.pid)
        with open(self._said, "rb") as said:
            said.seek(0)
            for line in said.read().decode("utf-8", "replace").splitlines():
                level, _, words = line.partition(" ")
                log.log(logging.INFO if level == "info" else logging.ERROR, "%s", words)
        if child is not None and child.returncode not in (0, -15):
            log.error("retention: ended with status %d; tried again tomorrow", child.returncode)
