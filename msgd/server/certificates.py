"""The server's certificate and key, and the authority of its clients."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from msgd.config.options import Tls


def context(tls: Tls) -> ssl.SSLContext:
    """The context for accepting connections, of the files that are configured."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(str(tls.certificate), tls.key)
    made.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if tls.client_ca:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(tls.client_ca)
    return made


def client_name(session: ssl.SSLObject) -> str:
    """The name that the client has proved; "" where it need not prove one."""
    certificate = cast("dict[str, Any]", session.getpeercert() or {})
    for kind, name in certificate.get("subjectAltName", ()):
        if kind == "DNS":
            return str(name)
    for part in certificate.get("subject", ()):
        for kind, name in part:
            if kind == "commonName":
                return str(name)
    return ""
