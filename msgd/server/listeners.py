"""The listening sockets: bind, accept, and who may come in."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from selectors import EVENT_READ, BaseSelector
from typing import TYPE_CHECKING

from msgd.errors import Fatal
from msgd.server import addresses
from msgd.server.addresses import Origin, endpoint
from msgd.server.timers import Alarm

if TYPE_CHECKING:
    from msgd.config.options import Config

log = logging.getLogger("msgd")

ACCEPTS_A_TURN = 64  # so that a flood of connections does not hold up those that are there
PAUSE_SECONDS = 0.5
_BACKLOG = 4096
# What accept(2) says of a connection that is gone again, or that a firewall forbids.
_GONE = (
    errno.ECONNABORTED,
    errno.EPERM,
    errno.ENETDOWN,
    errno.EPROTO,
    errno.ENOPROTOOPT,
    errno.EHOSTDOWN,
    errno.ENONET,
    errno.EHOSTUNREACH,
    errno.EOPNOTSUPP,
    errno.ENETUNREACH,
)
_MISSING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def bind(config: Config) -> list[socket.socket]:
    """Listen on every configured address and path; raises `Fatal`.

    With port 0 the first address takes any free port, and the others the same one.
    """
    sockets: list[socket.socket] = []
    port = config.port
    for address in config.listen:
        is_path = address.startswith("/")
        try:
            sock = LocalSocket(address) if is_path else _listen(address, port)
        except OSError as error:
            words = _words(address, error)
            lacks_ipv6 = ":" in address and error.errno in _MISSING
            if config.listen_is_default and (is_path or lacks_ipv6):
                log.warning("%s: %s; not listening there", address, words)
                continue
            for other in sockets:
                other.close()
            where = address if is_path else endpoint(address, port)
            raise Fatal(f"cannot listen on {where}: {words}") from error
        sockets.append(sock)
        port = port if is_path else sock.getsockname()[1]
    return sockets


def _words(address: str, error: OSError) -> str:
    hints = {
        errno.EADDRINUSE: "something else listens there: choose another port",
        errno.EACCES: "ports below 1024 need root or a socket unit",
        errno.EADDRNOTAVAIL: "this machine does not have the address",
    }
    if address.startswith("/"):
        hints = {
            errno.EADDRINUSE: "a daemon listens there already",
            errno.EEXIST: "what stands there is not a socket that msgd has left behind",
            errno.ENOENT: "the directory must be there",
            errno.EACCES: "the directory must be open to msgd for writing",
        }
    hint = hints.get(error.errno or 0)
    return os.strerror(error.errno or 0) + (f" ({hint})" if hint else "")


def name_of(sock: socket.socket) -> str:
    """Where a socket listens: ``address:port``, or a path."""
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX:
        return endpoint(*name[:2])
    return name if isinstance(name, str) else "@" + os.fsdecode(name[1:])


class LocalSocket(socket.socket):
    """A listening socket in the file system; its file goes when it is closed."""

    def __init__(self, path: str) -> None:
        """Raises OSError. Who may connect is for the directory to say: the mode is 0666."""
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path, self._file = path, None
        try:
            self.setblocking(False)
            _remove_stale(path)
            umask = os.umask(0o111)
            try:
                self.bind(path)
            finally:
                os.umask(umask)
            self._file = os.lstat(path)
            self.listen(_BACKLOG)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        with suppress(OSError):
            if self._file is not None and os.path.samestat(self._file, os.lstat(self._path)):
                os.unlink(self._path)
        self._file = None
        super().close()


def _remove_stale(path: str) -> None:
    """Make room where a daemon has died. Raises OSError where anything else stands there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its backlog is full
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


class Listeners:
    """Accepts; while the process has no descriptors left it waits, it does not spin."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        alarm: Alarm,
        admit: Callable[[socket.socket, Origin], None],
    ) -> None:
        """``admit`` takes each connection."""
        self.sockets = list(sockets)
        self._alarm = alarm
        self._admit = admit
        self._selector: BaseSelector | None = None
        self._paused_until = inf  # while it is finite, the listeners are not watched
        self._short_of: str | None = None  # why, until accepting works again

    def watch(self, selector: BaseSelector) -> None:
        self._selector = selector
        for sock in self.sockets:
            selector.register(sock, EVENT_READ, partial(self._accept, sock))

    def close(self) -> None:
        """Stop listening; who has connected by now is let in before."""
        self._unwatch()
        for sock in self.sockets:
            with suppress(OSError):  # there may be no descriptors for all of them
                self._admit_some(sock, _BACKLOG)
            sock.close()
        self.sockets = []

    def filenos(self) -> list[int]:
        return [sock.fileno() for sock in self.sockets]

    def next(self) -> float:
        """When `step` is to be called."""
        return self._paused_until

    def step(self, now: float) -> None:
        """Watch again after a pause."""
        if now >= self._paused_until and self._selector is not None:
            self._paused_until = inf
            try:
                self.watch(self._selector)
            except OSError as error:  # as in Clients._watch
                self._pause(error)

    def _accept(self, listener: socket.socket) -> None:
        if listener not in self.sockets:  # closed in this very turn
            return
        try:
            if self._admit_some(listener, ACCEPTS_A_TURN):
                self._all_are_in()
        except OSError as error:
            self._pause(error)  # no descriptors, no memory; and nothing else may spin either

    def _admit_some(self, listener: socket.socket, most: int) -> bool:
        """Let in up to ``most`` of those who wait; whether nobody waits now. Raises OSError."""
        for _ in range(most):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno in _GONE:
                    continue
                raise
            sock.setblocking(False)
            if listener.family == socket.AF_UNIX:
                self._admit(sock, addresses.unix(sock))
            else:
                self._admit(sock, addresses.tcp(address[0], address[1]))
        return False

    def _all_are_in(self) -> None:
        """Nobody waits any more: that is the news, not that one of those who wait is let in."""
        if self._short_of:
            log.warning("accepting connections again")
            self._short_of = None

    def _pause(self, error: OSError) -> None:
        """The connections wait in the backlog meanwhile, and those that are there go on."""
        if not self._short_of:
            self._short_of = os.strerror(error.errno or 0)
            log.error("cannot accept connections: %s; new clients wait", self._short_of)
        if self._paused_until == inf:
            self._unwatch()
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            self._alarm.at(self._paused_until)

    def _unwatch(self) -> None:
        if self._selector is not None and self._paused_until == inf:
            for sock in self.sockets:
                with suppress(KeyError):  # perhaps not all of them could be watched
                    self._selector.unregister(sock)
        self._paused_until = inf
