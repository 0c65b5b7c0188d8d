"""The listening sockets: bind, accept, and who may come in."""

from __future__ import annotations

import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from selectors import EVENT_READ, BaseSelector
from typing import TYPE_CHECKING

from msgd.errors import Fatal
from msgd.server.addresses import endpoint, unmapped
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
    """Listen on every configured address; raises `Fatal`.

    With port 0 the first address takes any free port, and the others the same one.
    """
    sockets: list[socket.socket] = []
    port = config.port
    for address in config.listen:
        try:
            sockets.append(_listen(address, port))
        except OSError as error:
            if config.listen_is_default and ":" in address and error.errno in _MISSING:
                log.warning("%s: not on this machine; not listening there", address)
                continue
            for sock in sockets:
                sock.close()
            raise Fatal(f"cannot listen on {endpoint(address, port)}: {_words(error)}") from error
        port = sockets[0].getsockname()[1]
    return sockets


def _words(error: OSError) -> str:
    hints = {
        errno.EADDRINUSE: "something else listens there: choose another port",
        errno.EACCES: "ports below 1024 need root or a socket unit",
        errno.EADDRNOTAVAIL: "this machine does not have the address",
    }
    hint = hints.get(error.errno or 0)
    return os.strerror(error.errno or 0) + (f" ({hint})" if hint else "")


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
        admit: Callable[[socket.socket, str, int], None],
    ) -> None:
        """``admit`` takes each connection with the peer's address and port."""
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
            except OSError as error:  # as in Peers._watch
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
        """Let in so many of those who wait; whether nobody waits any more. Raises OSError."""
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
            self._admit(sock, unmapped(address[0]), address[1])
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
