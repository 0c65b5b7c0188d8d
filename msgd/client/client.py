"""A client for msgd: send messages, and know that they are in the archive.

    with Client("127.0.0.1", 6743) as client:
        client.send("hello")  # returns the text as archived, once it is on stable storage
        for receipt in client.send_many(lines):
            print(receipt.number, receipt.text)

A question has one time-out for its answer, whatever trickles in; a call that sends many messages
goes on as long as answers come. What goes wrong with the server is a `MsgdError`; what cannot be
meant is a ValueError or a TypeError, at once. A client does one thing at a time: a call while
another is under way is an `InUse`, and so is a call in a forked child, which needs its own client.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

from msgd.client.dial import dial
from msgd.client.errors import (
    ConnectionLost,
    InUse,
    MsgdError,
    NoSessions,
    NotConnected,
    PasswordRefused,
    Refused,
    SessionError,
)
from msgd.client.inflight import Answer, Pipeline
from msgd.client.link import BLOCK_BYTES, Link, Patience, in_seconds
from msgd.client.replies import one_line, one_reply, session_number
from msgd.client.servers import (
    PORT,
    Server,
    checked_seconds,
    checked_session,
    checked_tls,
    safe,
    servers,
)
from msgd.client.texts import Receipt, Receipts, Source, Texts, as_bytes, receipts
from msgd.wire.client import ProtocolError, Reply
from msgd.wire.headers import FAIL, PING, PONG, PWIV, PWNO, PWOK, SESS, TERM, UNKNOWN, request

if TYPE_CHECKING:
    from msgd.client.tls import Tls

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

_STRANGER = "what listens there is not msgd, check the port"


class Client:
    """A connection to a msgd. Leaving the context closes it.

    `host` is a name, an address, or the absolute path of a Unix-domain socket; of several, which
    may carry a port of their own (``"b:6744"``), it is the first that answers. `timeout` is in
    seconds. With `tls`, which is True or a `Tls`, the server has to prove its name. Connecting
    raises `NotConnected`.

    With `session` the messages belong to the session of this name (1 to 64 letters, digits, and
    ``._-``), and are numbered: `last` is the number of the last one that is known to be in the
    archive, 0 for a new session. Whoever sends ``texts`` from the beginning of a session, and
    goes on with ``texts[client.last:]`` after a break, has each of them in the archive once.
    A refused message keeps its number, which the archive leaves out. A server without sessions
    raises `NoSessions`, a session that cannot go on `SessionError`.
    """

    def __init__(
        self,
        host: str | Sequence[str] = "127.0.0.1",
        port: int = PORT,
        timeout: float = 10.0,
        *,
        tls: Tls | bool | None = None,
        session: str | None = None,
    ) -> None:
        choice = servers(host, port)
        self.timeout = checked_seconds("timeout", timeout)
        self.session = None if session is None else checked_session(session)
        self._tls = checked_tls(tls, choice)
        self.last = 0
        self._following = 1  # the number that the server gives to the next message
        self._lock = Lock()
        self._process = os.getpid()
        self._why_closed = "the client is closed"
        self._connect_to_one_of(choice)

    def _connect_to_one_of(self, choice: list[Server]) -> None:
        reasons = []
        for server in choice:
            self.server = server
            try:
                self._connect()
                return
            except NotConnected as error:
                reasons.append(str(error))
        raise NotConnected("; ".join(reasons))

    def _connect(self) -> None:
        self._link = self._linked()
        try:
            self._shake_hands()
            if self.session is not None:
                self._open_session(self.session)
        except BaseException:
            self.close()
            raise

    def _linked(self) -> Link:
        connection = dial(self.server, self.timeout)
        if self._tls is None:
            return Link(connection)
        from msgd.client.secure import secured

        return secured(connection, self.server, self._tls, Patience(self.timeout))

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
        if os.getpid() == self._process:
            self._link.close()
        else:  # a goodbye inside TLS would be the parent's
            self.abandon()

    def abandon(self) -> None:
        """Close it in this process only, which has it from its parent; nothing is said on it."""
        self._link.abandon()

    @property
    def closed(self) -> bool:
        return self._link.closed

    def closed_by_server(self) -> bool:
        """Whether the server has closed the connection, or it broke, while nothing was due."""
        try:
            with self._in_use():
                self._check_silence()
        except ConnectionLost:
            return True
        return False

    @property
    def address(self) -> str:
        """Where this client is connected: ``host:port``, ``[host]:port`` for IPv6, or a path."""
        return str(self.server)

    def ping(self) -> float:
        """Ask whether the server is there; returns the round-trip time in seconds."""
        with self._in_use():
            start = monotonic()
            self._expect(self._ask(request(PING)), PONG)
            return monotonic() - start

    def send(self, text: str | bytes) -> str:
        """Send one message, of several lines where the text holds line feeds.

        Returns the text as archived: with escapes for what may not stand in an archive.
        Raises `Refused` and `ConnectionLost`.
        """
        [receipt] = self._receipts(Texts([as_bytes(text)]))
        if receipt.text is None:
            raise Refused(receipt.refusal or "")
        return receipt.text

    def send_many(self, texts: Iterable[str | bytes]) -> Iterator[Receipt]:
        """Send messages without waiting for each, and yield the receipts in order.

        It sends while it is iterated: nothing without. It holds a few megabytes of messages at
        most. An iterable that blocks holds up all receipts: let it be quick. A refusal is a
        receipt and ends nothing; `ConnectionLost` ends it. If the iteration is given up while
        answers are due, the client is closed.
        """
        return Receipts(self._receipts(Texts(texts)))

    def _receipts(self, texts: Texts) -> Iterator[Receipt]:
        for answer in self.transmit(Pipeline(self._following - 1), texts):
            yield from receipts(answer)

    def terminate(self, password: str | bytes) -> None:
        """Ask the server to stop; returns when it has stopped listening and said goodbye.

        Raises `PasswordRefused` where the server goes on, `Refused` where it cannot verify the
        password now.
        """
        secret = as_bytes(password)
        if b"\n" in secret or b"\r" in secret:  # would end the request: not well formed
            raise PasswordRefused(well_formed=False)
        with self._in_use():
            reply = self._ask(request(TERM, secret))
            if reply.header in (PWNO, PWIV):
                raise PasswordRefused(reply.header == PWNO)
            self._expect(reply, PWOK)
            self._await_end()

    def transmit(self, pipeline: Pipeline, source: Source) -> Iterator[Answer]:
        """Send all that is in the pipeline and the source; yield the answers as they come.

        It raises `ConnectionLost`; the pipeline can then go on with another client. In a session
        that client must have the same one, and message k of the pipeline has the number
        ``start + k``: those that the archive holds already are answered without being sent.
        `NotNow` and `SessionError` are a session's.
        """
        with self._in_use():
            try:
                self._check_silence()
                pipeline.begin(self.session or "", self.last, self._following, self.address)
                yield from self._transmit(pipeline, source)
                pipeline.check_end()
            except ProtocolError:
                raise _counted(ConnectionLost(_STRANGER), pipeline) from None
            except ConnectionLost as error:
                raise _counted(error, pipeline) from None
            except SessionError:
                self._close("the client is closed: its session cannot go on")
                raise
            finally:
                self.last, self._following = pipeline.archived, pipeline.next_number
                if not pipeline.idle or pipeline.failure is not None:
                    self._close("the client is closed: answers were still due when a call ended")

    def _transmit(self, pipeline: Pipeline, source: Source) -> Iterator[Answer]:
        """It reads while it writes, so that no backpressure of the server's can stop both."""
        patience, progress = Patience(self.timeout), pipeline.progress
        yield from pipeline.told()
        while not (source.ended and pipeline.idle):
            wanted = None if source.ended or not pipeline.has_room else source
            readable, writable, ready = self._wait(pipeline, wanted, patience)
            if writable:
                pipeline.sent(self._link.write(pipeline.output()))
            if readable:
                yield from pipeline.receive(self._link.read())
                if pipeline.failure is not None and not (source.ended and pipeline.idle):
                    raise pipeline.failure
            if pipeline.progress != progress:
                progress = pipeline.progress
                patience.restart()
            elif not patience.left:
                raise ConnectionLost(self._silent())
            if ready and wanted is not None:  # it may block: what can be sent is sent before
                pipeline.add(wanted.read())
                yield from pipeline.told()

    def _wait(
        self, pipeline: Pipeline, source: Source | None, patience: Patience
    ) -> tuple[bool, bool, bool]:
        """Wait for the link and the source; a server that owes nothing may be silent for ever."""
        descriptor = source.fileno() if source else None
        at_hand = source is not None and descriptor is None
        sending = bool(pipeline.output())
        if not pipeline.under_way:
            patience.restart()
        if at_hand:
            readable, writable, _ = self._link.wait(sending, Patience(0))
            return readable, writable, True
        return self._link.wait(sending, None if pipeline.idle else patience, descriptor)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """One call at a time, or one would get the answer that belongs to the other."""
        if os.getpid() != self._process:
            raise InUse("the client is another process's: a forked child needs its own")
        if not self._lock.acquire(blocking=False):
            raise InUse
        try:
            if self.closed:
                raise ConnectionLost(self._why_closed)
            yield
        finally:
            self._lock.release()

    def _close(self, why: str) -> None:
        if not self.closed:
            self._why_closed = why
            self.close()

    def _shake_hands(self) -> None:
        try:
            reply = self._ask(request(PING))
        except ConnectionLost as error:
            raise NotConnected(f"no handshake with {self.address}: {error}") from None
        if reply.header == FAIL and safe(reply.text) == "tls required":
            raise NotConnected(f"{self.address} wants TLS, and this was a plain connection: --tls")
        if reply.header == FAIL:
            raise NotConnected(f"{self.address} refuses the connection: {safe(reply.text)}")
        if reply.header != PONG or self.closed:
            raise NotConnected(f"no handshake with {self.address}: {_STRANGER}")

    def _open_session(self, session: str) -> None:
        try:
            reply = self._ask(request(SESS, session.encode()))
            if reply.header == FAIL and reply.text == UNKNOWN.encode():
                raise NoSessions(f"{self.address} has no sessions: its msgd is too old")
            if reply.header == FAIL:
                raise NotConnected(f"{self.address} refuses the session: {safe(reply.text)}")
            if reply.header != SESS or self.closed:
                raise ProtocolError
            self.last = session_number(reply.text)
        except (ConnectionLost, ProtocolError) as error:
            why = _STRANGER if isinstance(error, ProtocolError) else error
            raise NotConnected(f"no session with {self.address}: {why}") from None
        self._following = self.last + 1

    def _ask(self, question: bytes) -> Reply:
        """Send one request and wait for its one reply, which is one line."""
        line, patience = b"", Patience(self.timeout)
        try:
            self._check_silence()
            while b"\n" not in line:
                readable, writable, _ = self._link.wait(bool(question), patience)
                if writable:
                    question = question[self._link.write(memoryview(question)) :]
                if readable:
                    line = one_line(line + self._link.read())
                if not patience.left and b"\n" not in line:
                    raise ConnectionLost(self._silent())
            line, _, surplus = line.partition(b"\n")
            if surplus:
                self._close(f"the client is closed: {_STRANGER}")
            return one_reply(line)
        except ProtocolError:
            self._close(f"the client is closed: {_STRANGER}")
            raise ConnectionLost(_STRANGER) from None
        except BaseException:  # the answer would be taken for that to the next question
            self._close("the client is closed: a call has ended without its answer")
            raise

    def _check_silence(self) -> None:
        """Nothing may have come that was not asked for: it would pass for the next answer."""
        try:
            if self._link.read():
                raise ConnectionLost(_STRANGER)
        except ConnectionLost:
            self._close("the client is closed")
            raise

    def _expect(self, reply: Reply, header: bytes) -> None:
        if reply.header == FAIL:
            raise Refused(safe(reply.text))
        if reply.header != header:
            self._close(f"the client is closed: {_STRANGER}")
            raise ConnectionLost(_STRANGER)

    def _await_end(self) -> None:
        """Wait until the server closes: then all that it has received is archived."""
        patience = Patience(self.timeout)
        try:
            while patience.left and not self.closed:
                self._link.wait(False, patience)
                self._link.read()
        except ConnectionLost:
            pass
        finally:
            self._close("the client is closed: it has stopped the server")

    def _silent(self) -> str:
        return f"no answer for {in_seconds(self.timeout)}"


def _counted(error: ConnectionLost, pipeline: Pipeline) -> ConnectionLost:
    error.confirmed, error.refused = pipeline.confirmed, pipeline.refused
    error.unknown = pipeline.unknown
    return error
