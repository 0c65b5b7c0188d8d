"""What went wrong on a client's connection, in words that say what to do.

OpenSSL's reasons name the side that complains only by their prefix: an alert has come from the
client; anything else is our own finding.
"""

from __future__ import annotations

import errno
from contextlib import suppress

# What a client finds wrong with us: RFC 8446, section 6.2.
_ALERTS = {
    "UNKNOWN_CA": "it does not know the authority of our certificate: give it that authority's "
    "file, such as by msgctl --ca",
    "CERTIFICATE_EXPIRED": "it finds our certificate expired: renew tls.certificate, and reload",
    "BAD_CERTIFICATE": "it refuses our certificate: the name that it has called may not stand in "
    "it, or it pins another one",
    "CERTIFICATE_UNKNOWN": "it refuses our certificate: its name, its authority or its time",
    "UNSUPPORTED_CERTIFICATE": "it refuses our certificate: it may not be one for a server",
    "PROTOCOL_VERSION": "it does not speak TLS 1.2 or newer",
    "HANDSHAKE_FAILURE": "it has no method in common with this machine's OpenSSL configuration",
}
# What we find wrong with a client.
_FINDINGS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate, and tls.client_ca asks for one: "
    "msgctl --cert and --key, made by msgd make-tls --client",
    "UNSUPPORTED_PROTOCOL": "it speaks an old TLS: 1.2 or newer is needed",
    "VERSION_TOO_LOW": "it speaks an old TLS: 1.2 or newer is needed",
    "WRONG_VERSION_NUMBER": "what it sends only begins like TLS",
    "NO_SHARED_CIPHER": "it has no method in common with this machine's OpenSSL configuration",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "it does not take the kind of key that our certificate has",
    "NO_RENEGOTIATION": "it asks to negotiate again, which is not offered",
}
_VERIFIED = {
    "certificate has expired": "its certificate has expired: make or renew it",
    "certificate is not yet valid": "its certificate is not valid yet: compare the clocks",
    "unable to get local issuer certificate": "its certificate is of an authority that is not in "
    "tls.client_ca, or it does not send the certificates between",
    "self-signed certificate": "its certificate is self-signed, and not in tls.client_ca",
    "unsuitable certificate purpose": "its certificate is not one for a client",
}


def words(error: OSError) -> str:
    """What is wrong, for the log; "" for a connection that just broke, which is no news."""
    if error.errno is not None and error.errno in errno.errorcode and not _is_tls(error):
        return ""
    return f"TLS: {_tls_words(error)}" if _is_tls(error) else str(error)


def _is_tls(error: OSError) -> bool:
    return hasattr(error, "library")  # ssl.SSLError, without loading OpenSSL to ask for it


def _tls_words(error: OSError) -> str:
    if message := getattr(error, "verify_message", ""):
        return _VERIFIED.get(message, f"its certificate is refused: {message}")
    reason = getattr(error, "reason", None) or ""
    for name, found in _ALERTS.items():
        if reason.endswith(f"ALERT_{name}"):
            return found
    with suppress(KeyError):
        return _FINDINGS[reason]
    if not reason or "EOF" in reason:
        return "it has left in the middle of the handshake"
    return reason.replace("_", " ").lower()
