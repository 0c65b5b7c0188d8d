"""TLS for the client: the handshake, the stream inside, and words for what goes wrong.

The TLS engine has no socket of its own: bytes go through two buffers, so that what the selector
shows is the truth, and a write that could not be finished is nobody's concern but this file's.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 (ssl imports it late: a fork could find the lock taken)
import socket
import ssl
from contextlib import suppress
from hashlib import sha256
from hmac import compare_digest
from time import gmtime, strftime
from typing import Any

from msgd.client.errors import ConnectionLost, NotConnected
from msgd.client.link import BLOCK_BYTES, CLOSED, Link, Patience
from msgd.client.servers import Server, safe
from msgd.client.tls import Tls

_LOOK_SECONDS = 3.0  # for a second look at a certificate that was refused
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME

# What OpenSSL says of a key that belongs to another certificate; the second is for another kind.
_OTHER_KEY = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED", "KEY_TYPE_MISMATCH")

# The first bytes that a TLS server can send: an alert, or its part of the handshake.
_RECORDS = (b"\x15", b"\x16")


def secured(connection: socket.socket, server: Server, tls: Tls, patience: Patience) -> Link:
    """TLS over this connection, verified; raises `NotConnected`."""
    try:
        link = SecureLink(connection, _context(tls), _name(server))
        try:
            link.shake_hands(patience)
            if tls.pin and not compare_digest(link.fingerprint, tls.pin):
                raise NotConnected(
                    f"the certificate of {server} is not the one that was pinned: its fingerprint"
                    f" is {link.fingerprint}"
                )
        except ssl.SSLCertVerificationError as error:
            raise NotConnected(_verdict(error, connection, server, tls)) from None
        except ssl.SSLError as error:
            raise NotConnected(f"no TLS with {server}: {_alert(error)}") from None
        except _Plain as plain:
            raise NotConnected(_plain(server, plain.said)) from None
        except ConnectionLost as error:
            raise NotConnected(f"no TLS with {server}: {error}") from None
    except BaseException:
        connection.close()
        raise
    return link


class _Plain(Exception):
    """The other end does not speak TLS."""

    def __init__(self, said: bytes) -> None:
        super().__init__()
        self.said = said


class SecureLink(Link):
    """A stream inside TLS."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, name: str) -> None:
        super().__init__(connection)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=name)
        self._unsent = memoryview(b"")
        self._begun = False  # something has come
        self._failure: str | None = None  # how the stream inside has ended

    @property
    def fingerprint(self) -> str:
        """``sha256:HEX`` of the server's certificate."""
        return _fingerprint(self._tls.getpeercert(binary_form=True) or b"")

    @property
    def unsent(self) -> bool:
        return bool(self._unsent) or self._out.pending > 0

    def shake_hands(self, patience: Patience) -> None:
        """Raises `ConnectionLost`, ssl.SSLError, and `_Plain` where that is no TLS."""
        while not self._stepped():
            readable, _, _ = self.wait(False, patience)
            self._flush()
            if readable and (data := self._receive()) is not None:
                self._feed(data)
            elif not patience.left:
                raise ConnectionLost(f"no answer for {patience.seconds:g} seconds")

    def _stepped(self) -> bool:
        """One step of the handshake; whether it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._flush()  # in case of an error: the other end is told which
        return True

    def _feed(self, data: bytes) -> None:
        if not data:
            raise ConnectionLost(CLOSED)
        if not self._begun and not data.startswith(_RECORDS):
            raise _Plain(data)
        self._begun = True
        self._in.write(data)

    def read(self) -> bytes:
        data = self._receive()
        if data:
            self._in.write(data)
        plain = self._decrypted()
        self._flush()  # TLS itself may have something to say
        if not plain and data == b"":
            raise ConnectionLost("the connection broke (it was cut off in the middle of TLS)")
        return plain

    @property
    def ended(self) -> bool:
        return self._failure is not None

    def _decrypted(self) -> bytes:
        """What there is inside; behind it, how it ended."""
        parts = []
        try:
            while part := self._tls.read(BLOCK_BYTES):
                parts.append(part)
            self._failure = CLOSED
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._failure = CLOSED
        except ssl.SSLError as error:
            self._failure = _alert(error)
        if self._failure is not None and not parts:
            raise ConnectionLost(self._failure)
        return b"".join(parts)

    def write(self, data: memoryview) -> int:
        """Takes a block at a time, encrypts it, and keeps what the system does not take yet."""
        self._flush()
        if self.unsent or not data:
            return 0
        try:
            size = self._tls.write(data[:BLOCK_BYTES])
        except ssl.SSLError:
            self._deaf = True
            return 0
        self._flush()
        return size

    def _flush(self) -> None:
        while self.unsent and not self._deaf:
            if not self._unsent:
                self._unsent = memoryview(self._out.read())
            size = self._send(self._unsent)
            self._unsent = self._unsent[size:]
            if not size:
                return

    def close(self) -> None:
        """Says goodbye first, so that the server does not take the end for a break."""
        if not self.closed:
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()
        super().close()


def _context(tls: Tls, verify: bool = True) -> ssl.SSLContext:
    """Verification as asked for; raises `NotConnected` where a file cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Whoever trusts one certificate, or an authority in the middle, need not trust those above.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if tls.pin or not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca:
        _read_first(tls.ca)
        try:
            context.load_verify_locations(tls.ca)
        except ssl.SSLError:
            raise NotConnected(f"{safe(tls.ca)}: there is no certificate in it (PEM)") from None
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if tls.certificate:
        _load_own(context, tls.certificate, tls.key)
    return context


