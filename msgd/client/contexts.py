"""What TLS is to verify and to show, from the files that a user names."""

from __future__ import annotations

import ssl

from msgd.client.errors import NotConnected
from msgd.client.servers import safe
from msgd.client.tls import Tls

# What OpenSSL says of a key that belongs to another certificate; the second is for another kind.
_OTHER_KEY = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED", "KEY_TYPE_MISMATCH")


def context(tls: Tls, verify: bool = True) -> ssl.SSLContext:
    """Verification as asked for; raises `NotConnected` where a file cannot be used."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # Whoever trusts one certificate, or an authority in the middle, need not trust those above.
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if tls.pin or not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    elif tls.ca:
        _read_first(tls.ca)
        try:
            made.load_verify_locations(tls.ca)
        except ssl.SSLError:
            raise NotConnected(f"{safe(tls.ca)}: there is no certificate in it (PEM)") from None
    else:
        made.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if tls.certificate:
        _load_own(made, tls.certificate, tls.key)
    return made


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
