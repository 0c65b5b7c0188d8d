"""The kinds of value that a configuration key can have: how one is read, what is allowed, how it
is shown.

A parser takes the text of one scalar, as it was typed, and raises ValueError with the words that
come behind the key's name.
"""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Callable
from typing import NamedTuple

from msgd.password import check_hash

_MAPPED = bytes(10) + b"\xff\xff"  # an IPv4 address as IPv6: RFC 4291, section 2.5.5.2
_SOCKET_PATH = 107  # bytes: unix(7)
_BARE = r"[\w./-]*[A-Za-z/][\w./-]*"  # YAML text that needs no quotes


class KeepFree(NamedTuple):
    """What stays free of a file system: bytes, or a part of all."""

    bytes: int = 0
    percent: float = 0.0

    def of(self, size: int) -> int:
        """How many bytes that is on a file system of ``size`` bytes."""
        return self.bytes or int(size * self.percent / 100)

    def __str__(self) -> str:
        return f"{self.percent:.15g}%" if self.percent else str(self.bytes)


class Network(NamedTuple):
    """A network of IPv4 or IPv6, which the length of ``first`` tells."""

    first: bytes
    length: int  # bits of the prefix

    def __str__(self) -> str:
        family = socket.AF_INET if len(self.first) == 4 else socket.AF_INET6
        return f"{socket.inet_ntop(family, self.first)}/{self.length}"


class Kind(NamedTuple):
    """One kind of value."""

    allowed: str  # completes "must be …"
    parse: Callable[[str], object]
    number: bool = False  # a number in quotes is a text, and so an error
    many: bool = False  # one value, or a list of them; the option's value is a tuple

    def wrong(self, found: str) -> str:
        """The words for a value that is not of this kind."""
        return f"must be {self.allowed}, not {found}"


def show(value: object) -> str:
    """A value as YAML, in one line without control characters."""
    if value is None:
        return "none"
    if isinstance(value, KeepFree):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_quote(str(item)) for item in value) + "]"
    if isinstance(value, float):
        return f"{value:.15g}"
    text = str(value)
    if isinstance(value, int) or re.fullmatch(_BARE, text, re.ASCII):
        return text
    return _quote(text)


def whole(low: int, high: int) -> Kind:
    """An integer in plain decimal digits: what YAML 1.1 reads as octal or base 60 is refused."""

    def parse(text: str) -> int:
        # Short enough for int() before int() sees it: it refuses 4,301 digits in words of its own.
        if re.fullmatch(r"0|[1-9][0-9]{,18}", text) and low <= int(text) <= high:
            return int(text)
        raise ValueError(kind.wrong(_found(text)))

    kind = Kind(f"a whole number from {low} to {high}", parse, number=True)
    return kind


def number(high: int, *, above_zero: bool = False) -> Kind:
    """A finite number, with or without decimals, up to high."""

    def parse(text: str) -> float:
        if re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text):
            value = float(text)
            if math.isfinite(value) and value <= high and (value > 0 or not above_zero):
                return value
        raise ValueError(kind.wrong(_found(text)))

    low = "above 0, at most" if above_zero else "from 0 to"
    kind = Kind(f"a number {low} {high}", parse, number=True)
    return kind


def choice(*words: str, no: str = "", yes: str = "") -> Kind:
    """One of these words; ``no`` and ``yes``: which one YAML's other words for them mean."""

    def parse(text: str) -> str:
        word = text.lower()
        if no and word in ("no", "off", "false"):
            word = no
        elif yes and word in ("yes", "on", "true"):
            word = yes
        if word in words:
            return word
        raise ValueError(kind.wrong(_found(text)))

    kind = Kind(" or ".join(filter(None, (", ".join(words[:-1]), words[-1]))), parse)
    return kind


def _found(text: str) -> str:
    """What was found, short."""
    return _quote(text if len(text) <= 60 else text[:60] + "…")


def _quote(text: str) -> str:
    """A text in quotes that YAML reads, harmless to a terminal."""
    import json  # only errors and --check need it, and every start would pay for it

    return json.dumps(text, ensure_ascii=not text.isprintable())


