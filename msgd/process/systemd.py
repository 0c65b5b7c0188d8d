"""What systemd and a service say to each other: readiness, sockets, the watchdog, the journal.

Written from sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3) and systemd.exec(5). Without
systemd, which is: without its environment variables, each function does nothing.
"""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress

from msgd.errors import Fatal

_FIRST_FD = 3  # SD_LISTEN_FDS_START


_untold: dict[str, str] = {}  # what the manager had no room for; of each kind the latest


def notify(*assignments: str) -> None:
    """Tell the service manager, such as ``READY=1``. Never raises: nobody may be listening.

    Nor does it wait: what a manager that does not read has no room for goes out with the next
    notification, and a call without arguments tries no more than that.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    for assignment in assignments:
        kind = assignment.partition("=")[0]
        _untold["" if kind in ("READY", "RELOADING", "STOPPING") else kind] = assignment
    if not _untold:
        return
    address = "\0" + path[1:] if path[0] == "@" else path
    message = "\n".join(_untold.values()).encode("utf-8", "backslashreplace")
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setblocking(False)
        manager.sendto(message, address)
        _untold.clear()


def listen_sockets() -> list[socket.socket]:
    """The sockets that the service manager has opened for this process, not blocking.

    The environment variables are removed, so that no child takes the sockets for its own.
    Raises Fatal where one of them is no listening stream socket.
    """
    pid, count, _ = (
        os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if pid != str(os.getpid()) or not count:
        return []
    if not count.isdecimal() or int(count) > 4096:
        raise Fatal("socket activation: LISTEN_FDS is not a number of sockets")
    return [_adopt(fd) for fd in range(_FIRST_FD, _FIRST_FD + int(count))]


def _adopt(fd: int) -> socket.socket:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise Fatal(f"socket activation: descriptor {fd} is not a socket")
    except OSError as error:
        raise Fatal(f"socket activation: descriptor {fd}: {error.strerror}") from None
    listener = socket.socket(fileno=fd)
    if (
        listener.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        or listener.type != socket.SOCK_STREAM
        or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        listener.detach()  # it stays the manager's, open as it was
        raise Fatal(
            f"socket activation: descriptor {fd} is not a listening stream socket; "
            "the socket unit needs ListenStream=, and Accept=no"
        )
    listener.set_inheritable(False)
    listener.setblocking(False)
    return listener


def watchdog_seconds() -> float | None:
    """The longest time between two ``WATCHDOG=1``, or None where nobody waits for them."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    return int(microseconds) / 1_000_000


def under_journal(fd: int) -> bool:
    """Whether the journal reads what is written to fd: $JOURNAL_STREAM names its file."""
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
