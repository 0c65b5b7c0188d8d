"""The server's certificate and key, and the authority of its clients: loaded, and proved to work.

What is wrong with them is found here, in words and with the file's name, and not by a client.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from msgd.config.yamlfile import ConfigError
from msgd.server.addresses import safe_name

if TYPE_CHECKING:
    from msgd.config.options import Tls

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(r"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----")
_ENCRYPTED = re.compile(
    r"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE
)
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which the module ssl does not name
_EXPIRED, _PURPOSE = 10, 26  # X509_V_ERR_*, as verify_code has them
_REASONS = {
    "EE_KEY_TOO_SMALL": "its key is too short to be safe",
    "CA_KEY_TOO_SMALL": "the key of its authority is too short to be safe",
    "CA_MD_TOO_WEAK": "it is signed by a method that is not safe any more",
}
_FOREIGN_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


class Loaded(NamedTuple):
    """What a configuration of TLS comes to."""

    context: ssl.SSLContext
    expires: float  # the server's certificate: seconds of the epoch
    warnings: list[str]  # what may be wrong, and does not keep it from being used


def load(tls: Tls) -> Loaded:
    """The context for accepting connections, of the files that are configured.

    Raises ConfigError, which begins with the key that is wrong.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    chain = _load_chain(context, tls)
    expires, warnings = _prove(context, tls, chain)
    if tls.client_ca:
        warnings += _load_authority(context, tls.client_ca)
    return Loaded(context, expires, warnings)


def client_name(session: ssl.SSLObject) -> str:
    """The name that the client has proved, as it stands in an origin; "" where it has none."""
    certificate = cast("dict[str, Any]", session.getpeercert() or {})
    names = [name for kind, name in certificate.get("subjectAltName", ()) if kind == "DNS"]
    return safe_name((names or [_common_name(certificate.get("subject", ()))])[0])


