"""What begins TLS, for crowds that do nothing but begin."""

from __future__ import annotations

import ssl
from contextlib import suppress


def client_hello() -> bytes:
    """A ClientHello as Python's own client sends it."""
    out = ssl.MemoryBIO()
    session = ssl.create_default_context().wrap_bio(
        ssl.MemoryBIO(), out, server_hostname="localhost"
    )
    with suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return out.read()
