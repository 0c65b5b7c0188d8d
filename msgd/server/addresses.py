"""Addresses: how they are written, and which of them count as one."""

from __future__ import annotations

import socket


def endpoint(host: str, port: int) -> str:
    """``address:port``, or ``[address]:port`` for IPv6 (RFC 3986, section 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def unmapped(host: str) -> str:
    """The IPv4 address where an IPv6 socket shows it as mapped (RFC 4291, section 2.5.5.2)."""
    return host.removeprefix("::ffff:") if "." in host else host


def neighbourhood(address: str) -> str:
    """An IPv6 host has a whole /64 to itself (RFC 4291, section 2.5.4): that counts as one."""
    if ":" not in address:
        return address
    return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])[:8].hex()
