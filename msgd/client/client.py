"""A client for msgd: send messages, and know that they are in the archive.

    with Client("127.0.0.1", 6743) as client:
        client.send("hello")  # returns the text as archived, once it is on stable storage
        for receipt in client.send_many(lines):
            print(receipt.number, receipt.text)

Time-outs are seconds without any progress, not for the whole of a call: however long it takes,
a call goes on as long as the server goes on. Every error is a `MsgdError`. A client is for one
thread at a time.
"""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Iterable, Iterator
from time import monotonic
from types import TracebackType
from typing import NamedTuple, NoReturn, Protocol, Self

from msgd.client.errors import (
    ConnectionLost,
    MsgdError,
    NoSessions,
    NotConnected,
    NotNow,
    PasswordRefused,
    Refused,
    SessionError,
)
from msgd.client.inflight import SESS, UNKNOWN_HEADER, Answer, Block, Pipeline, session_number
from msgd.wire.client import ClientProtocol, ProtocolError, Reply
from msgd.wire.headers import FAIL, PING, PONG, PWIV, PWNO, PWOK, TERM, encode_message, request
from msgd.wire.text import escape

__all__ = [
    "BLOCK_BYTES",
    "PORT",
    "Client",
    "ConnectionLost",
    "MsgdError",
    "NotConnected",
    "PasswordRefused",
    "Receipt",
    "Refused",
    "receipts",
]

PORT = 6743

# One bounded read a turn. A block is as long, so that no copy of one costs much.
BLOCK_BYTES = 64 << 10

# The replies that are one line, and whether a text belongs to each.
_REPLIES = {PONG: False, PWOK: False, PWNO: False, PWIV: False, FAIL: True, SESS: True}
_REPLY_BYTES = 1024

_SESSION = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_STRANGER = "what listens there is not msgd, check the port"

# For how long a block of texts is gathered, in seconds.
_GATHER_SECONDS = 0.005


class Receipt(NamedTuple):
    """The server's answer to one message: archived as `text`, or refused for a reason."""

    number: int  # of the message, counted from 1
    text: str | None
    refusal: str | None = None


class Source(Protocol):
    """Where blocks of messages come from."""

    ended: bool

    def fileno(self) -> int | None:
        """What to wait for until `read` does not block; None: it never does."""

    def read(self) -> Block:
        """The next block, perhaps an empty one; sets `ended` when it is the last."""


