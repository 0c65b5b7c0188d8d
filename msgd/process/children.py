"""Processes that this one has started, and those that it inherits where it is process 1."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from msgd.process.signals import WATCHED, forget

own: set[int] = set()  # started here, and waited for by whoever started it


def fork() -> int:
    """As os.fork(); the child has none of this process's signal handlers. Raises OSError.

    A signal to all of a group, such as Ctrl-C, must not be noted by the child in the parent's
    name: it would be the parent's second.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        pid = os.fork()
        if pid == 0:
            forget()
        else:
            own.add(pid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def reap(pid: int) -> tuple[int, float]:
    """Wait for the end of one of `own`: its exit code, negative for a signal, and its seconds of
    a processor.
    """
    own.discard(pid)
    _, status, used = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def reap_orphans() -> None:
    """To be called on SIGCHLD: whoever is process 1 of a container is given those of others.

    Stops at one of `own`, whose end somebody else is about to see; then SIGCHLD comes again.
    """
    if os.getpid() != 1:
        return
    with suppress(ChildProcessError):
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while (ended := os.waitid(os.P_ALL, 0, how)) and ended.si_pid not in own:
            os.waitpid(ended.si_pid, os.WNOHANG)
