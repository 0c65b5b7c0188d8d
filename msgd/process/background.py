"""Becoming a daemon the classic way, as daemon(7) describes it for System V."""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn

from msgd.errors import Fatal
from msgd.process import log
from msgd.process.signals import WATCHED, forget

_DESCRIPTORS = 4096  # those that msgd may have inherited are below
_UMASK = 0o027  # takes nothing from the archive's modes, 0750 and 0640


class Starter:
    """The process that was started: it waits until the daemon says that it serves."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let it exit with status 0. One that ended meanwhile is no error."""
        with suppress(OSError):
            os.write(self._descriptor, b"\n")
        os.close(self._descriptor)


def _exit_when_released(reader: int) -> NoReturn:
    """The started process's end. It cleans nothing up: all that it has is the daemon's now."""
    status = 1
    try:
        if os.read(reader, 1):
            status = 0
        else:
            print("msgd: could not become a daemon; the system's log says why", file=sys.stderr)
    finally:
        os._exit(status)


def _import_daemon() -> tuple[Any, type[Exception]]:
    """python-daemon, for a machine where a process may open very many files.

    When imported, releases before 3 make a set of all descriptors that the hard limit allows,
    and keep it: with the 2^30 of many containers that is 60 GB. So it hears of fewer.
    """
    allowed = resource.getrlimit
    resource.getrlimit = lambda _: (_DESCRIPTORS, _DESCRIPTORS)
    try:
        from daemon.daemon import DaemonContext, DaemonError  # type: ignore[import-untyped]
    finally:
        resource.getrlimit = allowed
    return DaemonContext, DaemonError


def detach(keep: list[int], *, verbose: bool) -> Starter:
    """Go on in a process without terminal, with only these descriptors, in the directory /.

    From here on what it says goes to syslog.

    The process that was started does not return: it exits with status 0 when the daemon
    releases it, or 1 when the daemon ends before. So whoever starts msgd can rely on the
    status, and on the pid file when it has seen it. Raises Fatal.
    """
    DaemonContext, DaemonError = _import_daemon()
    reader, writer = os.pipe()
    sys.stdout.flush()
    # What the starter is told must not be noted in the daemon's name, nor by those in between,
    # which only exit.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    if os.fork():
        forget()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writer)
        _exit_when_released(reader)
    log.to_syslog(verbose=verbose)
    context = DaemonContext(
        detach_process=True,  # as asked, even where the parent is init
        files_preserve=[*keep, writer],
        working_directory="/",
        umask=_UMASK,
        signal_map={},  # those of `Signals` stay
    )
    try:
        context.open()
    except DaemonError as error:
        raise Fatal(f"cannot become a daemon: {error}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return Starter(writer)
