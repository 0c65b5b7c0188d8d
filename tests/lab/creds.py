"""A NATS operator with accounts and a user, as JWTs: what a credentials file proves."""

from __future__ import annotations

import base64
import importlib
import json
import os
import time
from typing import Any

_NO_LIMITS = dict.fromkeys(
    ("subs", "data", "payload", "imports", "exports", "conn", "leaf", "mem_storage"), -1
) | dict.fromkeys(("disk_storage", "streams", "consumer"), -1)


def _library() -> Any:
    """Without stubs, and not on every machine."""
    return importlib.import_module("nkeys")


class _Party:
    def __init__(self, prefix: int) -> None:
        nkeys = _library()
        self.seed = nkeys.encode_seed(os.urandom(32), prefix)
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.public = self._pair.public_key.decode()

    def sign(self, subject: str, name: str, nats: dict[str, Any]) -> str:
        """A JWT of this party about that subject."""
        claims = {
            "jti": name,
            "iat": int(time.time()),
            "iss": self.public,
            "sub": subject,
            "name": name,
            "nats": {"version": 2, **nats},
        }
        parts = [_encoded({"typ": "JWT", "alg": "ed25519-nkey"}), _encoded(claims)]
        signature = self._pair.sign(".".join(parts).encode())
        return ".".join([*parts, _base64(signature)])


def _encoded(found: dict[str, Any]) -> str:
    return _base64(json.dumps(found).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def make() -> tuple[str, str, str]:
    """A server's configuration, a credentials file that it takes, and one that it does not."""
    nkeys = _library()
    operator = _Party(nkeys.PREFIX_BYTE_OPERATOR)
    system, account = (_Party(nkeys.PREFIX_BYTE_ACCOUNT) for _ in range(2))
    jwts = {
        party.public: operator.sign(party.public, name, {"type": "account", "limits": limits})
        for party, name, limits in (
            (system, "SYS", {**_NO_LIMITS, "mem_storage": 0, "disk_storage": 0}),
            (account, "MSGD", {**_NO_LIMITS, "wildcards": True}),
        )
    }
    own = operator.sign(
        operator.public, "op", {"type": "operator", "system_account": system.public}
    )
    preload = "".join(f"  {public}: {jwt}\n" for public, jwt in jwts.items())
    config = f"operator: {own}\nresolver: MEMORY\nresolver_preload: {{\n{preload}}}\n"
    return config, _user(account, nkeys), _user(_Party(nkeys.PREFIX_BYTE_ACCOUNT), nkeys)


def _user(account: _Party, nkeys: Any) -> str:
    user = _Party(nkeys.PREFIX_BYTE_USER)
    limits = {"subs": -1, "data": -1, "payload": -1}
    jwt = account.sign(user.public, "web1", {"type": "user", **limits})
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
