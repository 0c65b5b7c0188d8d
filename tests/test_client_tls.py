"""TLS, the client's side: against Python's ssl, with certificates of every kind."""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from msgd.client import Client, ConnectionLost, NotConnected
from msgd.client.tls import Tls
from tests.conftest import Daemon, Start
from tests.lab.certificates import Authority, Certificate, openssl, self_signed
from tests.scripted import greet, receive, says, scripted
from tests.session_server import Sessions
from tests.tls_server import over_tls

LOOKS = 3  # connections: the one that is refused, and two looks at its certificate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def good(authority: Authority) -> Certificate:
    return authority.issue("localhost", "127.0.0.1")


@pytest.fixture
def trust(authority: Authority) -> Tls:
    return Tls(ca=str(authority.certificate))


def refused(certificate: Certificate, tls: Tls, host: str = "127.0.0.1") -> str:
    """What the client says against a server with this certificate."""
    with scripted(*[over_tls(certificate)] * LOOKS) as port:
        with pytest.raises(NotConnected) as caught:
            Client(host, port, tls=tls)
        return str(caught.value).replace(str(port), "PORT")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_messages_go_through_tls(
    good: Certificate, trust: Tls, host: str, version: ssl.TLSVersion
) -> None:
    with (
        scripted(over_tls(good, maximum_version=version)) as port,
        Client(host, port, tls=trust) as client,
    ):
        assert client.send("hello") == "hello"
        assert not client.closed_by_server()
        big = "x" * 3_000_000
        assert [r.text for r in client.send_many(["a", big, "b"] * 3)] == ["a", big, "b"] * 3


def test_a_session_over_tls_goes_on_over_connections(good: Certificate, trust: Tls) -> None:
    sessions = Sessions()
    parts = [over_tls(good, sessions.serve(2)), over_tls(good, sessions.serve())]
    with scripted(*parts) as port:
        with Client("localhost", port, tls=trust, session="s") as client:
            assert [r.text for r in client.send_many(["a", "b"])] == ["a", "b"]
            with pytest.raises(ConnectionLost, match="closed the connection"):
                client.send("c")
        with Client("localhost", port, tls=trust, session="s") as client:
            assert client.last == 2
            client.send("c")
    assert sessions.texts("s") == [b"a", b"b", b"c"]


def test_a_chain_is_followed_and_any_link_of_it_may_be_trusted(
    authority: Authority, trust: Tls
) -> None:
    branch = authority.below("Branch")
    chained = branch.issue("localhost")
    for tls in (trust, Tls(ca=str(branch.certificate)), Tls(ca=str(chained.certificate))):
        with scripted(over_tls(chained)) as port, Client("localhost", port, tls=tls) as client:
            assert client.send("a") == "a"


def test_a_certificate_for_another_name(authority: Authority, trust: Tls) -> None:
    other = authority.issue("log.example.org", "10.1.2.3")
    assert refused(other, trust) == (
        "the certificate of 127.0.0.1:PORT is for log.example.org, 10.1.2.3, not for 127.0.0.1"
    )
    assert refused(other, trust, "localhost") == (
        "the certificate of localhost:PORT is for log.example.org, 10.1.2.3, not for localhost"
    )


def test_a_certificate_that_has_expired(authority: Authority, trust: Tls) -> None:
    expired = authority.issue("127.0.0.1", days=-1)
    end = openssl(
        "x509", "-noout", "-enddate", "-dateopt", "iso_8601", "-in", str(expired.certificate)
    )
    day = end.partition("=")[2][:10]
    assert refused(expired, trust) == f"the certificate of 127.0.0.1:PORT expired on {day}"


def test_a_certificate_for_another_purpose(authority: Authority, trust: Tls) -> None:
    client = authority.issue("127.0.0.1", client=True)
    assert refused(client, trust).endswith("is not made for a server")


def test_an_authority_that_nobody_knows(folder: Path, good: Certificate, trust: Tls) -> None:
    foreign = Authority(folder, "Foreign").issue("127.0.0.1")
    own = self_signed(folder, "127.0.0.1")
    for certificate, tls in ((foreign, trust), (own, trust), (good, Tls())):
        said = refused(certificate, tls)
        assert said.startswith(
            "the certificate of 127.0.0.1:PORT is signed by an authority that this machine does"
            f" not know: --ca, or --pin {certificate.pin} after you have compared it"
        )
        with (
            scripted(over_tls(certificate)) as port,
            Client(port=port, tls=Tls(pin=certificate.pin)) as client,
        ):
            assert client.send("a") == "a"


