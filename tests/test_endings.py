"""One stream of requests by every way to come in, cut in every way, and with every way to end."""

from __future__ import annotations

import fcntl
import signal
import socket
import ssl
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import PASSWORD_HASH, Daemon, Start
from tests.lab.certificates import Authority, Certificate
from tests.lab.waiting import SECONDS, wait_for
from tests.matrix import every_other

# What is sent, and what has to come back for it: written from the protocol's page.
EXCHANGE = f"""
    PING                        PONG
    MESG a                      MESG a
    SESS s                      SESS 0
    MESG b                      MESG b
    MORE b1
    MESG b2                     MORE b1;MESG b2
    SESS s 5                    SESS 2
    MESG c                      MESG c
    TERM wrong                  PWNO
    MESG d                      MESG d
    SESS x y                    FAIL malformed session
    MESG e                      FAIL session interrupted
    PING                        PONG
    SESS s 6                    FAIL number already used
    MESG f                      FAIL session interrupted
    SESS s 7                    SESS 6
    MESG {"z" * 60}             FAIL message too long
    MESG g                      FAIL session interrupted
    SESS s                      SESS 6
    MORE h
    TERM other                  FAIL message interrupted
    MESG i                      FAIL session interrupted
    SESS t                      SESS 0
    MESG j                      MESG j
    NONE                        FAIL unknown header
    MESG k                      MESG k
    MESG                        FAIL space expected after the header
    MESG l                      FAIL session interrupted
    SESS s                      SESS 6
    MESG m                      MESG m
"""
_PAIRS = [line.split("  ", 1) for line in map(str.strip, EXCHANGE.strip().splitlines())]
SENT = "".join(f"{sent[0]}\n" for sent in _PAIRS).encode()
ANSWERED = "".join(reply.strip() + "\n" for _, *rest in _PAIRS for reply in rest).replace(";", "\n")
KEPT = ["a", "/s:001 b", "/s:002+1 b1", "/s:005 c", "/s:006 d", "/t:001 j", "/t:002 k", "/s:007 m"]


def pieces(data: bytes, *, cut: bool) -> list[bytes]:
    return [data[at : at + 3] for at in range(0, len(data), 3)] if cut else [data]


def send(msgd: Daemon, sock: socket.socket, parts: list[bytes], ending: str) -> None:
    """Send, and end, while the daemon sleeps: it finds all of it at once."""
    msgd.signal(signal.SIGSTOP)
    for part in parts:
        sock.sendall(part)
    if sock.family != socket.AF_UNIX:  # what has not arrived is not the daemon's at a stop
        wait_for(lambda: fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4) == b"\0" * 4)
    if ending == "stop":
        msgd.signal(signal.SIGTERM)
    else:
        sock.shutdown(socket.SHUT_WR)
    msgd.signal(signal.SIGCONT)


def all_of(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def plain(sock: socket.socket, msgd: Daemon, ending: str, *, cut: bool) -> str:
    send(msgd, sock, pieces(SENT, cut=cut), ending)
    return all_of(sock).decode()


def secure(
    sock: socket.socket, context: ssl.SSLContext, msgd: Daemon, ending: str, *, cut: bool
) -> str:
    """Fails where the server's close_notify is missing."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    while session.version() is None or outgoing.pending:
        with suppress(ssl.SSLWantReadError):
            session.do_handshake()
        sock.sendall(outgoing.read())
        if session.version() is None:
            incoming.write(sock.recv(1 << 16))
    for piece in pieces(SENT, cut=cut):
        session.write(piece)
    if ending == "close_notify":
        with suppress(ssl.SSLWantReadError):
            session.unwrap()
    send(msgd, sock, [outgoing.read()], ending)
    incoming.write(all_of(sock))
    answer = b""
    with suppress(ssl.SSLZeroReturnError):  # close_notify, behind our own
        while data := session.read(1 << 16):
            answer += data
    return answer.decode()


WAYS = [
    *(f"{way} {ending}" for way in ("tcp", "unix") for ending in ("half-close", "stop")),
    *(f"{way} {how}" for way in ("1.2", "1.3") for how in ("half-close", "close_notify", "stop")),
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Certificate:
    return authority.issue("localhost")


@pytest.mark.parametrize(("way", "cut"), every_other(WAYS, [False, True]))
def test_every_way_gives_the_same(
    start: Start,
    tmp_path: Path,
    authority: Authority,
    server: Certificate,
    way: str,
    cut: bool,
) -> None:
    way, ending = way.split()
    path = tmp_path / "msgd.sock"
    msgd = start(
        f"listen: [127.0.0.1, {path}]\npassword_hash: {PASSWORD_HASH}\n"
        f"tls: {{certificate: {server.certificate}, key: {server.key}}}\n"
        "limits: {message_bytes: 50}\n"
    )
    with socket.socket(socket.AF_UNIX if way == "unix" else socket.AF_INET) as sock:
        sock.settimeout(SECONDS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)  # each piece takes 2 KiB
        sock.connect(str(path) if way == "unix" else ("127.0.0.1", msgd.port))
        if way in ("tcp", "unix"):
            answer = plain(sock, msgd, ending, cut=cut)
        else:
            context = ssl.create_default_context(cafile=str(authority.certificate))
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13's; as in test_tls
            context.maximum_version = getattr(ssl.TLSVersion, f"TLSv{way.replace('.', '_')}")
            answer = secure(sock, context, msgd, ending, cut=cut)
    if ending == "stop":  # which may come before the verdict, or behind it
        assert msgd.wait() == 0
        answer = answer.replace("FAIL server is stopping", "PWNO")
    assert answer == ANSWERED
    archived = [line for line in msgd.archive().decode().splitlines() if line[:1] != "\t"]
    assert [line.partition(" ")[2] for line in archived] == [
        f"{archived[0].split(' ')[1]}{kept if kept[0] == '/' else f' {kept}'}" for kept in KEPT
    ]
