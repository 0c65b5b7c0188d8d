"""Who may come in: networks, places, proxies; and what the first bytes of a connection are.

A connection is judged twice: by its address when it is accepted, and once more by its first
bytes where those may name another address (a proxy's header) or begin TLS.
"""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from msgd.config.yamlfile import ConfigError
from msgd.process.log import Seldom
from msgd.server import addresses
from msgd.server.addresses import Networks, Origin
from msgd.server.transport import Tls
from msgd.wire.events import Close, Event
from msgd.wire.headers import BUSY, FAIL, TLS_REQUIRED
from msgd.wire.server import ServerProtocol

if TYPE_CHECKING:
    import ssl

    from msgd.config.options import Config
    from msgd.config.options import Tls as TlsOptions
    from msgd.server.certificates import Loaded
    from msgd.server.connection import Connection
    from msgd.server.proxy import Proxy

log = logging.getLogger("msgd")

_CLIENT_HELLO = b"\x16"  # a TLS record of the type handshake (RFC 8446, section 5.1)
# Beyond limits.clients, for the socket in the file system: so that an administrator gets in.
_KEPT_PLACES = 8


class Admission:
    """The rules for new clients, as the configuration has them now."""

    def __init__(self, config: Config) -> None:
        """Raises ConfigError for certificates that cannot be used."""
        self._places = Counter[str]()
        self._forbidden = Seldom(logging.WARNING, "%s may not connect (allow)")
        self._busy = Seldom(logging.WARNING, "%s turned away: %s")
        self._context: ssl.SSLContext | None
        self._context, self.expires, _ = _load(config.tls)  # its warnings were told at the start
        self._client_ca = config.tls.client_ca
        self._take(config)

    def configure(self, config: Config) -> None:
        """Take over a configuration; clients that are there stay. Raises ConfigError.

        An error changes nothing. Where only the server's certificate cannot be used, the old one
        stays, and all else is taken: it decides nothing about who may come in.
        """
        try:
            self._context, self.expires, warnings = _load(config.tls)
        except ConfigError as error:
            if self._context is None or config.tls.client_ca != self._client_ca:
                raise
            log.error("%s; going on with the old certificate", error)
        else:
            self._client_ca = config.tls.client_ca
            for words in warnings:
                log.warning("%s", words)
        self._take(config)

    def _take(self, config: Config) -> None:
        self._limits = config.limits
        self._allow = Networks(config.allow)
        self._proxies = Networks(config.proxy_from)
        self._required = config.tls.required
        self._names = frozenset(config.tls.clients)

    def entry(self, origin: Origin) -> Entry | None:
        """Who looks at the first bytes; None where nothing but msgd's protocol can come."""
        if self._is_proxy(origin):
            from msgd.server.proxy import Proxy

            return Entry(self, Proxy())
        return Entry(self, None) if self._context is not None else None

    def _is_proxy(self, origin: Origin) -> bool:
        return bool(origin.host and self._proxies) and origin.host in self._proxies

    def allows(self, origin: Origin) -> bool:
        """Whether this address may connect: of a proxy its clients are judged."""
        return self._is_proxy(origin) or self._allows_client(origin)

    def _allows_client(self, origin: Origin) -> bool:
        """The same for a client itself; of a Unix-domain socket its mode decides."""
        if not (origin.host and self._allow) or origin.host in self._allow:
            return True
        self._forbidden(origin.text)
        return False

    def has_place(self, origin: Origin, clients: int) -> bool:
        """Whether there is a place beside this number of clients; a proxy needs none of its own."""
        if clients >= self._limits.clients + (0 if origin.host else _KEPT_PLACES):
            self._busy(origin.text, f"limits.clients: {self._limits.clients}")
            return False
        return self._is_proxy(origin) or self._has_own_place(origin)

    def _has_own_place(self, origin: Origin) -> bool:
        most = self._limits.clients_per_address
        if most and self._places[origin.place] >= most:
            self._busy(origin.text, f"limits.clients_per_address: {most}")
            return False
        return True

    def enter(self, origin: Origin) -> None:
        """A client has come in: it takes a place."""
        self._places[origin.place] += 1

    def leave(self, origin: Origin) -> None:
        """It is gone, and its place is free."""
        self._places[origin.place] -= 1
        if not self._places[origin.place]:
            del self._places[origin.place]

    def protocol(self, *, line_only: bool = False) -> ServerProtocol:
        """The protocol of a new client."""
        return ServerProtocol(self._limits.message_bytes, line_only)

    def requires_tls(self, client: Connection) -> bool:
        """Whether plain text is refused: of all, or of those who are not on this machine."""
        if self._required == "no" or not client.origin.host:
            return False
        return self._required == "yes" or not client.is_own_machine()

    def secure(self, client: Connection, first: bytes) -> Tls | None:
        """TLS for a client whose first bytes are these; None where they are something else."""
        if self._context is None or not first.startswith(_CLIENT_HELLO):
            return None
        return Tls(client.transport, self._context, partial(self._verify, client))

    def _verify(self, client: Connection, session: ssl.SSLObject) -> None:
        """The client's certificate is of the right authority: take its name, if it may come in."""
        from msgd.server.certificates import client_name

        if not session.getpeercert():  # none was asked for: there is no tls.client_ca
            return
        name = client_name(session)
        if not name:
            raise NotWelcome(
                "its certificate holds no name: no DNS name in the subjectAltName, no common name"
            )
        if self._names and name not in self._names:
            raise NotWelcome(f"its certificate is for {name}, which is not in tls.clients")
        client.come_from(client.origin.named(name))

    def come_through(self, client: Connection, host: str, port: int) -> bool:
        """A proxy has told where its client comes from; whether there is a place for that.

        Raises `NotWelcome`.
        """
        origin = addresses.tcp(host, port)
        if not self._allows_client(origin):
            raise NotWelcome(f"{host}, for which this proxy speaks, may not connect")
        if not self._has_own_place(origin):
            return False
        self.leave(client.origin)
        self.enter(origin)
        client.come_from(origin)
        return True


def _load(tls: TlsOptions) -> Loaded | tuple[None, float, list[str]]:
    if tls.certificate is None:
        return None, inf, []
    from msgd.server.certificates import load  # 3 MB of OpenSSL, for those who use it

    return load(tls)


class NotWelcome(OSError):
    """This client may not come in: in words for the log."""


class Entry:
    """Looks at the first bytes of one connection, and is gone when it knows what they are."""

    __slots__ = ("_admission", "_proxy")

    def __init__(self, admission: Admission, proxy: Proxy | None) -> None:
        self._admission = admission
        self._proxy = proxy  # whose header comes first

    def open(self, client: Connection, data: bytes) -> tuple[bytes | None, list[Event]]:
        """Take the first bytes; what is behind them, or how the client is refused.

        Raises `NotWelcome`, and OSError where the connection is broken.
        """
        if self._proxy is not None:
            found = self._proxy.receive(data)
            if found is None:
                return None, []
            self._proxy = None
            host, port, data = found
            if host and not self._admission.come_through(client, host, port):
                return None, [client.protocol.reply(FAIL, BUSY), Close()]
            if not data:
                return None, []
        client.entry = None
        if tls := self._admission.secure(client, data):
            client.transport = tls
            client.protocol = self._admission.protocol(line_only=True)
            return tls.taken(data), []
        if self._admission.requires_tls(client):
            return None, [client.protocol.reply(FAIL, TLS_REQUIRED), Close()]
        return data, []
