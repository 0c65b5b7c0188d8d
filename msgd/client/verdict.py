"""What went wrong in TLS, in words that say what to do."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from hashlib import sha256
from time import gmtime, strftime
from typing import Any

from msgd.client.contexts import context
from msgd.client.servers import Server, safe
from msgd.client.tls import Tls

_LOOK_SECONDS = 3.0  # for a second look at a certificate that was refused
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME


def host_name(server: Server) -> str:
    return server.host.partition("%")[0].removesuffix(".")


def fingerprint(certificate: bytes) -> str:
    return f"sha256:{sha256(certificate).hexdigest()}"


def plain(server: Server, said: bytes) -> str:
    line = said.partition(b"\n")[0]
    if line.startswith(b"FAIL ") and line != b"FAIL handshake expected":
        return f"{server} refuses the connection: {safe(line[5:200])}"
    return (
        f"{server} does not speak TLS: it is a plain server, or not msgd (tls.certificate in its"
        " msgd.yaml makes a msgd take TLS)"
    )


def alert(error: ssl.SSLError) -> str:
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


def verdict(
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
            self._name = host_name(server)
            self.fingerprint = fingerprint(self._certificate(context(tls, verify=False))[0])
            lenient = context(tls)
            lenient.check_hostname = False
            lenient.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
            self._fields = self._certificate(lenient)[1]

    def _certificate(self, how: ssl.SSLContext) -> tuple[bytes, dict[str, Any]]:
        with socket.socket(self._family, socket.SOCK_STREAM) as again:
            again.settimeout(_LOOK_SECONDS)
            again.connect(self._address)
            with how.wrap_socket(again, server_hostname=self._name) as seen:
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
