"""TLS for the client: the handshake, the stream inside, and words for what goes wrong.

The TLS engine has no socket of its own: bytes go through two buffers, so that what the selector
shows is the truth, and a write that could not be finished is nobody's concern but this file's.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 (ssl imports it late: a fork could find the lock taken)
import socket
import ssl
from contextlib import suppress
from hmac import compare_digest

from msgd.client.contexts import context
from msgd.client.errors import ConnectionLost, NotConnected
from msgd.client.link import BLOCK_BYTES, CLOSED, Link, Patience, in_seconds
from msgd.client.servers import Server
from msgd.client.tls import Tls
from msgd.client.verdict import alert, fingerprint, host_name, plain, verdict

# The first bytes that a TLS server can send: an alert, or its part of the handshake.
_RECORDS = (b"\x15", b"\x16")


def secured(connection: socket.socket, server: Server, tls: Tls, patience: Patience) -> Link:
    """TLS over this connection, verified; raises `NotConnected`."""
    try:
        link = SecureLink(connection, context(tls), host_name(server))
        try:
            link.shake_hands(patience)
            if tls.pin and not compare_digest(link.fingerprint, tls.pin):
                raise NotConnected(
                    f"the certificate of {server} is not the one that was pinned: its fingerprint"
                    f" is {link.fingerprint}"
                )
        except ssl.SSLCertVerificationError as error:
            raise NotConnected(verdict(error, connection, server, tls)) from None
        except ssl.SSLError as error:
            raise NotConnected(f"no TLS with {server}: {alert(error)}") from None
        except _Plain as error:
            raise NotConnected(plain(server, error.said)) from None
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
        return fingerprint(self._tls.getpeercert(binary_form=True) or b"")

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
                raise ConnectionLost(f"no answer for {in_seconds(patience.seconds)}")

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
            self._failure = alert(error)
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
