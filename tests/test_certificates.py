"""Certificates that cannot be used, or not for long: found before a client does, and in words."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import time
from pathlib import Path

import pytest

from msgd.config.options import Tls
from msgd.config.yamlfile import ConfigError
from msgd.server import heartbeat
from msgd.server.certificates import load
from msgd.server.timers import Alarm
from tests.conftest import Daemon, Start
from tests.lab.certificates import Authority, Certificate, openssl, self_signed, validity
from tests.lab.waiting import SECONDS
from tests.test_daemon import call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def good(authority: Authority) -> Certificate:
    """With the authority's own behind it, as `msgd make-tls` makes them."""
    return whole(authority, authority.issue("localhost", "127.0.0.1"))


def whole(authority: Authority, made: Certificate) -> Certificate:
    made.certificate.write_bytes(made.certificate.read_bytes() + authority.certificate.read_bytes())
    return made


def tls(made: Certificate, client_ca: Path | None = None) -> Tls:
    return Tls(
        str(made.certificate), str(made.key), "no", str(client_ca) if client_ca else None, ()
    )


def replaced(made: Certificate, key: str, path: str) -> Tls:
    return tls(made)._replace(**{key: path})  # type: ignore[arg-type]


def wrong(found: Tls) -> str:
    with pytest.raises(ConfigError) as raised:
        load(found)
    assert "\n" not in str(raised.value)
    assert "_ssl.c" not in str(raised.value)
    return str(raised.value)


def test_a_good_one(good: Certificate, authority: Authority) -> None:
    found = load(tls(good, authority.certificate))
    assert found.warnings == []
    assert 29 * 86400 < found.expires - time.time() < 31 * 86400
    assert found.context.verify_mode == ssl.CERT_REQUIRED


def test_certificate_and_key_in_one_file(good: Certificate, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(good.key.read_bytes() + good.certificate.read_bytes())
    both.chmod(0o600)
    assert load(Tls(str(both), str(both), "no", None, ())).warnings == []


def test_chains(authority: Authority) -> None:
    below = authority.below("Branch")
    full = whole(authority, below.issue("localhost"))
    assert load(tls(full)).warnings == []
    (warning,) = load(tls(below.issue("localhost"))).warnings
    assert "the chain may not be complete: it is from 'Branch'" in warning
    (warning,) = load(tls(authority.issue("localhost"))).warnings
    assert "clients need that authority (--ca)" in warning


def test_a_self_signed_one(folder: Path) -> None:
    assert load(tls(self_signed(folder, "localhost"))).warnings == []


@pytest.mark.parametrize("missing", ["certificate", "key", "client_ca"])
def test_a_file_that_is_missing(good: Certificate, missing: str, tmp_path: Path) -> None:
    path = str(tmp_path / "none.pem")
    found = replaced(good, missing, path)
    assert wrong(found) == f"tls.{missing}: {path}: cannot be read: No such file or directory"


@pytest.mark.parametrize("other", ["ec", "rsa"])
def test_a_key_that_does_not_belong(
    authority: Authority, good: Certificate, tmp_path: Path, other: str
) -> None:
    key = authority.issue("localhost").key
    if other == "rsa":
        key = tmp_path / "rsa.key"
        openssl("genrsa", "-out", str(key), "2048")
    assert wrong(tls(good._replace(key=key))) == (
        f"tls.key: the key in {key} does not belong to the certificate in {good.certificate}"
    )


def test_a_key_with_a_passphrase(good: Certificate, tmp_path: Path) -> None:
    for options in (["pkey"], ["ec"]):  # the forms of today and of yesterday
        key = tmp_path / "locked.key"
        locked = ["-aes128", "-passout", "pass:secret", "-out", str(key)]
        openssl(*options, "-in", str(good.key), *locked)
        assert "needs a passphrase" in wrong(tls(good._replace(key=key)))


@pytest.mark.parametrize("key", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize("content", ["", "rubbish\n", "half"])
def test_what_is_not_pem(good: Certificate, tmp_path: Path, key: str, content: str) -> None:
    path = tmp_path / "bad.pem"
    source = good.key if key == "key" else good.certificate
    path.write_text(source.read_text()[:150] if content == "half" else content)
    assert wrong(replaced(good, key, str(path))).startswith(f"tls.{key}: {path}: ")


def test_damaged_certificates(good: Certificate, tmp_path: Path) -> None:
    path = tmp_path / "bad.pem"
    lines = good.certificate.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3] + lines[5:]))
    assert wrong(tls(good._replace(certificate=path))).startswith(f"tls.certificate: {path}: ")
    assert wrong(tls(good, path)).startswith(f"tls.client_ca: {path}: ")


def test_an_expired_one(authority: Authority) -> None:
    made = whole(authority, authority.issue("localhost", days=-1))
    assert re.fullmatch(
        rf"tls.certificate: {made.certificate}: expired on \d{{4}}-\d\d-\d\d", wrong(tls(made))
    )


def test_a_chain_that_has_expired(authority: Authority, folder: Path) -> None:
    below = authority.below("Branch")
    made = below.issue("localhost")
    extensions = folder / "expired.ext"
    extensions.write_text("basicConstraints=critical,CA:TRUE\n")
    wish = below.certificate.with_suffix(".csr")
    old = folder / "expired.pem"
    openssl("x509", "-req", "-in", str(wish), "-CA", str(authority.certificate), "-CAkey",
            str(authority.key), "-CAcreateserial", *validity(-1), "-extfile", str(extensions),
            "-out", str(old))  # fmt: skip
    own = made.certificate.read_bytes().removesuffix(below.certificate.read_bytes())
    made.certificate.write_bytes(own + old.read_bytes())
    assert wrong(tls(made)) == (
        f"tls.certificate: {made.certificate}: a certificate of its chain has expired"
    )


