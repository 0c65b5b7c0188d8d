"""Where clients come from: how that is written, and what counts as one."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from msgd.config.values import Network

_ODD = r"[^A-Za-z0-9._-]"


class Origin(NamedTuple):
    """Where a client comes from, and who it has proved to be."""

    text: str  # as it stands in the records: address:port, unix:PID, then @name
    host: str  # the address; "" for a Unix-domain socket
    place: str  # what counts as one for limits.clients_per_address: an address, an IPv6 /64, a user
    network: str  # what counts as one for the password guard: a /24, a /64, 127.0.0.0/8, a name
    name: str = ""  # proved by a certificate or by the kernel; the owner of its sessions

    def named(self, name: str) -> Origin:
        """The same, once the client has proved this name: odd characters become ``_``."""
        name = safe_name(name)
        network = f"name {name}" if self.host else self.network
        return self._replace(text=f"{self.text}@{name}", name=name, network=network)


def tcp(host: str, port: int) -> Origin:
    """The origin of a connection over TCP; of an IPv4-mapped address as IPv4."""
    host = unmapped(host)
    return Origin(endpoint(host, port), host, place(host), network(host))


def unix(sock: socket.socket) -> Origin:
    """The origin of a connection over a Unix-domain socket, by SO_PEERCRED (unix(7))."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    pid, uid, _ = struct.unpack("iII", credentials)
    name = user_name(uid)
    user = f"user {name}"
    return Origin(f"unix:{pid}", "", user, user).named(name)


def user_name(uid: int, path: str = "/etc/passwd") -> str:
    """The user's name in this file, else the number.

    getpwuid(3) may ask servers for minutes, and everybody would wait. While the file cannot be
    read, as there is no descriptor left, what it held before still holds.
    """
    with suppress(OSError):
        found = os.stat(path)
        version = found.st_mtime_ns, found.st_ino, found.st_size
        if path not in _users or _users[path][0] != version:
            _users[path] = version, _user_names(path)
    return _users[path][1].get(uid, str(uid)) if path in _users else str(uid)


_users: dict[str, tuple[tuple[int, ...], dict[int, str]]] = {}  # by file, as they were read last


def _user_names(path: str) -> dict[int, str]:
    with open(path, "rb") as file:
        lines = re.findall(rb"(?m)^([^:\n]+):[^:\n]*:(\d{1,10}):", file.read())
    # Of several with one number the first counts, as for getpwuid(3).
    return {int(uid): name.decode("utf-8", "replace") for name, uid in reversed(lines)}


def safe_name(name: str) -> str:
    """A name as it may stand in an origin: every other character than A-Za-z0-9._- is ``_``."""
    return re.sub(_ODD, "_", name)


def endpoint(host: str, port: int) -> str:
    """``address:port``, or ``[address]:port`` for IPv6 (RFC 3986, section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def unmapped(host: str) -> str:
    """The IPv4 address where an IPv6 socket shows it as mapped (RFC 4291, section 2.5.5.2)."""
    return host.removeprefix("::ffff:") if "." in host else host


def place(host: str) -> str:
    """An IPv4 address; of IPv6 a host has a whole /64 to itself (RFC 4291, section 2.5.4)."""
    if ":" not in host:
        return host
    prefix = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]
    return socket.inet_ntop(socket.AF_INET6, prefix + bytes(8)) + "/64"


def network(host: str) -> str:
    """The network of an address: who guesses passwords has all of it."""
    if ":" in host:
        return place(host)
    return "127.0.0.0/8" if host.startswith("127.") else host.rpartition(".")[0] + ".0/24"


@lru_cache(maxsize=4096)
def surroundings(network: str) -> tuple[str, str, str, str]:
    """Ever narrower networks around one of `network`: who has many of these is still one."""
    if network.startswith(("user ", "name ")):
        return (network[:4],) * 4
    if ":" in network:
        packed = socket.inet_pton(socket.AF_INET6, network.partition("/")[0])
        return "IPv6", packed[:2].hex(), packed[:4].hex(), packed[:6].hex()
    wide, narrow = network.split(".")[:2]
    return "IPv4", "IPv4", wide, f"{wide}.{narrow}"


class Networks:
    """A set of networks. Whether an address is in one costs a look for each length of prefix."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._first: dict[int, dict[int, set[int]]] = {32: {}, 128: {}}
        for net in networks:
            bits = 8 * len(net.first)
            shift = bits - net.length
            known = self._first[bits].setdefault(shift, set())
            known.add(int.from_bytes(net.first, "big") >> shift)

    def __bool__(self) -> bool:
        return any(self._first.values())

    def __contains__(self, host: str) -> bool:
        """Of an address as `Origin.host` has it."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        packed = socket.inet_pton(family, host.partition("%")[0])
        number = int.from_bytes(packed, "big")
        known = self._first[8 * len(packed)]
        return any(number >> shift in first for shift, first in known.items())
