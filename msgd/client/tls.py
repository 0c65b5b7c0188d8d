"""What a TLS connection is to prove, and with what."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PIN = re.compile(r"sha256:([0-9a-f]{2}:?){31}[0-9a-f]{2}", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Tls:
    """How a server proves who it is, and how this client does; verification is always on.

    `ca` is a PEM file of authorities, else the system's; `certificate` and `key` are this
    client's, PEM files; `pin` is ``sha256:HEX``, the fingerprint of the server's certificate,
    which then counts in place of an authority and a name. Raises ValueError and TypeError for
    what cannot be meant. The files are read anew for each connection.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    pin: str | None = None

    def __post_init__(self) -> None:
        for value in (self.ca, self.certificate, self.key, self.pin):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"a file or a pin is text, not {value!r}")
            if value is not None and (not value or "\0" in value):
                raise ValueError(f"a file or a pin is not {value!r}")
        if self.key and not self.certificate:
            raise ValueError("a key without its certificate proves nothing")
        if self.pin and self.ca:
            raise ValueError("a pin counts in place of an authority: give one of them")
        if self.pin and not _PIN.fullmatch(self.pin):
            raise ValueError(f"a pin is sha256: and 64 hexadecimal digits, not {self.pin!r}")
        if self.pin:
            digits = self.pin.lower().removeprefix("sha256:").replace(":", "")
            object.__setattr__(self, "pin", f"sha256:{digits}")
