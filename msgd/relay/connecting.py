"""How a connection is asked for, and in words why there is none: nats-py's side of it."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import ssl
from typing import Any
from urllib.parse import urlsplit

from msgd.relay.errors import Denied, Doubt
from msgd.relay.options import Config

CONNECT_SECONDS = 3.0


def import_nats() -> Any:
    """The library; raises Denied where it is missing."""
    try:
        import nats
    except ImportError:
        raise Denied(
            "nats-py is not installed, and msgd-relay needs it: pip install 'msgd[nats]', "
            "or your distribution's package python3-nats"
        ) from None
    # With TLS, the way in which it connects lets asyncio warn at the end of each connection.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    return nats


def options(config: Config, server: str, inbox: str) -> dict[str, Any]:
    """What `connect` of the library is told, but for callbacks. Raises Denied."""
    found: dict[str, Any] = {
        "servers": [server],
        "name": "msgd-relay",
        "allow_reconnect": False,
        "connect_timeout": CONNECT_SECONDS,
        "ping_interval": 5,
        "inbox_prefix": inbox,
        "max_reconnect_attempts": 1,
    }
    if config.user is not None:
        found |= {"user": config.user, "password": config.password or ""}
    if config.token is not None:
        found["token"] = config.token
    if config.credentials is not None:
        found["user_credentials"] = _credentials(config.credentials)
    if server.startswith("tls:") or any(config.tls):
        found["tls"] = _tls(config)
        found["tls_hostname"] = urlsplit(server).hostname
    return found


def numbers(version: str) -> tuple[int, ...]:
    """To compare versions by."""
    return tuple(int(part) for part in version.partition("-")[0].split(".") if part.isdigit())


def version_warning(version: str) -> str:
    """What a server of this version cannot be trusted with; empty for a good one."""
    if numbers(version) < (2, 10):
        return (
            "does not know sync_interval: always: a power cut of all servers loses blocks that it "
            "has acknowledged; use 2.10.25 or newer"
        )
    if (2, 10, 20) <= numbers(version) <= (2, 10, 22):
        return "can lose a whole stream when it is stopped hard; use 2.10.25 or newer, now"
    return ""


def why(server: str, error: Exception) -> Exception:
    """Why no connection came about."""
    text = str(error).removeprefix("nats: ").strip("'\" ")
    lower = text.lower()
    if isinstance(error, Denied):
        return error
    if "authorization" in lower or "authentication" in lower:
        return Denied(f"{server}: the server does not accept user, password, token or credentials")
    if isinstance(error, ssl.SSLCertVerificationError):
        return Denied(f"{server}: its certificate is not accepted: {error.verify_message}")
    if "secure connection" in lower or "tls required" in lower:
        return Denied(f"{server}: the server wants TLS: write tls:// instead of nats://")
    if isinstance(error, ssl.SSLError):
        return Doubt(f"{server}: TLS: {error.reason or error}")
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        text = "no answer in time"
    return Doubt(f"{server}: {text or type(error).__name__}")


def _credentials(path: str) -> str:
    if importlib.util.find_spec("nkeys") is None:
        raise Denied(
            "nkeys is not installed, and a credentials file needs it: pip install 'nats-py[nkeys]'"
        )
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise Denied(f"credentials: {path}: {error.strerror}") from None


def _tls(config: Config) -> ssl.SSLContext:
    ca, certificate, key = config.tls
    for name, path in zip(config.tls._fields, config.tls, strict=True):
        try:
            if path is not None:
                with open(path, "rb"):
                    pass
        except OSError as error:
            raise Denied(f"tls.{name}: {path}: {error.strerror}") from None
    try:
        context = ssl.create_default_context(cafile=ca)
        # Python 3.13 and newer refuse more; what is good on one machine should be on the other.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise Denied(
            f"tls: {ca if certificate is None else certificate}: cannot be used: "
            f"{error.reason or error}"
        ) from None
    return context
