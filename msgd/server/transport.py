"""The system calls of one connection: plain, or with TLS in between.

A transport takes and gives bytes without ever blocking. The socket below stays what the selector
watches, and what the kernel tells of it: what is unread, and what is unacknowledged.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from msgd.server.addresses import unmapped

if TYPE_CHECKING:
    import ssl

_BUFFERS = os.sysconf("SC_IOV_MAX")  # the most that one sendmsg(2) takes
_THROWN_BYTES = 64 << 10
# What a record holds (RFC 8446, section 5.1). OpenSSL is given no more at once: it keeps memory for
# the most that it was ever given, as long as a connection lasts.
_RECORD_BYTES = 16 << 10
_ENCRYPTED_BYTES = 256 << 10  # are sent at once


class Plain:
    """A socket as it is."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.ended = False  # the client has said that nothing follows
        self.pending = 0  # bytes that `send` has taken, and the kernel has not
        self.remaining: int | None = None  # bytes to receive yet, once the server is stopping

    def limit(self) -> None:
        """Receive only what has arrived by now."""
        self.remaining = self.unread()

    def receive(self, size: int) -> bytes | None:
        """Up to ``size`` bytes; None: nothing for now; b"" at the end of the stream: see `ended`.

        Raises OSError where the connection is broken.
        """
        if self.remaining is not None:
            size = min(size, self.remaining)
            if not size:
                return None
        try:
            data = self.socket.recv(size)
        except (BlockingIOError, InterruptedError):
            return None
        self.ended = not data
        if self.remaining is not None:
            self.remaining -= len(data)
        return data

    def send(self, output: Sequence[bytes | memoryview]) -> int:
        """Send what fits of the first buffers; how many bytes of them that were. Raises OSError."""
        try:
            if len(output) == 1:  # the usual case, in half the time
                return self.socket.send(output[0])
            return self.socket.sendmsg(output[:_BUFFERS])
        except (BlockingIOError, InterruptedError):
            return 0

    def shut_down(self) -> None:
        """Close our side; the client may still send. Raises OSError."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the socket."""
        self.socket.close()

    def throw_away(self) -> bool:
        """Receive what nobody wants any more; false at the end of it. Raises OSError."""
        try:
            return self.socket.recv(_THROWN_BYTES) != b""
        except (BlockingIOError, InterruptedError):
            return True

    def is_gone(self) -> bool:
        """Whether the connection was reset, or both sides are closed; asked of the kernel.

        A client that has closed its side alone may still read (poll(2), POLLHUP).
        """
        poll = select.poll()
        poll.register(self.socket, 0)
        return bool(poll.poll(0))

    def called(self) -> str:
        """The address of ours that the client has called."""
        return unmapped(str(self.socket.getsockname()[0]))

    def unread(self) -> int:
        """Bytes that have arrived and were not received."""
        return _bytes(self.socket, termios.FIONREAD)

    def unacknowledged(self) -> int:
        """Bytes that the client's side has not acknowledged: SIOCOUTQ in tcp(7), with our FIN.

        A close with unread input, or input after it, resets the stream, and a reset drops what
        is still on its way (RFC 9293, section 3.10.4; RFC 1122, section 4.2.2.13).
        """
        return _bytes(self.socket, termios.TIOCOUTQ)


class Tls(Plain):
    """TLS over a socket, in memory: what is decrypted is given out whole, nothing waits inside."""

    def __init__(
        self,
        below: Plain,
        context: ssl.SSLContext,
        verified: Callable[[ssl.SSLObject], None],
    ) -> None:
        """``verified`` is called when the handshake is done.

        It raises ssl.SSLError for a client that may not come in.
        """
        import ssl  # 3 MB of OpenSSL, only for those who use it

        super().__init__(below.socket)
        self.remaining = below.remaining
        self.greeting = True  # the handshake of TLS is still under way
        self._ssl = ssl
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._in, self._out, server_side=True)
        self._verified = verified
        self._unsent = b""  # encrypted

    def receive(self, size: int) -> bytes | None:
        """As `Plain.receive`; raises ssl.SSLError, an OSError, for what is not TLS as it must be.

        A stream that ends without close_notify is at its end as well: only whole lines count.
        """
        data = super().receive(size)
        if data:
            return self.taken(data)
        if data is None or not self.greeting:
            return data  # OpenSSL must not hear of the end: it would send no more echoes
        self._in.write_eof()
        self._greet()
        return None

    def taken(self, data: bytes) -> bytes | None:
        """What is in these bytes and those before; None where that is not a whole record yet."""
        found: list[bytes] = []
        try:
            for part in _cut(data):
                self._in.write(part)
                if not self.greeting or self._greet():
                    self._decrypt(found)
        finally:
            self._flush()  # an answer of TLS's own, or the alert that tells why it ends
        return b"".join(found) or None

    def _greet(self) -> bool:
        """Go on with the handshake; whether it is done."""
        try:
            self._session.do_handshake()
        except self._ssl.SSLWantReadError:
            return False
        self._verified(self._session)
        self.greeting = False
        return True

    def _decrypt(self, found: list[bytes]) -> None:
        """Add what is in the records that are complete."""
        try:
            while data := self._session.read(_RECORD_BYTES):
                found.append(data)
                if not self._in.pending:  # to read on would only raise the error
                    return
            self.ended = True  # close_notify
        except self._ssl.SSLWantReadError:
            pass
        except (self._ssl.SSLEOFError, self._ssl.SSLZeroReturnError):
            self.ended = True

    def send(self, output: Sequence[bytes | memoryview]) -> int:
        """Encrypt some of the output once all is sent that was encrypted before."""
        if self._unsent:
            self._flush()
        if self._unsent or not output:
            return 0
        taken, encrypted = 0, []
        for part in _large(output):
            taken += self._session.write(part)
            encrypted.append(self._out.read())
            if taken >= _ENCRYPTED_BYTES:
                break
        self._put(encrypted)
        return taken

    def shut_down(self) -> None:
        """Say close_notify, and only then close our side."""
        with suppress(self._ssl.SSLError):  # the client's own need not have come
            self._session.unwrap()
        self._flush()
        super().shut_down()

    def close(self) -> None:
        """The same, and let go of the client: else only the garbage collector frees the two."""
        super().close()
        del self._verified

    def _flush(self) -> None:
        """Send what TLS wants to say."""
        if self._out.pending or self._unsent:
            self._put([self._unsent + self._out.read()])

    def _put(self, encrypted: list[bytes]) -> None:
        """Send this; what does not fit goes with the next `send`."""
        sent = super().send(encrypted)
        self.pending = sum(map(len, encrypted)) - sent
        self._unsent = b"".join(encrypted)[sent:] if self.pending else b""


def _large(output: Sequence[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The output in parts that fill records: small pieces joined, large ones cut."""
    small: list[bytes | memoryview] = []
    size = 0
    for piece in output:
        if size and size + len(piece) > _RECORD_BYTES:
            yield b"".join(small)
            small, size = [], 0
        if len(piece) > _RECORD_BYTES:
            yield from _cut(piece)
        else:
            small.append(piece)
            size += len(piece)
    if size:
        yield b"".join(small)


def _cut(data: bytes | memoryview) -> list[memoryview]:
    view = memoryview(data)
    return [view[at : at + _RECORD_BYTES] for at in range(0, len(view), _RECORD_BYTES)]


def _bytes(sock: socket.socket, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(sock, request, b"\0" * 4), "little")
