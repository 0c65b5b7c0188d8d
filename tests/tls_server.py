"""Scripted servers inside TLS, for the tests of the client."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from tests.lab.certificates import Certificate
from tests.scripted import Part


def echoes(connection: socket.socket) -> None:
    if not connection.recv(5):
        return  # it was only a look
    connection.sendall(b"PONG\n")
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def over_tls(
    certificate: Certificate, part: Part = echoes, clients: Path | None = None, **set_: Any
) -> Part:
    """The part inside TLS; a handshake that fails is the client's to tell."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    for name, value in set_.items():
        setattr(context, name, value)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)

    def wrapped(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as inside:
                inside.settimeout(20)
                part(inside)
                inside.unwrap()
        except (ssl.SSLError, OSError):
            pass

    return wrapped
