"""Connecting: the addresses of a name are tried side by side, as RFC 8305 tells.

So a dead address costs a quarter of a second, and not the time-out. Nothing is imported in here
when it runs: a child that is forked meanwhile would find the import lock taken.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from itertools import chain, zip_longest
from math import ceil
from time import monotonic, sleep
from typing import Any, NamedTuple

from msgd.client.errors import NotConnected
from msgd.client.link import in_seconds
from msgd.client.servers import Server, safe

_DELAY = 0.25  # seconds between two attempts; RFC 8305, section 5
_PAUSE = 0.01  # seconds, while the queue of a Unix-domain socket is full


class _Address(NamedTuple):
    family: int
    sockaddr: Any


def dial(server: Server, timeout: float) -> socket.socket:
    """A connection, which does not block, within `timeout` seconds; raises `NotConnected`."""
    try:
        if server.is_socket:
            return _dial_path(server.host, monotonic() + timeout)
        # The resolver has a time-out of its own, and cannot be given another.
        addresses = _addresses(server)
        connection = _race(addresses, monotonic() + timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    except OSError as error:
        raise NotConnected(_why_not(server, error, timeout)) from None


def _addresses(server: Server) -> list[_Address]:
    """The addresses of a host, its families in turn."""
    host: str | bytes = server.host
    try:
        host = server.host.encode("ascii")  # text would go through Python's idna, and an import
        if any(len(label) > 63 for label in host.split(b".")) or b".." in host or len(host) > 255:
            raise socket.gaierror(socket.EAI_NONAME, "no name looks like this")
    except UnicodeEncodeError:
        pass
    try:
        found = socket.getaddrinfo(host, server.port, type=socket.SOCK_STREAM)
    except UnicodeError:  # no name can look like this one
        raise socket.gaierror(socket.EAI_NONAME, "no name looks like this") from None
    families: dict[int, list[_Address]] = {}
    for family, _, _, _, sockaddr in found:
        families.setdefault(family, []).append(_Address(family, sockaddr))
    turns = chain.from_iterable(zip_longest(*families.values()))
    return [address for address in turns if address is not None]


def _race(addresses: list[_Address], until: float) -> socket.socket:
    """The first connection that comes about; raises the last error, or TimeoutError."""
    waiting, begun = deque(addresses), dict[int, socket.socket]()
    error: OSError = TimeoutError()
    poll = select.poll()
    following = monotonic()  # when the next attempt begins
    try:
        while waiting or begun:
            now = monotonic()
            if waiting and (now >= following or not begun):
                following = now + _DELAY
                try:
                    connection = _attempt(waiting.popleft())
                except OSError as failure:
                    error, following = failure, now
                    continue
                begun[connection.fileno()] = connection
                poll.register(connection, select.POLLOUT)
            patience = min(until, following if waiting else until) - monotonic()
            for fd, _ in poll.poll(max(0, ceil(patience * 1000))):
                poll.unregister(fd)
                connection = begun.pop(fd)
                if not (number := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                    return connection
                connection.close()
                error, following = _os_error(number), now
            if monotonic() >= until:
                raise TimeoutError
        raise error
    finally:
        for connection in begun.values():
            connection.close()


def _attempt(address: _Address) -> socket.socket:
    connection = socket.socket(address.family, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        connection.connect(address.sockaddr)
    except BlockingIOError:
        pass
    except OSError:
        connection.close()
        raise
    return connection


def _os_error(number: int) -> OSError:
    """With the class that belongs to its number."""
    return OSError(number, os.strerror(number))


def _dial_path(path: str, until: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        while True:
            try:
                connection.connect(path)
                return connection
            except BlockingIOError:
                if monotonic() >= until:
                    raise TimeoutError from None
                sleep(_PAUSE)
    except BaseException:
        connection.close()
        raise


def _why_not(server: Server, error: OSError, timeout: float) -> str:
    name = safe(server.host)
    match error:
        case socket.gaierror() if error.errno in (socket.EAI_AGAIN, socket.EAI_SYSTEM):
            return (
                f"the name {name} cannot be looked up now: is the network, or its resolver, down?"
            )
        case socket.gaierror() if error.errno == socket.EAI_NONAME or error.errno == _NO_DATA:
            return f"there is no host called '{name}': check the name"
        case socket.gaierror():
            return f"the name {name} cannot be looked up: {error.strerror}"
        case FileNotFoundError():
            return f"there is no socket {server}: is msgd started, and does it listen there?"
        case ConnectionRefusedError():
            return f"nobody listens at {server}: is msgd started there?"
        case TimeoutError():
            return f"cannot connect to {server}: no answer for {in_seconds(timeout)}"
    return f"cannot connect to {server}: {error.strerror}"


_NO_DATA = getattr(socket, "EAI_NODATA", socket.EAI_NONAME)