def _path(text: str) -> str:
    if not os.path.isabs(text) or not text.isprintable():
        raise ValueError(PATH.wrong(_found(text)))
    return os.path.normpath(text)


def _file(text: str) -> str | None:
    """A path, or the word none: so a key that was left empty by mistake is an error."""
    if text == "none":
        return None
    try:
        return _path(text)
    except ValueError:
        raise ValueError(FILE.wrong(_found(text))) from None


def _listen(text: str) -> str:
    """An address, or the path of a socket in the file system."""
    if not text.startswith("/"):
        return _address(text)
    path = _path(text)
    if len(os.fsencode(path)) > _SOCKET_PATH:
        raise ValueError(f"the path of a socket has up to {_SOCKET_PATH} bytes")
    return path


def _address(text: str) -> str:
    """An IPv4 or IPv6 address in its usual spelling; a link-local one may have its %interface."""
    address, percent, zone = text.partition("%")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            usual = socket.inet_ntop(family, socket.inet_pton(family, address))
        except (OSError, ValueError):  # ValueError: a NUL inside
            continue
        if not percent:
            return usual
        if family == socket.AF_INET6 and re.fullmatch(r"[\w.@-]{1,15}", zone, re.ASCII):
            return f"{usual}%{zone}"
    raise ValueError(ADDRESSES.wrong(_found(text)))


def _network(text: str) -> Network:
    """A network that a client can be in. Made for tens of thousands of them."""
    address, slash, length = text.partition("/")
    try:
        first = socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, address)
        most = 8 * len(first)
        if slash and not (length.isascii() and length.isdigit() and int(length) <= most):
            raise ValueError
    except (OSError, ValueError):
        raise ValueError(NETWORKS.wrong(_found(text))) from None
    network = Network(first, int(length) if slash else most)
    if first.startswith(_MAPPED) and network.length >= 96:
        meant = Network(first[12:], network.length - 96)
        raise ValueError(f"{_found(text)} never matches; did you mean {meant}?")
    number, behind = int.from_bytes(first, "big"), most - network.length
    if number >> behind << behind != number:
        base = Network((number >> behind << behind).to_bytes(most // 8, "big"), network.length)
        raise ValueError(f"{_found(text)} has bits set behind its prefix; did you mean {base}?")
    nobody = network.length == most and not any(first)
    if nobody or first[0] == 0xFF or (most == 32 and 224 <= first[0] < 240):
        hint = f"; did you mean {address}/0?" if nobody else ""
        raise ValueError(f"{_found(text)} never matches: no client has such an address{hint}")
    return network


def _keep_free(text: str) -> KeepFree:
    if re.fullmatch(r"0|[1-9][0-9]{,17}", text):
        return KeepFree(bytes=int(text))
    if re.fullmatch(r"[0-9]{1,2}(\.[0-9]{1,3})?%", text):
        return KeepFree(percent=float(text[:-1]))
    raise ValueError(KEEP_FREE.wrong(_found(text)))


def _name(text: str) -> str:
    """A client's name as it stands in an origin."""
    if re.fullmatch(r"[A-Za-z0-9._-]+", text):
        return text
    raise ValueError(NAMES.wrong(_found(text)))


def _password_hash(text: str) -> str | None:
    if text == "none":
        return None
    check_hash(text)
    return text


PATH = Kind("an absolute path", _path)
FILE = Kind("an absolute path, or none", _file)
ADDRESSES = Kind(
    "a numeric IPv4 or IPv6 address (no host name), an absolute path, or a list",
    _listen,
    many=True,
)
NETWORKS = Kind("a network such as 10.0.0.0/8 or fd00::/8, or a list", _network, many=True)
NAMES = Kind("a name of letters, digits and . _ -, or a list", _name, many=True)
KEEP_FREE = Kind("bytes, or a percentage below 100%, such as 1073741824 or 1%", _keep_free)
PASSWORD_HASH = Kind("a string from msgd hash-password", _password_hash)