def _common_name(name: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    found = [value for part in name for kind, value in part if kind == "commonName"]
    return found[0] if found else ""


def _load_chain(context: ssl.SSLContext, tls: Tls) -> list[str]:
    """Load certificate and key; the certificates of the chain, in PEM."""
    certificate, key = str(tls.certificate), str(tls.key)
    chain = _certificates("tls.certificate", certificate)
    text = _read("tls.key", key)
    if _ENCRYPTED.search(text):
        raise ConfigError(
            f"tls.key: {key}: needs a passphrase, for which nobody can be asked;"
            f" openssl pkey -in {key} writes it without one"
        )
    if not _KEY.search(text):
        raise ConfigError(f"tls.key: {key}: holds no private key in PEM form")
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason in _FOREIGN_KEY:
            raise ConfigError(
                f"tls.key: the key in {key} does not belong to the certificate in {certificate}"
            ) from None
        if error.reason is None:  # the certificate was read before
            raise ConfigError(f"tls.key: {key}: its private key is damaged") from None
        raise ConfigError(f"tls.certificate: {certificate}: {_words(error)}") from None
    except OSError as error:  # changed since it was read
        raise ConfigError(f"tls.certificate: {certificate}: {error.strerror}") from None
    return chain


def _load_authority(context: ssl.SSLContext, path: str) -> list[str]:
    """Have clients show a certificate of the authorities in this file; what may be wrong there."""
    pem = "\n".join(_certificates("tls.client_ca", path))
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it may be below another authority
    context.load_verify_locations(cadata=pem)
    known = cast("list[dict[str, Any]]", context.get_ca_certs())
    if not known:
        raise ConfigError(f"tls.client_ca: {path}: its certificate is not that of an authority")
    expired = [
        f"tls.client_ca: {path}: the authority {_common_name(found['subject'])!r}"
        f" expired on {_day(found['notAfter'])}"
        for found in known
        if ssl.cert_time_to_seconds(found["notAfter"]) < time.time()
    ]
    if len(expired) == len(known):
        raise ConfigError(expired[0])
    return expired


def _prove(context: ssl.SSLContext, tls: Tls, chain: list[str]) -> tuple[float, list[str]]:
    """Shake hands with oneself, in memory: when the certificate expires, and what may be wrong.

    Raises ConfigError for what no client could accept.
    """
    where = f"tls.certificate: {tls.certificate}:"
    shown = _shown(context, chain, where)
    expires = float(ssl.cert_time_to_seconds(shown["notAfter"]))
    if expires < time.time():
        raise ConfigError(f"{where} expired on {_day(shown['notAfter'])}")
    warnings = []
    if ssl.cert_time_to_seconds(shown["notBefore"]) > time.time():
        warnings.append(f"{where} is valid from {_day(shown['notBefore'])} on; is the clock right?")
    issuer = _common_name(shown["issuer"])
    if not _is_linked(context, chain, where, 0 if not warnings else _NO_CHECK_TIME):
        raise ConfigError(
            f"{where} the chain is not complete: the certificate is from {issuer!r},"
            " and what follows in the file does not lead on from there"
        )
    if not _verifies(context, chain, _NO_CHECK_TIME, system=True):
        warnings.append(
            f"{where} the chain may not be complete: it is from {issuer!r}, and the file does not"
            " lead to an authority that this machine knows; clients need that authority (--ca)"
        )
    if os.stat(str(tls.key)).st_mode & 0o004:
        warnings.append(f"tls.key: {tls.key}: every user of this machine can read the key")
    return expires, warnings


def _shown(context: ssl.SSLContext, chain: list[str], where: str) -> dict[str, Any]:
    """The server's own certificate, as a client sees it that trusts it, whatever the time."""
    try:
        return _handshake(context, chain, ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
    except ssl.SSLCertVerificationError as error:
        purpose = "is not for servers (its extended key usage)"
        words = purpose if error.verify_code == _PURPOSE else error.verify_message
        raise ConfigError(f"{where} {words}") from None
    except ssl.SSLError as error:
        raise ConfigError(f"{where} {_words(error)}") from None


def _is_linked(context: ssl.SSLContext, chain: list[str], where: str, flags: int) -> bool:
    """Whether the certificates lead from the first to the last, or to what this machine knows."""
    try:
        _handshake(context, chain[-1:], ssl.VERIFY_X509_PARTIAL_CHAIN | flags)
    except ssl.SSLCertVerificationError as error:
        if _verifies(context, [], flags, system=True):
            return True
        if error.verify_code == _EXPIRED:
            raise ConfigError(f"{where} a certificate of its chain has expired") from None
        return False
    return True


def _verifies(context: ssl.SSLContext, trusted: list[str], flags: int, *, system: bool) -> bool:
    try:
        _handshake(context, trusted, flags, system=system)
    except ssl.SSLCertVerificationError:
        return False
    return True


def _handshake(
    context: ssl.SSLContext, trusted: list[str], flags: int, *, system: bool = False
) -> dict[str, Any]:
    """A client's handshake with this server: the certificate that it was shown.

    Raises ssl.SSLError for what such a client refuses.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= flags
    if trusted:
        trusting.load_verify_locations(cadata="\n".join(trusted))
    if system:
        trusting.set_default_verify_paths()
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    while client.version() is None:
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return cast("dict[str, Any]", client.getpeercert())


def _certificates(key: str, path: str) -> list[str]:
    found = _CERTIFICATE.findall(_read(key, path))
    if not found:
        raise ConfigError(f"{key}: {path}: holds no certificate in PEM form")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata="\n".join(found))
    except ssl.SSLError:
        raise ConfigError(f"{key}: {path}: a certificate in it is damaged") from None
    return found


def _read(key: str, path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"{key}: {path}: cannot be read: {error.strerror}") from None


def _words(error: ssl.SSLError) -> str:
    """OpenSSL's reason, without its numbers."""
    reason = error.reason or "it cannot be used"
    return _REASONS.get(reason, reason.lower().replace("_", " "))


def _day(text: str) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(ssl.cert_time_to_seconds(text)))
