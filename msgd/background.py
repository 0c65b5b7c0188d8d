"""Becoming a daemon the classic way, as daemon(7) describes it for System V."""

from __future__ import annotations

import os
import sys

from msgd.errors import Fatal

_UMASK = 0o027  # takes nothing from the archive's modes, 0750 and 0640


class Starter:
    """The process that was started: it waits until the daemon says that it serves."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Let it exit with status 0. One that ended meanwhile is no error."""
        os.write(self._descriptor, b"\n")
        os.close(self._descriptor)


def detach(keep: list[int]) -> Starter:
    """Go on in a process without terminal, with only these descriptors, in the directory /.

    The process that was started does not return: it exits with status 0 when the daemon
    releases it, or 1 when the daemon ends before. So whoever starts msgd can rely on the
    status, and on the pid file when it has seen it. Raises Fatal.
    """
    from daemon import DaemonContext  # type: ignore[import-untyped]
    from daemon.daemon import DaemonError  # type: ignore[import-untyped]

    reader, writer = os.pipe()
    sys.stdout.flush()
    if os.fork():
        os.close(writer)
        os._exit(0 if os.read(reader, 1) else 1)
    context = DaemonContext(
        detach_process=True,  # as asked, even where the parent is init
        files_preserve=[*keep, writer],
        working_directory="/",
        umask=_UMASK,
        signal_map={},  # the server has its own
    )
    try:
        context.open()
    except DaemonError as error:
        raise Fatal(f"cannot become a daemon: {error}") from error
    return Starter(writer)
