"""The PROXY protocol, versions 1 and 2, without I/O: a proxy's header says who its client is.

Written from HAProxy's proxy-protocol.txt. The header comes before all else, also before TLS, and
is read from the networks of `proxy_from` only. Anything malformed closes the connection: what such
a proxy sends must not be taken for a client's own.
"""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

_V1 = b"PROXY "
_V1_LONGEST = 107  # bytes, with its CR LF
_V1_LINE = re.compile(rb"PROXY (TCP4|TCP6) (\S+) (\S+) (\d+) (\d+)")

_V2 = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD = 16  # bytes before the addresses
_LOCAL, _PROXY = 0x20, 0x21  # version and command
# Family and transport -> bytes of both addresses and ports.
_FAMILIES = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
_TCP4, _TCP6 = 0x11, 0x21


class ProxyError(OSError):
    """No PROXY header, or a malformed one: the connection is broken. The text is for the log."""


class Origin(NamedTuple):
    """Where the client is, as the proxy says."""

    host: str  # numeric; "" where the proxy speaks for itself or does not know: a health check
    port: int
    rest: bytes  # what came behind the header


class Proxy:
    """Reads one header; keeps at most that header's bytes."""

    def __init__(self) -> None:
        self._data = b""

    def receive(self, data: bytes) -> Origin | None:
        """Take more bytes; None until the header is there whole. Raises `ProxyError`."""
        self._data += data
        if self._data[: len(_V2)] == _V2[: len(self._data)]:
            return self._version_2()
        if self._data[: len(_V1)] == _V1[: len(self._data)]:
            return self._version_1()
        raise ProxyError("no PROXY header where one was expected")

    def _version_1(self) -> Origin | None:
        end = self._data.find(b"\r\n", 0, _V1_LONGEST)
        if end < 0:
            if len(self._data) >= _V1_LONGEST:
                raise ProxyError("a PROXY line that is too long")
            return None
        line, rest = self._data[:end], self._data[end + 2 :]
        if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
            return Origin("", 0, rest)
        found = _V1_LINE.fullmatch(line)
        if found is None:
            raise ProxyError("a malformed PROXY line")
        family = socket.AF_INET if found[1] == b"TCP4" else socket.AF_INET6
        _address(found[3], family)
        _port(found[5])
        return Origin(_address(found[2], family), _port(found[4]), rest)

    def _version_2(self) -> Origin | None:
        if len(self._data) < _V2_HEAD:
            return None
        command, family = self._data[12], self._data[13]
        size = int.from_bytes(self._data[14:16], "big")
        if command not in (_LOCAL, _PROXY):
            raise ProxyError(f"a PROXY header of unknown version or command {command:#04x}")
        if command == _PROXY and family not in _FAMILIES:
            raise ProxyError(f"a PROXY header of unknown family {family:#04x}")
        if command == _PROXY and size < _FAMILIES[family]:
            raise ProxyError("a PROXY header that is too short for its addresses")
        if len(self._data) < _V2_HEAD + size:
            return None
        body = self._data[_V2_HEAD : _V2_HEAD + size]
        rest = self._data[_V2_HEAD + size :]
        if command == _PROXY and family == _TCP4:
            return Origin(socket.inet_ntop(socket.AF_INET, body[:4]), _number(body[8:10]), rest)
        if command == _PROXY and family == _TCP6:
            return Origin(socket.inet_ntop(socket.AF_INET6, body[:16]), _number(body[32:34]), rest)
        return Origin("", 0, rest)  # the proxy's own, or nothing that a TCP client could be


def _address(text: bytes, family: socket.AddressFamily) -> str:
    """In its usual spelling; inet_pton refuses zeros before a number, as the protocol asks."""
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text.decode("ascii")))
    except (OSError, ValueError):
        raise ProxyError("a PROXY line with a malformed address") from None


def _port(text: bytes) -> int:
    if len(text) > 5 or (text[:1] == b"0" and text != b"0") or int(text) > 65535:
        raise ProxyError("a PROXY line with a malformed port")
    return int(text)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