def _load_own(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    for path in (certificate, key or certificate):
        _read_first(path)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as error:
        key = safe(key or certificate)
        if error.reason in _OTHER_KEY:
            raise NotConnected(f"{key}: the key does not belong to the certificate") from None
        raise NotConnected(
            f"{safe(certificate)}, {key}: no certificate and key that can be used (PEM)"
        ) from None
    except ValueError:
        raise NotConnected(f"{safe(key or certificate)}: the key has a password") from None


def _no_password() -> str:
    raise ValueError  # OpenSSL would ask the terminal


def _read_first(path: str) -> None:
    """For OpenSSL does not say which file it was."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise NotConnected(f"{safe(path)}: {error.strerror}") from None


def _name(server: Server) -> str:
    return server.host.partition("%")[0].removesuffix(".")


def _fingerprint(certificate: bytes) -> str:
    return f"sha256:{sha256(certificate).hexdigest()}"


def _plain(server: Server, said: bytes) -> str:
    line = said.partition(b"\n")[0]
    if line.startswith(b"FAIL ") and line != b"FAIL handshake expected":
        return f"{server} refuses the connection: {safe(line[5:200])}"
    return (
        f"{server} does not speak TLS: it is a plain server, or not msgd (tls.certificate in its"
        " msgd.yaml makes a msgd take TLS)"
    )


def _alert(error: ssl.SSLError) -> str:
    """Which side refused, and what to do about it."""
    reason = error.reason or ""
    for word, meaning in _ALERTS.items():
        if word in reason:
            return f"the server {meaning}"
    if "ALERT" in reason:
        return f"the server refused the handshake ({reason.lower().replace('_', ' ')})"
    return f"TLS failed ({reason.lower().replace('_', ' ') or 'no reason given'})"


# By a word of OpenSSL's name for the alert that came.
_ALERTS = {
    "CERTIFICATE_REQUIRED": "wants a certificate of this client: --cert and --key",
    "ALERT_UNKNOWN_CA": "does not know the authority of this client's certificate",
    "ALERT_CERTIFICATE_EXPIRED": "finds this client's certificate expired",
    "ALERT_CERTIFICATE_REVOKED": "finds this client's certificate revoked",
    "ALERT_BAD_CERTIFICATE": "refuses this client's certificate",
    "ALERT_UNSUPPORTED_CERTIFICATE": "refuses this client's certificate: made for another purpose",
    "ALERT_ACCESS_DENIED": "does not let this client's name in",
    "ALERT_PROTOCOL_VERSION": "takes none of the versions of TLS that this client has",
    "ALERT_HANDSHAKE_FAILURE": "refused the handshake: does it want a certificate (--cert)?",
}

_EXPIRED, _NOT_YET, _HOST, _ADDRESS, _PURPOSE = 10, 9, 62, 64, 26
_UNKNOWN_AUTHORITY = (2, 18, 19, 20, 21)


def _verdict(
    error: ssl.SSLCertVerificationError, connection: socket.socket, server: Server, tls: Tls
) -> str:
    """What is wrong with the certificate: a second look at it knows more than the error."""
    code = error.verify_code
    seen = _Look(connection, server, tls)
    its = f"the certificate of {server}"
    if code in (_HOST, _ADDRESS):
        return f"{its} is for {seen.names}, not for {safe(server.host)}"
    if code == _EXPIRED:
        return f"{its} expired{seen.day('notAfter')}"
    if code == _NOT_YET:
        return f"{its} begins to count only{seen.day('notBefore')}: is this machine's clock right?"
    if code == _PURPOSE:
        return f"{its} is not made for a server"
    if code in _UNKNOWN_AUTHORITY:
        return (
            f"{its} is signed by an authority that this machine does not know: --ca, or --pin"
            f" {seen.fingerprint} after you have compared it on the server with: openssl x509"
            " -noout -fingerprint -sha256 -in its-certificate.pem"
        )
    return f"{its} is refused: {error.verify_message}"


class _Look:
    """A second connection, which sends nothing inside, to see what the certificate says."""

    def __init__(self, first: socket.socket, server: Server, tls: Tls) -> None:
        self._fields: dict[str, Any] = {}
        self.fingerprint = "sha256:..."
        with suppress(OSError, ValueError):
            self._address, self._family = first.getpeername(), first.family
            self._name = _name(server)
            self.fingerprint = _fingerprint(self._certificate(_context(tls, verify=False))[0])
            lenient = _context(tls)
            lenient.check_hostname = False
            lenient.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
            self._fields = self._certificate(lenient)[1]

    def _certificate(self, context: ssl.SSLContext) -> tuple[bytes, dict[str, Any]]:
        with socket.socket(self._family, socket.SOCK_STREAM) as again:
            again.settimeout(_LOOK_SECONDS)
            again.connect(self._address)
            with context.wrap_socket(again, server_hostname=self._name) as seen:
                return seen.getpeercert(binary_form=True) or b"", seen.getpeercert() or {}

    @property
    def names(self) -> str:
        found = [value for _, value in self._fields.get("subjectAltName", ())]
        if not found:
            parts = self._fields.get("subject", ())
            found = [value for part in parts for key, value in part if key == "commonName"]
        return safe(", ".join(found[:5])) or "another name"

    def day(self, field: str) -> str:
        if field not in self._fields:
            return ""
        return strftime(" on %Y-%m-%d", gmtime(ssl.cert_time_to_seconds(self._fields[field])))
