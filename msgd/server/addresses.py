"""Where clients come from: how that is written, and what counts as one."""

from __future__ import annotations

import re
import socket
import struct
from typing import NamedTuple

_ODD = re.compile(r"[^A-Za-z0-9._-]", re.ASCII)


class Origin(NamedTuple):
    """Where a client comes from, and who it has proved to be."""

    text: str  # as it stands in the records: address:port, unix:PID, then @name
    host: str  # the address; "" for a Unix-domain socket
    place: str  # what counts as one for limits.clients_per_address: an address, an IPv6 /64, a user
    network: str  # what counts as one for the password guard: a /24, a /64, the loopback, a user
    name: str = ""  # proved by a certificate or by the kernel; the owner of its sessions

    def named(self, name: str) -> Origin:
        """The same, once the client has proved this name: odd characters become ``_``."""
        name = safe_name(name)
        return self._replace(text=f"{self.text}@{name}", name=name)


def tcp(host: str, port: int) -> Origin:
    """The origin of a connection over TCP; of an IPv4-mapped address as IPv4."""
    host = unmapped(host)
    return Origin(endpoint(host, port), host, place(host), network(host))


def unix(sock: socket.socket) -> Origin:
    """The origin of a connection over a Unix-domain socket, by SO_PEERCRED (unix(7))."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    user = f"user {uid}"
    return Origin(f"unix:{pid}", "", user, user).named(_user_name(uid))


def _user_name(uid: int) -> str:
    import pwd  # only for those who use such a socket

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return str(uid)


def safe_name(name: str) -> str:
    """A name as it may stand in an origin: every other character than A-Za-z0-9._- is ``_``."""
    return _ODD.sub("_", name)


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
        return "loopback" if host == "::1" else place(host)
    return "loopback" if host.startswith("127.") else host.rpartition(".")[0] + ".0/24"


neighbourhood = network  # until the guard asks for networks
