"""The forms that -H takes: where a server can be."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

FORMS = "a name, an address, HOST:PORT, [ADDRESS]:PORT, or the absolute path of a socket"


class Place(NamedTuple):
    """A host, or the path of a socket; without a port the usual one is meant."""

    host: str
    port: int | None = None

    @property
    def is_socket(self) -> bool:
        return os.path.isabs(self.host)


def places(text: str) -> tuple[Place, ...]:
    """One place, or several with commas between them. Raises ValueError with its words."""
    return tuple(_place(part.strip()) for part in text.split(","))


def _place(text: str) -> Place:
    if os.path.isabs(text):
        return Place(text)
    if text.count(":") > 1 and not text.startswith("["):  # an IPv6 address as it is
        return Place(text)
    found = re.fullmatch(r"(?:\[([^][]+)\]|([^][:/\s]+))(?::([0-9]{1,5}))?", text)
    if not found:
        raise ValueError(f"must be {FORMS}, not {text!r}")
    port = None if found[3] is None else int(found[3])
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"must have a port from 1 to 65535, not {text!r}")
    return Place(found[1] or found[2], port)
