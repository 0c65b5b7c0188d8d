"""What a server is called: a host and a port, or the path of a socket in the file system."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgd.wire.text import escape

if TYPE_CHECKING:
    from msgd.client.tls import Tls

PORT = 6743
LONGEST = 1e6  # seconds; what does not fit poll(2)'s 31 bits of milliseconds overflows

_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_PATH_BYTES = 107  # of sockaddr_un, without its NUL


class Server(NamedTuple):
    """One server; an absolute path as host is a Unix-domain socket."""

    host: str
    port: int

    @property
    def is_socket(self) -> bool:
        return self.host.startswith("/")

    def __str__(self) -> str:
        """``host:port``, ``[host]:port`` for IPv6, or the path, fit for a terminal."""
        if self.is_socket:
            return safe(self.host)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return safe(f"{host}:{self.port}")


def servers(host: str | Sequence[str], port: int) -> list[Server]:
    """The servers that are meant; raises ValueError and TypeError where none can be."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port is a number, not {port!r}")
    if not 1 <= port <= 65535:
        raise ValueError(f"there is no port {port}: they are 1 to 65535")
    if not isinstance(host, Iterable):
        raise TypeError(f"host is text, or several of them, not {host!r}")
    hosts = [host] if isinstance(host, str) else list(host)
    if not hosts:
        raise ValueError("no host is given")
    return [_server(one, port) for one in hosts]


def _server(host: str, port: int) -> Server:
    found, own = parsed(host)
    return Server(found, own or port)


def parsed(host: str) -> tuple[str, int | None]:
    """A host, and the port that may stand with it; an absolute path is a socket.

    The forms: ``name``, ``address``, ``host:port``, ``[address]``, ``[address]:port``. Raises
    ValueError and TypeError for what is none.
    """
    if not isinstance(host, str):
        raise TypeError(f"host is text, not {host!r}")
    if "\0" in host:  # the system would take what is before it
        raise ValueError(f"no host is called {host!r}")
    if host.startswith("/"):
        if len(os.fsencode(host)) > _PATH_BYTES:
            raise ValueError(f"no socket has such a long path: {host!r}")
        return host, None
    if host.count(":") > 1 and not host.startswith("["):  # an IPv6 address as it is
        return host, None
    name, colon, digits = host.partition(":")
    if host.startswith("["):
        name, bracket, behind = host[1:].partition("]")
        colon, digits = behind[:1], behind[1:]
        name = name if bracket and colon in ("", ":") else ""
    if not name or any(char.isspace() or char in "[]" for char in name):
        raise ValueError(f"no host is called {host!r}")
    if colon and not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"no host is called {host!r}")
    if colon and not 1 <= int(digits[:9]) <= 65535:
        raise ValueError(f"there is no port {digits}: they are 1 to 65535")
    return name, int(digits) if colon else None


def checked_seconds(name: str, value: float) -> float:
    """A time that can be waited for, at most `LONGEST`; raises ValueError and TypeError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {value!r}")
    if not 0 < value <= LONGEST:  # which nan is not
        raise ValueError(f"{name} is above 0 and up to {LONGEST:.0f} seconds, not {value!r}")
    return value


def checked_session(session: str) -> str:
    """The name of a session; raises ValueError and TypeError for what is none."""
    if not isinstance(session, str):
        raise TypeError(f"session is text, not {session!r}")
    if not _SESSION.fullmatch(session):
        raise ValueError(
            f"no session is called {session!r}: 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter"
            " or digit"
        )
    return session


def safe(text: str | bytes) -> str:
    """The text as a terminal may have it, wherever it comes from."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")
    return escape(data).decode().replace("\n", "\\x0a")


def checked_tls(tls: Tls | bool | None, choice: list[Server]) -> Tls | None:
    """What is meant by the parameter `tls`; raises ValueError and TypeError."""
    if tls is None or tls is False:
        return None
    from msgd.client.tls import Tls

    if tls is not True and not isinstance(tls, Tls):
        raise TypeError(f"tls is True, False or a Tls, not {tls!r}")
    for server in choice:
        if server.is_socket:
            raise ValueError(f"TLS is for hosts; {server} is a socket of this machine")
    return Tls() if tls is True else tls