def test_a_pin_counts_in_place_of_authority_and_name(folder: Path, good: Certificate) -> None:
    other = self_signed(folder, "other.example.org")
    shouted = "sha256:" + other.pin[7:].upper()
    with scripted(over_tls(other)) as port, Client(port=port, tls=Tls(pin=shouted)) as client:
        assert client.send("a") == "a"
    with (
        scripted(over_tls(good)) as port,
        pytest.raises(NotConnected, match=f"not the one that was pinned.*is {good.pin}"),
    ):
        Client(port=port, tls=Tls(pin=other.pin))


def test_a_second_look_that_fails_leaves_the_first_verdict(
    authority: Authority, trust: Tls
) -> None:
    other = authority.issue("log.example.org")
    with (
        scripted(over_tls(other)) as port,
        pytest.raises(NotConnected, match="is for another name, not for 127"),
    ):
        Client(port=port, tls=trust)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_of_the_clients(
    authority: Authority, good: Certificate, trust: Tls, version: ssl.TLSVersion
) -> None:
    name = authority.issue("web-1", client=True)
    part = over_tls(good, clients=authority.certificate, maximum_version=version)
    shown = Tls(trust.ca, str(name.certificate), str(name.key))
    with scripted(part, part) as port:
        with Client(port=port, tls=shown) as client:
            assert client.send("a") == "a"
        with pytest.raises(NotConnected, match="a certificate"):
            Client(port=port, tls=trust)


def test_a_plain_server_is_told(trust: Tls) -> None:
    def plain(connection: socket.socket) -> None:
        receive(connection, 1)
        connection.sendall(b"FAIL handshake expected\n")

    def busy(connection: socket.socket) -> None:
        connection.sendall(b"FAIL busy\n")

    def closes(connection: socket.socket) -> None:
        receive(connection, 1)

    for part, words in (
        (plain, "does not speak TLS"),
        (busy, "refuses the connection: busy"),
        (closes, "no TLS with"),
    ):
        with scripted(part) as port, pytest.raises(NotConnected, match=words):
            Client(port=port, tls=trust)


def test_a_server_that_requires_tls_is_told() -> None:
    def requires(connection: socket.socket) -> None:
        receive(connection, 5)
        connection.sendall(b"FAIL tls required\n")

    with scripted(requires) as port, pytest.raises(NotConnected, match=r"wants TLS.*--tls"):
        Client(port=port)


@pytest.mark.parametrize("beginning", [b"", b"\x16\x03\x03", b"\x15"])
def test_a_handshake_has_a_deadline_whatever_trickles_in(trust: Tls, beginning: bytes) -> None:
    def drips(connection: socket.socket) -> None:
        connection.sendall(beginning)
        poll = select.poll()
        poll.register(connection, select.POLLRDHUP)
        while not poll.poll(10):
            if beginning:
                connection.sendall(b"\x00" if beginning == b"\x15" else b"\x03")

    with scripted(drips) as port, pytest.raises(NotConnected, match="TLS"):
        Client(port=port, tls=trust, timeout=0.2)


def test_a_stream_that_is_cut_is_no_goodbye(good: Certificate, trust: Tls) -> None:
    def cut(connection: socket.socket) -> None:
        greet(connection)
        receive(connection, 1)
        raise OSError  # without close_notify

    with (
        scripted(over_tls(good, cut)) as port,
        Client(port=port, tls=trust) as client,
        pytest.raises(ConnectionLost, match="cut off"),
    ):
        client.send("a")


def test_an_end_that_comes_with_the_last_echo_is_seen(good: Certificate, trust: Tls) -> None:
    """Both are decrypted in one go, and nothing more will make the socket readable."""
    with (
        scripted(over_tls(good, says(b"MESG a\n"))) as port,
        Client(port=port, tls=trust, timeout=600) as client,
        pytest.raises(ConnectionLost, match="closed the connection") as caught,
    ):
        list(client.send_many(["a", "b"]))
    assert caught.value.confirmed == 1


def test_the_client_says_goodbye(good: Certificate, trust: Tls) -> None:
    ends = []

    def reads(connection: socket.socket) -> None:
        greet(connection)
        ends.append(connection.recv(1))

    with scripted(over_tls(good, reads, suppress_ragged_eofs=False)) as port:
        Client(port=port, tls=trust).close()
    assert ends == [b""]


def test_what_is_not_msgd_inside_tls_is_told(good: Certificate, trust: Tls) -> None:
    with (
        scripted(over_tls(good, says(b"MESG other\n"))) as port,
        Client(port=port, tls=trust) as client,
        pytest.raises(ConnectionLost, match="not msgd"),
    ):
        client.send("a")


def real(start: Start, certificate: Certificate, more: str = "") -> Daemon:
    return start(
        f"listen: 127.0.0.1\ntls:\n  certificate: {certificate.certificate}\n"
        f"  key: {certificate.key}\n{more}"
    )


