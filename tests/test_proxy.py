"""The PROXY protocol: each case of its specification, however the bytes come in."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgd.server.proxy import Origin, Proxy, ProxyError

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
TCP4 = bytes([10, 1, 2, 3, 10, 9, 9, 9]) + (40312).to_bytes(2, "big") + (6743).to_bytes(2, "big")
TCP6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + b"\x00\x05\x1a\x57"
LONGEST = (
    b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
    b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
)


def v2(command: int, family: int, body: bytes, size: int | None = None) -> bytes:
    size = len(body) if size is None else size
    return SIGNATURE + bytes([command, family]) + size.to_bytes(2, "big") + body


def read(data: bytes) -> Origin | None:
    """What comes of it, whole and byte by byte, which must be the same."""
    whole = Proxy().receive(data)
    proxy, found = Proxy(), None
    for at in range(len(data)):
        found = proxy.receive(data[at : at + 1])
        if found is not None:
            assert whole == found._replace(rest=found.rest + data[at + 1 :])
            break
    assert (found is None) == (whole is None)
    return whole


@pytest.mark.parametrize(
    ("header", "host", "port"),
    [
        (b"PROXY TCP4 10.1.2.3 10.9.9.9 40312 6743\r\n", "10.1.2.3", 40312),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255", 65535),
        (b"PROXY TCP4 0.0.0.0 10.9.9.9 0 6743\r\n", "0.0.0.0", 0),
        (b"PROXY TCP6 2001:DB8:0:0::7 ::1 5 6743\r\n", "2001:db8::7", 5),
        (b"PROXY TCP6 ::ffff:10.1.2.3 ::1 5 6743\r\n", "::ffff:10.1.2.3", 5),
        (b"PROXY UNKNOWN\r\n", "", 0),
        (LONGEST, "", 0),
        (v2(0x21, 0x11, TCP4), "10.1.2.3", 40312),
        (v2(0x21, 0x21, TCP6), "2001:db8::7", 5),
        (v2(0x21, 0x11, TCP4 + b"\x20\x00\x05\x01\0\0\0\0"), "10.1.2.3", 40312),  # a TLV
        (v2(0x21, 0x11, TCP4 + bytes(65535 - 12)), "10.1.2.3", 40312),
        (v2(0x20, 0x00, b""), "", 0),  # LOCAL: a health check
        (v2(0x20, 0x11, TCP4), "", 0),
        (v2(0x20, 0x77, b"whatever"), "", 0),
        (v2(0x21, 0x00, b"ignored"), "", 0),
        (v2(0x21, 0x12, TCP4), "", 0),
        (v2(0x21, 0x22, TCP6), "", 0),
        (v2(0x21, 0x31, bytes(216)), "", 0),
        (v2(0x21, 0x32, bytes(216)), "", 0),
    ],
)
def test_well_formed(header: bytes, host: str, port: int) -> None:
    for rest in (b"", b"PING\nMESG x\n", b"\x16\x03\x01"):
        assert Proxy().receive(header + rest) == Origin(host, port, rest)
    if len(header) < 1000:
        assert read(header) == Origin(host, port, b"")
        for at in range(len(header)):
            assert Proxy().receive(header[:at]) is None


@pytest.mark.parametrize(
    "header",
    [
        b"PING\n",
        b"\x16\x03\x01",
        b"GET / HTTP/1.0\r\n",
        b"proxy TCP4 10.1.2.3 10.9.9.9 40312 6743\r\n",
        b"PROXY\r\n",
        b"PROXY TCP5 10.1.2.3 10.9.9.9 40312 6743\r\n",
        b"PROXY TCP4  10.1.2.3 10.9.9.9 40312 6743\r\n",
        b"PROXY TCP4 10.1.2.3 10.9.9.9 40312\r\n",
        b"PROXY TCP4 10.1.2.3 10.9.9.9 40312 6743 \r\n",
        b"PROXY TCP4 10.1.2.3 10.9.9.9 40312 6743 1\r\n",
        b"PROXY TCP4 10.1.2 10.9.9.9 40312 6743\r\n",
        b"PROXY TCP4 10.1.2.256 10.9.9.9 40312 6743\r\n",
        b"PROXY TCP4 10.1.2.03 10.9.9.9 40312 6743\r\n",
        b"PROXY TCP4 10.1.2.3 nowhere 40312 6743\r\n",
        b"PROXY TCP4 ::1 ::1 40312 6743\r\n",
        b"PROXY TCP6 10.1.2.3 10.9.9.9 40312 6743\r\n",
        b"PROXY TCP6 ::1%eth0 ::1 40312 6743\r\n",
        b"PROXY TCP4 10.1.2.3 10.9.9.9 65536 6743\r\n",
        b"PROXY TCP4 10.1.2.3 10.9.9.9 40312 99999999999\r\n",
        b"PROXY TCP4 10.1.2.3 10.9.9.9 040 6743\r\n",
        b"PROXY TCP4 10.1.2.3 10.9.9.9 +4 6743\r\n",
        b"PROXY TCP4 10.1.2.3 10.9.9.9 \xd9\xa1 6743\r\n",
        b"PROXY UNKNOWNx\r\n",
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",  # one more than 107
        b"PROXY TCP4 10.1.2.3 10.9.9.9 40312 6743\n" + b" " * 100,
        v2(0x11, 0x11, TCP4),  # version 1
        v2(0x22, 0x11, TCP4),  # an unknown command
        v2(0x21, 0x13, TCP4),
        v2(0x21, 0x41, TCP4),
        v2(0x21, 0x11, TCP4[:-1]),
        v2(0x21, 0x21, TCP6[:-1]),
        v2(0x21, 0x31, bytes(215)),
        SIGNATURE[:-1] + b"\x0b",
    ],
)
def test_malformed(header: bytes) -> None:
    with pytest.raises(ProxyError):
        Proxy().receive(header)
    with pytest.raises(ProxyError):
        read(header)


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE]))
def test_whatever_comes(data: bytes, begin: bytes) -> None:
    """Nothing but a header's end, more to come, or `ProxyError`; and no byte is lost."""
    proxy = Proxy()
    try:
        found = proxy.receive(begin + data)
    except ProxyError:
        return
    if found is not None:
        assert (begin + data).endswith(found.rest)
    else:
        assert len(begin + data) < 16 + 65535