def test_one_that_is_not_valid_yet(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a machine without a battery must not keep it from starting."""
    made = whole(authority, authority.issue("localhost"))
    monkeypatch.setattr(time, "time", lambda: 1.0)
    (warning,) = load(tls(made)).warnings
    assert "is the clock right?" in warning


def test_one_for_another_purpose(authority: Authority) -> None:
    made = whole(authority, authority.issue("localhost", client=True))
    assert wrong(tls(made)) == (
        f"tls.certificate: {made.certificate}: is not for servers (its extended key usage)"
    )


def test_a_chain_that_leads_elsewhere(authority: Authority, folder: Path) -> None:
    made = whole(Authority(folder, "Stranger"), authority.issue("localhost"))
    assert "the chain is not complete: the certificate is from 'Test Authority'" in wrong(tls(made))


def test_a_client_authority_that_is_none(good: Certificate, authority: Authority) -> None:
    path = authority.issue("web-1", client=True).certificate
    assert wrong(tls(good, path)).startswith(f"tls.client_ca: {path}: ")


def test_a_key_that_everybody_can_read(good: Certificate) -> None:
    good.key.chmod(0o644)
    try:
        (warning,) = load(tls(good)).warnings
        assert warning.endswith("every user of this machine can read the key")
    finally:
        good.key.chmod(0o600)


# The daemon --------------------------------------------------------------------------------


def config(made: Certificate, more: str = "") -> str:
    return f"listen: 127.0.0.1\ntls:\n  certificate: {made.certificate}\n  key: {made.key}\n{more}"


@pytest.mark.parametrize("more", [["--check"], ["-p", "0"], ["--daemonize"]])
def test_an_error_names_file_and_line(
    good: Certificate, authority: Authority, tmp_path: Path, more: list[str]
) -> None:
    path = tmp_path / "msgd.yaml"
    path.write_text(config(good._replace(key=tmp_path / "none")))
    status, out, errors = call("-c", path, "-d", tmp_path / "archive", *more)
    assert (status, out) == (78, "")
    assert errors == (
        f"msgd: {path}:4: tls.key: {tmp_path}/none: cannot be read: No such file or directory\n"
    )


def trusting(authority: Path) -> ssl.SSLContext:
    """A client's; Python 3.13 would ask more of certificates than those of tests have."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(str(authority))
    return context


def shown(msgd: Daemon, authority: Authority) -> ssl.SSLSocket:
    """A TLS connection that is through its handshake."""
    context = trusting(authority.certificate)
    sock = socket.create_connection(("127.0.0.1", msgd.port), SECONDS)
    return context.wrap_socket(sock, server_hostname="localhost")


def serial(connection: ssl.SSLSocket) -> object:
    found = connection.getpeercert()
    assert found is not None
    return found["serialNumber"]


def test_a_reload_takes_renewed_certificates_and_only_good_ones(
    start: Start, authority: Authority, tmp_path: Path
) -> None:
    def renew() -> Certificate:
        return whole(authority, authority.issue("localhost", "127.0.0.1"))

    used = Certificate(tmp_path / "server.pem", tmp_path / "server.key")

    def install(made: Certificate) -> None:
        for source, target in zip(made, used, strict=True):
            target.write_bytes(Path(source).read_bytes())
            target.chmod(0o600)

    install(renew())
    msgd = start(config(used))
    with shown(msgd, authority) as old:
        first = serial(old)
        old.sendall(b"PING\n")
        assert old.recv(100) == b"PONG\n"

        used.key.write_bytes(renew().key.read_bytes())  # half of a pair that is being swapped
        msgd.signal(signal.SIGHUP)
        msgd.wait_log(r"tls.key: .* does not belong .*; going on with the old")
        with shown(msgd, authority) as another:
            assert serial(another) == first

        install(renew())
        msgd.signal(signal.SIGHUP)
        msgd.wait_log("configuration read again")
        with shown(msgd, authority) as another:
            assert serial(another) != first
        old.sendall(b"MESG still here\n")
        assert old.recv(100) == b"MESG still here\n"
    assert msgd.stop() == 0


def test_a_certificate_that_is_about_to_expire(
    start: Start, authority: Authority, tmp_path: Path
) -> None:
    made = whole(authority, authority.issue("localhost", days=10))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(SECONDS)
        manager.bind(str(tmp_path / "notify"))
        msgd = start(config(made), env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        msgd.wait_log(r"the certificate expires on \d{4}-\d\d-\d\d; renew it, then reload")
        while b"the certificate expires on " not in manager.recv(1000):
            pass
    assert msgd.stop() == 0


def test_the_warning_comes_once_a_day(caplog: pytest.LogCaptureFixture) -> None:
    status = heartbeat.Status(Alarm())
    status.expires = time.time() + heartbeat.EXPIRY_SECONDS + 60
    status.report(0, "", 0.0)
    assert caplog.records == []
    status.expires -= 120
    for _ in range(3):
        status.report(0, "", 0.0)
    assert len(caplog.records) == 1
    status.new_day()
    status.report(0, "", 0.0)
    assert len(caplog.records) == 2


def test_a_key_as_a_credential(start: Start, good: Certificate, tmp_path: Path) -> None:
    (tmp_path / "tls_key").write_bytes(good.key.read_bytes())
    os.chmod(tmp_path / "tls_key", 0o600)
    msgd = start(
        f"listen: 127.0.0.1\ntls.certificate: {good.certificate}\n",
        env={"CREDENTIALS_DIRECTORY": str(tmp_path)},
    )
    context = trusting(good.certificate)
    with socket.create_connection(("127.0.0.1", msgd.port), SECONDS) as sock:
        context.wrap_socket(sock, server_hostname="localhost").close()