def test_the_real_daemon(start: Start, good: Certificate, trust: Tls) -> None:
    daemon = real(start, good, "  required: yes\n")
    texts = ["one", "two\nlines", "\x1b", "x" * 60_000] * 100
    with Client(port=daemon.port, tls=trust, session="s") as client:
        list(client.send_many(texts[:250]))
    with Client(port=daemon.port, tls=Tls(pin=good.pin), session="s") as client:
        assert client.last == 250
        list(client.send_many(texts[client.last :]))
    assert daemon.texts() == [text.replace("\x1b", "\\x1b") for text in texts]
    with pytest.raises(NotConnected, match="wants TLS"):
        Client(port=daemon.port)


def test_a_real_daemon_without_a_certificate(msgd: Daemon, trust: Tls) -> None:
    with pytest.raises(NotConnected, match="does not speak TLS"):
        Client(port=msgd.port, tls=trust)


def test_the_names_that_a_real_daemon_lets_in(
    start: Start, folder: Path, authority: Authority, good: Certificate, trust: Tls
) -> None:
    wanted = f"  client_ca: {authority.certificate}\n  clients: [web-1]\n"
    daemon = real(start, good, wanted)
    foreign = Authority(folder, "Foreign").issue("web-1", client=True)
    for name, words in (
        (authority.issue("web-1", client=True), ""),
        (authority.issue("web-2", client=True), "."),
        (authority.issue("web-1", client=True, days=-1), "certificate expired"),
        (foreign, "does not know the authority of this client's certificate"),
        (None, "wants a certificate of this client"),
    ):
        shown = Tls(trust.ca, str(name.certificate), str(name.key)) if name else trust
        if not words:
            with Client(port=daemon.port, tls=shown) as client:
                client.send("hello")
            continue
        with pytest.raises(NotConnected, match=words):
            Client(port=daemon.port, tls=shown)
    assert daemon.texts() == ["hello"]
    assert b"@web-1 hello" in daemon.archive()


@pytest.fixture(scope="module")
def files(folder: Path, authority: Authority, good: Certificate) -> dict[str, str]:
    empty, protected, other = folder / "empty", folder / "protected", folder / "other"
    empty.write_text("nothing\n")
    openssl("ec", "-in", str(good.key), "-aes128", "-passout", "pass:x", "-out", str(protected))
    openssl("genrsa", "-out", str(other), "2048")
    return {
        "missing": str(folder / "missing"),
        "empty": str(empty),
        "protected": str(protected),
        "rsa": str(other),
        "good": str(good.certificate),
        "key": str(good.key),
        "authority's": str(authority.key),
    }


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("missing",), "missing: No such file"),
        (("empty",), "empty: there is no certificate"),
        ((None, "missing", "key"), "missing: No such file"),
        ((None, "good", "missing"), "missing: No such file"),
        ((None, "good", "authority's"), r"\.key: the key does not belong to the certificate"),
        ((None, "good", "rsa"), "other: the key does not belong to the certificate"),
        ((None, "good", "empty"), "empty: no certificate and key that can be used"),
        ((None, "good"), "no certificate and key that can be used"),
        ((None, "good", "protected"), "protected: the key has a password"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    files: dict[str, str], names: tuple[str | None, ...], words: str
) -> None:
    tls = Tls(*(files[name] if name else None for name in names))
    with (
        scripted(lambda connection: None) as port,
        pytest.raises(NotConnected, match=words),
    ):
        Client(port=port, tls=tls)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"key": "x"}, ValueError),
        ({"ca": ""}, ValueError),
        ({"ca": "a\0b"}, ValueError),
        ({"ca": Path("x")}, TypeError),
        ({"pin": "sha256:12"}, ValueError),
        ({"pin": "md5:" + "0" * 32}, ValueError),
        ({"pin": "sha256:" + "0" * 64, "ca": "x"}, ValueError),
    ],
)
def test_what_cannot_be_meant_is_an_error(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Tls(**wrong)


@pytest.fixture(autouse=True)
def _no_system_authorities(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The machine's own authorities decide over nothing here."""
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path_factory.getbasetemp() / "none"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path_factory.getbasetemp() / "none.pem"))
    return


FORKS = """
import os, sys
from msgd.client import Client, InUse
from msgd.client.tls import Tls
with Client("127.0.0.1", int(sys.argv[1]), tls=Tls(ca=sys.argv[2])) as client:
    child = os.fork()
    if not child:
        try:
            with client:
                client.send("child")
        except InUse:
            os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), client.send("parent"))
"""


def test_a_forked_child_says_nothing_on_its_parents_connection(
    good: Certificate, trust: Tls
) -> None:
    with scripted(over_tls(good, says(b"MESG parent\n"))) as port:
        program = [sys.executable, "-c", FORKS, str(port), str(trust.ca)]
        done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "7 parent\n"