class Client:
    """A connection to a msgd.

    Connecting raises `NotConnected`. `timeout` is in seconds. Leaving the context closes it.

    With `session` the messages belong to the session of this name (1 to 64 letters, digits, and
    ``._-``), and are numbered: `last` is the number of the last one that is known to be in the
    archive, 0 for a new session. Whoever sends ``texts`` from the beginning of a session, and
    goes on with ``texts[client.last:]`` after a break, has each of them in the archive once.
    A refused message keeps its number, which the archive leaves out. The server without sessions
    raises `NoSessions`, a session that cannot go on `SessionError`.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = PORT,
        timeout: float = 10.0,
        *,
        session: str | None = None,
    ) -> None:
        if session is not None and not re.fullmatch(_SESSION, session, re.ASCII):
            raise ValueError(f"no name for a session: {session!r}")
        self.host, self.port, self.timeout = host, port, timeout
        self.session = session
        self.last = 0
        self._following = 1  # the number that the server gives to the next message
        self._socket = self._connect()
        self._progress = 0.0  # when the server last took or gave a byte, or was last owed nothing
        self._deaf = False  # the server takes nothing any more
        try:
            self._shake_hands()
            if session is not None:
                self._open_session(session)
        except MsgdError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the server goes on. May be called twice."""
        self._socket.close()

    def closed_by_server(self) -> bool:
        """Whether the server has closed the connection, or it broke, while nothing was due."""
        if self._socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    @property
    def address(self) -> str:
        """Where this client wants to connect: ``host:port``, ``[host]:port`` for IPv6."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return _safe(f"{host}:{self.port}")

    def ping(self) -> float:
        """Ask whether the server is there; returns the round-trip time in seconds."""
        start = monotonic()
        self._expect(self._ask(request(PING)), PONG)
        return monotonic() - start

    def send(self, text: str | bytes) -> str:
        """Send one message, of several lines where the text holds line feeds.

        Returns the text as archived: with escapes for what may not stand in an archive.
        Raises `Refused` and `ConnectionLost`.
        """
        [receipt] = self.send_many([text])
        if receipt.text is None:
            raise Refused(receipt.refusal or "")
        return receipt.text

    def send_many(self, texts: Iterable[str | bytes]) -> Iterator[Receipt]:
        """Send messages without waiting for each, and yield the receipts in order.

        Holds a few megabytes of them at most. An iterable that blocks holds up what was taken
        from it in the milliseconds before, and all receipts: let it be quick. A refusal is a
        receipt and ends nothing; `ConnectionLost` ends it. If the iteration is given up while
        answers are due, the client is closed.
        """
        pipeline = Pipeline(self._following - 1)
        try:
            for answer in self.transmit(pipeline, _Texts(texts)):
                yield from receipts(answer)
        finally:
            if not pipeline.idle:
                self.close()

    def terminate(self, password: str | bytes) -> None:
        """Ask the server to stop; returns when it has stopped listening and said goodbye.

        Raises `PasswordRefused` where the server goes on, `Refused` where it cannot verify the
        password now.
        """
        secret = _bytes(password)
        if b"\n" in secret or b"\r" in secret:  # would end the request: not well formed
            raise PasswordRefused(well_formed=False)
        reply = self._ask(request(TERM, secret))
        if reply.header in (PWNO, PWIV):
            raise PasswordRefused(reply.header == PWNO)
        self._expect(reply, PWOK)
        self._await_end()

    def transmit(self, pipeline: Pipeline, source: Source) -> Iterator[Answer]:
        """Send all that is in the pipeline and the source; yield the answers as they come.

        It reads while it writes, so that no backpressure of the server's can stop both. It
        raises `ConnectionLost`; the pipeline can then go on with another client. In a session
        that client must have the same one, and message k of the pipeline has the number
        ``start + k``: those that the archive holds already are answered without being sent.
        `NotNow` and `SessionError` are a session's.
        """
        self._progress = monotonic()
        try:
            pipeline.begin(self.session or "", self.last, self._following)
            yield from pipeline.told()
            while not (source.ended and pipeline.idle):
                wanted = None if source.ended or not pipeline.has_room else source
                sending = bool(pipeline.output())
                readable, writable, ready = self._wait(sending, not pipeline.idle, wanted)
                if ready:
                    pipeline.add(source.read())
                    yield from pipeline.told()
                if writable:
                    pipeline.sent(self._write(pipeline.output()))
                if readable:
                    yield from pipeline.receive(self._read())
                self.last, self._following = pipeline.archived, pipeline.next_number
                if pipeline.failure is not None and not (source.ended and pipeline.idle):
                    raise pipeline.failure
            pipeline.check_end()
            if pipeline.failure is not None:
                self.close()  # it says more than it is asked: the next answer would be in doubt
        except ProtocolError:
            self._lost(_STRANGER, pipeline)
        except NotNow as error:
            self.close()
            error.confirmed, error.refused = pipeline.confirmed, pipeline.refused
            raise
        except SessionError:
            self.close()
            raise
        except ConnectionLost as error:
            self._lost(str(error), pipeline)

    def _lost(self, reason: str, pipeline: Pipeline) -> NoReturn:
        self.close()
        raise ConnectionLost(
            reason, pipeline.confirmed, pipeline.refused, pipeline.unknown
        ) from None

    def _connect(self) -> socket.socket:
        try:
            connection = socket.create_connection((self.host, self.port), self.timeout)
        except OSError as error:
            raise NotConnected(self._why_not(error)) from None
        except UnicodeError:  # no name can look like this one
            raise NotConnected(self._why_not(socket.gaierror())) from None
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        return connection

    def _why_not(self, error: OSError) -> str:
        match error:
            case socket.gaierror():
                return f"there is no host called '{_safe(self.host)}': check the name"
            case ConnectionRefusedError():
                return f"nobody listens at {self.address}: is msgd started there?"
            case TimeoutError():
                return f"cannot connect to {self.address}: {self._silent()}"
        return f"cannot connect to {self.address}: {error.strerror}"

    def _shake_hands(self) -> None:
        try:
            reply = self._ask(request(PING))
        except ConnectionLost as error:
            raise NotConnected(f"no handshake with {self.address}: {error}") from None
        if reply.header == FAIL:
            raise NotConnected(f"{self.address} refuses the connection: {_reason(reply)}")
        if reply.header != PONG:
            raise NotConnected(f"no handshake with {self.address}: {_STRANGER}")

    def _open_session(self, session: str) -> None:
        reply = self._ask(request(SESS, session.encode()))
        if reply.header == FAIL and _reason(reply) == UNKNOWN_HEADER:
            raise NoSessions(f"{self.address} has no sessions: its msgd is too old")
        if reply.header == FAIL:
            raise NotConnected(f"{self.address} refuses the session: {_reason(reply)}")
        if reply.header != SESS:
            raise NotConnected(f"no session with {self.address}: {_STRANGER}")
        try:
            self.last = session_number(reply.text)
        except ProtocolError:
            raise NotConnected(f"no session with {self.address}: {_STRANGER}") from None
        self._following = self.last + 1

    def _ask(self, question: bytes) -> Reply:
        """Send one request and wait for its one reply; nothing else may be under way."""
        self._progress = monotonic()
        line = b""
        try:
            while not line.endswith(b"\n"):
                readable, writable, _ = self._wait(bool(question), owed=True)
                if writable:
                    question = question[self._write(memoryview(question)) :]
                if readable:
                    line = _one_line(line + self._read())
            return _reply(line[:-1])
        except ProtocolError:
            self.close()
            raise ConnectionLost(_STRANGER) from None
        except ConnectionLost:
            self.close()
            raise

    def _expect(self, reply: Reply, header: bytes) -> None:
        if reply.header == FAIL:
            raise Refused(_reason(reply))
        if reply.header != header:
            self.close()
            raise ConnectionLost(_STRANGER)

    def _await_end(self) -> None:
        """Wait until the server closes: then all that it has received is archived."""
        self._progress = monotonic()
        try:
            while True:
                self._wait(sending=False, owed=True)
                self._read()
        except ConnectionLost:
            self.close()

    def _wait(
        self, sending: bool, owed: bool, source: Source | None = None
    ) -> tuple[bool, bool, bool]:
        """Wait until there is something to read, room to write, or the source is ready.

        While the server owes an answer, `timeout` seconds without progress are an error.
        """
        if self._socket.fileno() < 0:
            raise ConnectionLost("the client is closed")
        poll = select.poll()
        wanted = select.POLLIN | (select.POLLOUT if sending and not self._deaf else 0)
        poll.register(self._socket, wanted)
        waits_for = source.fileno() if source else None
        if waits_for is not None:
            poll.register(waits_for, select.POLLIN)
        at_hand = source is not None and waits_for is None
        ready = dict(poll.poll(0 if at_hand else self._patience(owed)))
        if owed and not ready and not at_hand and self._patience(owed) == 0:
            raise ConnectionLost(self._silent())
        server = ready.get(self._socket.fileno(), 0)
        writable = bool(server & select.POLLOUT)
        return bool(server & ~select.POLLOUT), writable, at_hand or waits_for in ready

    def _patience(self, owed: bool) -> float | None:
        """For how many milliseconds to wait; None: for ever."""
        if not owed:
            self._progress = monotonic()
            return None
        return max(0.0, self._progress + self.timeout - monotonic()) * 1000

    def _silent(self) -> str:
        return f"no answer for {self.timeout:g} seconds"

    def _read(self) -> bytes:
        try:
            data = self._socket.recv(BLOCK_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise ConnectionLost(f"the connection broke ({error.strerror})") from None
        if not data:
            raise ConnectionLost("the server closed the connection")
        self._progress = monotonic()
        return data

    def _write(self, data: memoryview) -> int:
        try:
            size = self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            # The server is gone, but its last answers may still be here to be read; behind
            # them, reading finds the error too.
            self._deaf = True
            return 0
        self._progress = monotonic()
        return size


class _Texts:
    """Texts as a source: as many at a time as fit into a block."""

    def __init__(self, texts: Iterable[str | bytes]) -> None:
        self.ended = False
        self._texts = iter(texts)

    def fileno(self) -> int | None:
        return None

    def read(self) -> Block:
        wire, size, patience = list[bytes](), 0, monotonic() + _GATHER_SECONDS
        while size < BLOCK_BYTES and monotonic() < patience:
            text = next(self._texts, None)
            if text is None:
                self.ended = True
                break
            wire.append(encode_message(_bytes(text)))
            size += len(wire[-1])
        return Block(b"".join(wire), len(wire))


def receipts(answer: Answer) -> Iterator[Receipt]:
    """The receipt of each message that this answer is for."""
    if answer.refusal is not None:
        for number in range(answer.first, answer.first + answer.messages):
            yield Receipt(number, None, answer.refusal)
    for number, reply in enumerate(ClientProtocol().receive(answer.echo), answer.first):
        yield Receipt(number, reply.text.decode("utf-8", "backslashreplace"))


def _one_line(data: bytes) -> bytes:
    """The reply to one request, or its beginning, is one short line and nothing behind it."""
    if data.find(b"\n") + 1 not in (0, len(data)) or len(data) > _REPLY_BYTES:
        raise ProtocolError
    if not any(header.startswith(data[:4]) for header in _REPLIES):
        raise ProtocolError
    return data


def _reply(line: bytes) -> Reply:
    header, text = line[:4], line[5:]
    if _REPLIES.get(header) != (line[4:5] == b" ") or len(line) == 5:
        raise ProtocolError
    return Reply(header, text)


def _bytes(text: str | bytes) -> bytes:
    """Text as UTF-8; what UTF-8 cannot carry becomes an escape, as on the server."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace")


def _reason(reply: Reply) -> str:
    return escape(reply.text).decode()  # it goes to terminals, whoever has sent it


def _safe(text: str) -> str:
    return escape(_bytes(text)).decode()
