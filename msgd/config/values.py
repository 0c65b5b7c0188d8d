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
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

_BARE = r"[\w./-]*[A-Za-z/][\w./-]*"  # YAML text that needs no quotes


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
        return "null"
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


def choice(*words: str, none: bool = False) -> Kind:
    """One of these words; with none, all that YAML readers know for "no" is the word none."""

    def parse(text: str) -> str:
        word = text.lower()
        if none and word in ("no", "off", "false"):
            word = "none"
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


def _directory(text: str) -> str:
    if not os.path.isabs(text) or not text.isprintable():
        raise ValueError(DIRECTORY.wrong(_found(text)))
    return os.path.normpath(text)


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


def _network(text: str) -> IPv4Network | IPv6Network:
    from ipaddress import ip_network

    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        nearest = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(NETWORKS.wrong(_found(text))) from None
    raise ValueError(f"{_found(text)} has bits set behind its prefix; did you mean {nearest}?")


def _password_hash(text: str) -> str:
    from msgd.password import check_hash

    check_hash(text)
    return text


DIRECTORY = Kind("an absolute path", _directory)
ADDRESSES = Kind("a numeric IPv4 or IPv6 address (no host name), or a list", _address, many=True)
NETWORKS = Kind("a network such as 10.0.0.0/8 or fd00::/8, or a list", _network, many=True)
PASSWORD_HASH = Kind("a string from msgd hash-password", _password_hash)
