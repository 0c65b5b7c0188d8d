"""Clients from which the loop wants nothing for now: whether they are still there."""

from __future__ import annotations

from collections.abc import Callable
from select import EPOLLERR, EPOLLHUP, EPOLLONESHOT, EPOLLRDHUP, epoll
from selectors import EVENT_READ, BaseSelector
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msgd.server.connection import Connection

_GONE = EPOLLHUP | EPOLLERR  # a reset, or both sides are closed


class HangUps:
    """An epoll inside the loop's own, which watches for the end of a stream and nothing else.

    The loop's selector would report a stream that is closed on one side over and over; here
    each client is reported once for that, and once when it is gone (epoll_ctl(2), EPOLLONESHOT).
    """

    def __init__(self, selector: BaseSelector, tell: Callable[[Connection, bool], None]) -> None:
        """``tell`` hears which client has closed its side, and whether it is gone altogether."""
        self._epoll = epoll()
        self._watched: dict[int, Connection] = {}
        self._tell = tell
        selector.register(self._epoll, EVENT_READ, self._look)

    def watch(self, peer: Connection) -> None:
        descriptor = peer.socket.fileno()
        self._epoll.register(descriptor, EPOLLRDHUP | EPOLLONESHOT)
        self._watched[descriptor] = peer

    def forget(self, peer: Connection) -> None:
        """To be called before its descriptor is closed, and where it is not watched, too."""
        descriptor = peer.socket.fileno()
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        self._epoll.close()

    def _look(self) -> None:
        for descriptor, events in self._epoll.poll(0):
            gone = bool(events & _GONE)
            if not gone:  # from now on only its end is news, of which epoll always tells
                self._epoll.modify(descriptor, EPOLLONESHOT)
            self._tell(self._watched[descriptor], gone)
