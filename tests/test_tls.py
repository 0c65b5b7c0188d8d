"""TLS on the same port: real clients of Python's and openssl's, good ones, bad ones, rogues."""

from __future__ import annotations

import random
import re
import signal
import socket
import ssl
import subprocess
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from msgd.server.addresses import tcp
from msgd.server.connection import Connection
from msgd.server.transport import Plain, Tls
from msgd.wire.server import ServerProtocol
from tests.conftest import PASSWORD, PASSWORD_HASH, Daemon, Start
from tests.lab.certificates import Authority, Certificate
from tests.lab.client import Client
from tests.lab.hello import client_hello
from tests.lab.proc import rss_bytes
from tests.lab.waiting import SECONDS, wait_for

WAIT = ssl.SSLWantReadError, ssl.SSLWantWriteError


class Secure(Client):
    """A client over TLS, with Python's own ssl."""

    def __init__(
        self, address: tuple[str, int], context: ssl.SSLContext, name: str = "localhost"
    ) -> None:
        super().__init__(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(
            self.socket, server_hostname=name, suppress_ragged_eofs=False
        )

    @property
    def tls(self) -> ssl.SSLSocket:
        assert isinstance(self.socket, ssl.SSLSocket)
        return self.socket


class Place:
    """An authority, a server with its certificate, and clients that trust it."""

    def __init__(self, authority: Authority, server: Certificate, start: Start) -> None:
        self.authority, self.server = authority, server
        self._start = start
        self._open: list[Secure] = []

    def config(self, certificate: Certificate | None = None, more: str = "") -> str:
        files = certificate or self.server
        return (
            f"listen: 127.0.0.1\npassword_hash: {PASSWORD_HASH}\ntls:\n"
            f"  certificate: {files.certificate}\n  key: {files.key}\n{more}"
        )

    def daemon(self, more: str = "", top: str = "") -> Daemon:
        return self._start(self.config(more=more) + top)

    def context(self, certificate: Certificate | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13's; the authority is older
        if certificate:
            context.load_cert_chain(certificate.certificate, certificate.key)
        return context

    def connect(
        self, msgd: Daemon, hello: bytes = b"PING\n", context: ssl.SSLContext | None = None
    ) -> Secure:
        client = Secure(("127.0.0.1", msgd.port), context or self.context())
        self._open.append(client)
        if hello:
            assert client.ask(hello) == b"PONG\n"
        return client

    def close(self) -> None:
        for client in self._open:
            client.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Certificate:
    return authority.issue("localhost", "127.0.0.1")


@pytest.fixture
def place(authority: Authority, server: Certificate, start: Start) -> Iterator[Place]:
    made = Place(authority, server, start)
    yield made
    made.close()


def refused(place: Place, msgd: Daemon, context: ssl.SSLContext) -> None:
    """With TLS 1.3 a client hears of it only when it reads."""
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        place.connect(msgd, context=context)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_messages_over_tls_beside_plain_ones(place: Place, version: ssl.TLSVersion) -> None:
    msgd = place.daemon()
    context = place.context()
    context.minimum_version = context.maximum_version = version
    with place.connect(msgd, context=context) as client, msgd.line_client() as plain:
        assert client.ask(b"MESG over tls\n") == b"MESG over tls\n"
        assert plain.ask(b"MESG in the clear\n") == b"MESG in the clear\n"
        assert client.tls.version() == version.name.replace("TLSv1_", "TLSv1.")
        assert client.tls.compression() is None
    assert msgd.texts() == ["over tls", "in the clear"]


def test_old_versions_are_refused(place: Place) -> None:
    msgd = place.daemon()
    context = place.context()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    refused(place, msgd, context)
    msgd.wait_log("TLS")
    assert msgd.line_client().ask(b"MESG still here\n") == b"MESG still here\n"


def echoes(client: Secure, lines: bytes) -> bytes:
    """What comes back while more is sent than either side has room for."""
    client.socket.setblocking(False)
    answer, sent = bytearray(), 0
    end = time.monotonic() + SECONDS
    while len(answer) < len(lines):
        assert time.monotonic() < end
        with suppress(*WAIT):
            if sent < len(lines):
                sent += client.socket.send(lines[sent : sent + 70_000])
        with suppress(*WAIT):
            answer += client.socket.recv(100_000)
    return bytes(answer)


@pytest.mark.parametrize("longest", [3_000, 60_000])
def test_much_in_both_directions_at_once(place: Place, longest: int) -> None:
    """Records of 16 KiB, split over bites and sends; nothing hides in the library's buffers."""
    msgd = place.daemon()
    sizes = [7 * n % longest for n in range(12_000_000 // longest)]
    lines = b"".join(b"MESG %d %s\n" % (n, b"x" * size) for n, size in enumerate(sizes))
    with place.connect(msgd) as client:
        assert echoes(client, lines) == lines
    assert len(msgd.texts()) == len(sizes)


@pytest.mark.parametrize("end", ["close_notify", "cut"])
def test_half_close_is_answered_and_then_closed(place: Place, end: str) -> None:
    """The end behind whole lines: they are archived and echoed, then close_notify comes."""
    msgd = place.daemon()
    lines = b"MESG x\n" * 3000 + b"SESS s\nMESG in a session\n"
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = place.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with msgd.connect() as client:
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.send(outgoing.read())
                incoming.write(client.socket.recv(1 << 16))
        session.write(b"PING\n" + lines)
        if end == "close_notify":
            with pytest.raises(ssl.SSLWantReadError):
                session.unwrap()
        msgd.signal(signal.SIGSTOP)  # so that it all is there at once
        client.send(outgoing.read())
        if end == "cut":  # else the connection stays open below
            client.socket.shutdown(socket.SHUT_WR)
        msgd.signal(signal.SIGCONT)
        expected = b"PONG\n" + lines.replace(b"SESS s", b"SESS 0")
        answer = b""
        while len(answer) < len(expected):
            incoming.write(client.socket.recv(1 << 16))
            with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                while data := session.read(1 << 16):
                    answer += data
        assert answer == expected
        while data := client.socket.recv(1 << 16):
            incoming.write(data)
        if end == "cut":
            assert session.read(10) == b""  # a close_notify
        else:
            with pytest.raises(ssl.SSLZeroReturnError):  # the same, behind our own
                session.read(10)


def test_what_comes_behind_a_goodbye_takes_no_echo_away(place: Place) -> None:
    """It is to be ignored (RFC 8446, section 6.1); a close with it unread would be a reset."""
    msgd = place.daemon()
    lines = (b"MESG " + b"x" * 52 + b"\n") * 2000
    come, go = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = place.context().wrap_bio(come, go, server_hostname="localhost")
    with socket.socket() as sock:
        sock.settimeout(SECONDS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
        sock.connect(("127.0.0.1", msgd.port))
        while not _is_greeted(tls):
            sock.sendall(go.read())
            come.write(sock.recv(1 << 16))
        tls.write(b"PING\n" + lines)
        with suppress(*WAIT):
            tls.unwrap()
        sock.sendall(go.read() + b"z" * 200_000)
        sock.shutdown(socket.SHUT_WR)
        wait_for(lambda: len(msgd.texts()) == 2000)
        while data := sock.recv(1 << 16):
            come.write(data)
    echoed = b""
    with suppress(*WAIT, ssl.SSLZeroReturnError):
        while data := tls.read(1 << 16):
            echoed += data
    assert echoed == b"PONG\n" + lines


def _is_greeted(tls: ssl.SSLObject) -> bool:
    with suppress(*WAIT):
        tls.do_handshake()
        return True
    return False


def test_openssl_s_client(place: Place) -> None:
    """The tool that everybody tries first; its end of input is a close_notify and a FIN."""
    msgd = place.daemon()
    done = subprocess.run(
        ["openssl", "s_client", "-quiet", "-verify_return_error", "-no_ign_eof",
         "-CAfile", str(place.authority.certificate), "-connect", f"localhost:{msgd.port}"],
        input=b"PING\nMESG by openssl\n", capture_output=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wait_for(lambda: msgd.texts() == ["by openssl"])


def test_a_cut_stream_keeps_whole_lines_only(place: Place) -> None:
    msgd = place.daemon()
    client = place.connect(msgd)
    client.socket.sendall(b"MESG whole\nMESG cut")
    client.tls.shutdown(socket.SHUT_WR)  # no close_notify
    msgd.wait_log("dropped an unfinished message of 8 bytes")
    assert msgd.texts() == ["whole"]


def test_bare_framing_is_refused(place: Place) -> None:
    msgd = place.daemon()
    with place.connect(msgd, b"") as client:
        client.socket.sendall(b"PINGMESG x")
        client.expect(b"PONG")
        assert client.line() == b"FAIL line framing expected\n"
        assert client.tls.recv(10) == b""  # a close_notify, not a cut
    assert msgd.texts() == []


def test_tls_to_a_daemon_without_a_certificate(start: Start) -> None:
    msgd = start("listen: 127.0.0.1\n")
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLError, match=r"WRONG_VERSION_NUMBER|wrong version number"):
        Secure(("127.0.0.1", msgd.port), context)


@pytest.mark.parametrize("required", ["yes", "remote", "no"])
def test_plain_where_tls_is_required(place: Place, required: str) -> None:
    msgd = place.daemon(f"  required: {required}\n")
    with msgd.connect() as client:
        client.send(b"PING\n")
        expected = b"FAIL tls required\n" if required == "yes" else b"PONG\n"
        assert client.line() == expected
        if required == "yes":
            assert client.rest() == b""
    with place.connect(msgd) as secure:
        assert secure.ask(b"MESG a\n") == b"MESG a\n"


def test_a_hello_byte_by_byte_and_a_rogue_at_each_point(place: Place) -> None:
    """Whoever stops in the middle of a handshake is closed in time, and harms nobody."""
    msgd = place.daemon(top="limits: {handshake_seconds: 1}\n")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = place.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    hello = outgoing.read()
    with msgd.connect() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(hello)):
            client.send(hello[at : at + 1])
        assert client.socket.recv(1 << 16)[:1] == b"\x16"
    rogues = [msgd.connect() for _ in range(0, len(hello), 16)]
    for rogue, stop in zip(rogues, range(1, len(hello), 16), strict=False):
        rogue.send(hello[:stop])
    with place.connect(msgd) as client:
        assert client.ask(b"MESG in time\n") == b"MESG in time\n"
    for rogue in rogues:
        rogue.rest()  # to its end
    wait_for(lambda: msgd.texts() == ["in time"])


@pytest.mark.parametrize("seed", range(3))
def test_nonsense_behind_the_first_byte(place: Place, seed: int) -> None:
    msgd = place.daemon()
    chance = random.Random(seed)
    for _ in range(40):
        with msgd.connect() as client:
            noise = b"\x16" + chance.choice([b"\x03\x01", b"\x03\x03", b""])
            noise += chance.randbytes(chance.randrange(300))
            client.send(noise)
            client.socket.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                client.rest()
    with place.connect(msgd) as secure:
        assert secure.ask(b"MESG unharmed\n") == b"MESG unharmed\n"
    assert msgd.log.count("\n") < 40  # limited, however many they are


def test_names_of_clients(place: Place) -> None:
    msgd = place.daemon(f"  client_ca: {place.authority.certificate}\n  clients: [web-1, odd_x]\n")
    web = place.authority.issue("web-1", client=True)
    with place.connect(msgd, context=place.context(web)) as client:
        assert client.ask(b"MESG by name\n") == b"MESG by name\n"
        assert client.ask(b"SESS s\n") == b"SESS 0\n"
        assert client.ask(b"MESG first\n") == b"MESG first\n"
    origins = re.findall(r"@(\S+)", msgd.archive().decode())
    assert origins == ["web-1", "web-1/s:001"]
    other = place.authority.issue("web-2", client=True)
    for bad in (None, other):
        refused(place, msgd, place.context(bad))
    msgd.wait_log(r"web-2.*tls\.clients")
    foreign_folder = place.authority.certificate.parent / "foreign"
    foreign_folder.mkdir()
    foreign = Authority(foreign_folder, "Foreign").issue("web-1", client=True)
    refused(place, msgd, place.context(foreign))


def test_a_client_without_a_name_is_refused(place: Place) -> None:
    """It would own the sessions of all who have none."""
    msgd = place.daemon(f"  client_ca: {place.authority.certificate}\n")
    refused(place, msgd, place.context(place.authority.nameless()))
    msgd.wait_log(r"127\.0\.0\.1:\d+: its certificate holds no name")
    assert msgd.log.count("holds no name") == 1


def test_a_name_behind_a_proxy(place: Place) -> None:
    """The proxy's header, TLS behind it, and in there a certificate and a session."""
    authority = f"  client_ca: {place.authority.certificate}\n"
    msgd = place.daemon(authority + "  required: remote\n", "proxy_from: 127.0.0.1\n")
    context = place.context(place.authority.issue("web-1", client=True))
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 6743\r\n"
    with msgd.connect() as client:
        client.send(header)
        client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
        assert client.ask(b"PING\n") == b"PONG\n"
        assert client.ask(b"SESS s\n") == b"SESS 0\n"
        assert client.ask(b"MESG x\n") == b"MESG x\n"
    assert b" 192.0.2.7:4711@web-1/s:001 x\n" in msgd.archive()
    with msgd.connect() as client:  # the proxy is on this machine, its client is not
        client.send(header + b"PING\n")
        assert client.rest() == b"FAIL tls required\n"


def test_sessions_belong_to_the_name_that_opened_them(place: Place) -> None:
    more = f"  client_ca: {place.authority.certificate}\n"
    msgd = place.daemon(more)
    one, two = (place.authority.issue(name, client=True) for name in ("one", "two"))
    with (
        place.connect(msgd, context=place.context(one)) as first,
        place.connect(msgd, context=place.context(two)) as second,
    ):
        assert first.ask(b"SESS s\n") == b"SESS 0\n"
        assert first.ask(b"MESG a\n") == b"MESG a\n"
        assert second.ask(b"SESS s\n") == b"SESS 0\n"
        assert first.ask(b"MESG b\n") == b"MESG b\n"
    assert msgd.stop() == 0
    again = place._start(msgd.config.read_text(), folder=msgd.folder)
    with place.connect(again, context=place.context(one)) as first:
        assert first.ask(b"SESS s\n") == b"SESS 2\n"


def test_a_stop_answers_what_had_arrived_and_says_goodbye(place: Place) -> None:
    msgd = place.daemon()
    with place.connect(msgd) as client, place.connect(msgd) as other:
        lines = b"MESG y\n" * 3000
        client.socket.sendall(lines)
        assert other.ask(b"TERM " + PASSWORD.encode() + b"\n") == b"PWOK\n"
        answer = b""
        while data := client.tls.recv(1 << 16):  # raises where close_notify is missing
            answer += data
        assert lines.startswith(answer)
    assert msgd.wait() == 0
    assert msgd.texts() == ["y"] * answer.count(b"\n")


def test_a_renewed_certificate_without_dropping_anybody(place: Place) -> None:
    place.server = place.authority.issue("localhost", "127.0.0.1")
    msgd = place.daemon()
    with place.connect(msgd) as old:
        renewed = place.authority.issue("localhost")
        for new, file in zip(renewed, place.server, strict=True):
            file.write_bytes(new.read_bytes())
        msgd.signal(signal.SIGHUP)
        msgd.wait_log("configuration read again")
        assert old.ask(b"MESG goes on\n") == b"MESG goes on\n"
        with place.connect(msgd) as client:
            found = client.tls.getpeercert(binary_form=True)
            assert found == ssl.PEM_cert_to_DER_cert(renewed.certificate.read_text())
        place.server.certificate.write_text("no certificate")
        msgd.signal(signal.SIGHUP)
        msgd.wait_log(str(place.server.certificate))
        with place.connect(msgd) as client:
            assert client.tls.getpeercert(binary_form=True) == found
        assert old.ask(b"MESG and on\n") == b"MESG and on\n"


def test_a_reload_takes_all_but_an_unusable_certificate(place: Place) -> None:
    place.server = place.authority.issue("localhost", "127.0.0.1")
    msgd = place.daemon()
    refused = b"FAIL message too long\n"
    with place.connect(msgd) as old:
        place.server.key.write_text("no key")
        msgd.config.write_text(place.config() + "limits: {message_bytes: 10}\n")
        msgd.signal(signal.SIGHUP)
        msgd.wait_log("configuration read again")
        (error,) = [line for line in msgd.log.splitlines() if "tls.key" in line]
        assert f"tls.key: {place.server.key}: holds no private key" in error
        assert error.endswith("; going on with the old certificate")
        with place.connect(msgd) as new:
            assert new.ask(b"MESG of eleven b\n") == refused
        assert old.ask(b"MESG goes on\n") == b"MESG goes on\n"


def test_a_reload_takes_nothing_where_an_authority_is_to_decide(place: Place) -> None:
    """Who comes in by the new rules must not do so without the certificate that they ask for."""
    place.server = place.authority.issue("localhost", "127.0.0.1")
    msgd = place.daemon()
    place.server.key.write_text("no key")
    more = f"  client_ca: {place.authority.certificate}\nlimits: {{message_bytes: 10}}\n"
    msgd.config.write_text(place.config(more=more))
    msgd.signal(signal.SIGHUP)
    msgd.wait_log("tls.key.*going on with the old configuration")
    with place.connect(msgd) as client:
        assert client.ask(b"MESG of eleven b\n") == b"MESG of eleven b\n"


def _idle(place: Place, msgd: Daemon, count: int) -> list[Secure]:
    context = place.context()
    return [place.connect(msgd, context=context) for _ in range(count)]


def test_an_idle_connection_takes_little_memory(place: Place) -> None:
    msgd = place.daemon()
    _idle(place, msgd, 80)
    before = rss_bytes(msgd.pid)
    clients = _idle(place, msgd, 80)
    assert (rss_bytes(msgd.pid) - before) / len(clients) < 40 << 10


def test_who_has_pushed_keeps_little_memory(place: Place) -> None:
    """OpenSSL's buffers never shrink: they are not filled with all that comes at once."""
    msgd = place.daemon()
    clients = _idle(place, msgd, 30)
    lines = b"MESG " + b"x" * 100 + b"\n"
    lines *= 4000
    echoes(clients.pop(), lines)  # the daemon itself has grown
    before = rss_bytes(msgd.pid)
    for client in clients:
        echoes(client, lines)
    assert (rss_bytes(msgd.pid) - before) / len(clients) < 92 << 10  # as msgd(8) tells


def test_who_leaves_in_the_handshake_is_freed_at_once(tmp_path: Path) -> None:
    """By a thousand such rings the garbage collector would hold up everybody for 50 ms."""
    files = Authority(tmp_path).issue("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    ours, theirs = socket.socketpair()
    with theirs:
        plain, origin = Plain(ours), tcp("127.0.0.1", 1)
        client = Connection(plain, origin, ServerProtocol(100, line_only=True), None)
        client.transport = tls = Tls(plain, context, partial(_verify, client))
        assert tls.taken(client_hello()) is None
        freed = weakref.ref(tls)
        tls.close()
        del client, tls
        assert freed() is None


def _verify(client: Connection, session: ssl.SSLObject) -> None:
    raise AssertionError(client, session)
