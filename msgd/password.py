"""Passwords: hash and verify.

A hash is a string in the PHC form ``$scrypt$ln=15,r=8,p=1$salt$hash``, with base64 without
padding. scrypt (RFC 7914) is slow on purpose.
"""

from __future__ import annotations

import base64
import os
import re
from typing import NamedTuple

# Not compiled before it is needed, which is a millisecond of each start.
_FORM = r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
_LN, _R, _P = 15, 8, 1  # 32 MiB and about 0.1 s
_SALT_BYTES, _HASH_BYTES = 16, 32
# The hash of no password that anybody could find: to verify against it takes the usual time.
NOBODY = f"$scrypt$ln={_LN},r={_R},p={_P}${'A' * 22}${'A' * 43}"
_MOST_MEMORY = 128 << 20  # bytes that a configured hash may ask for
_MOST_PARALLEL = 16


class _Hash(NamedTuple):
    ln: int
    r: int
    p: int
    salt: bytes
    hash: bytes

    def compute(self, password: bytes) -> bytes:
        import hashlib  # 3 MB of OpenSSL, which only the process that needs it loads

        memory = 128 * self.r * ((1 << self.ln) + self.p + 2)  # RFC 7914, section 5 and 6
        return hashlib.scrypt(
            password,
            salt=self.salt,
            n=1 << self.ln,
            r=self.r,
            p=self.p,
            maxmem=memory + (1 << 20),
            dklen=len(self.hash),
        )


def _parse(text: str) -> _Hash:
    found = re.fullmatch(_FORM, text, re.ASCII)
    if found is None:
        raise ValueError("not a hash as `msgd hash-password` prints it")
    ln, r, p = (int(number) for number in found.group(1, 2, 3))
    if not (
        1 <= ln <= 20 and r >= 1 and 128 * r << ln <= _MOST_MEMORY and 1 <= p <= _MOST_PARALLEL
    ):
        raise ValueError("asks for too much: at most 128 MiB (128 * r * 2^ln bytes) and p=16")
    try:
        salt, digest = map(_decode, found.group(4, 5))
    except ValueError:
        raise ValueError("salt or hash is not base64") from None
    if not (8 <= len(salt) <= 64 and 16 <= len(digest) <= 64):
        raise ValueError("salt or hash has the wrong length")
    return _Hash(ln, r, p, salt, digest)


def _decode(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4))


def check_hash(text: str) -> None:
    """Raises ValueError, in words for the administrator, for what `verify` cannot use."""
    _parse(text)


def hash_password(password: bytes) -> str:
    """The string for ``password_hash`` in the configuration, with a new salt each time."""
    empty = _Hash(_LN, _R, _P, os.urandom(_SALT_BYTES), bytes(_HASH_BYTES))
    salt, digest = (
        base64.b64encode(part).decode().rstrip("=")
        for part in (empty.salt, empty.compute(password))
    )
    return f"$scrypt$ln={_LN},r={_R},p={_P}${salt}${digest}"


def verify(password: bytes, text: str) -> bool:
    """Whether the password has this hash; takes as long for a wrong one as for a right one."""
    import hmac

    stored = _parse(text)
    return hmac.compare_digest(stored.compute(password), stored.hash)
