"""The connection to the NATS servers: the only module that knows nats-py.

Whatever goes wrong comes out as one of two errors: `Doubt`, after which everything that was known
of the stream is to be read again, and `Denied`, which somebody has to mend. The library's own
reconnecting is not used: it hides when a connection was lost, and some errors close it for good.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from msgd.relay.answers import (
    NO_MESSAGE,
    NOBODY,
    ApiError,
    Reply,
    explain,
    make_reply,
    parse_headers,
    read_answer,
)
from msgd.relay.blocks import PREFIX, Message, Part
from msgd.relay.connecting import (
    CONNECT_SECONDS,
    import_nats,
    numbers,
    options,
    version_warning,
    why,
)
from msgd.relay.errors import Denied, Doubt
from msgd.relay.listener import Listener
from msgd.relay.options import Config

if TYPE_CHECKING:
    from nats.aio.client import Client

log = logging.getLogger("msgd")

TIMEOUT = 5.0  # seconds for one answer; a lost leader takes 4 to 7
_CLOSE_SECONDS = 1.0
_UNREAD_BYTES = 256 << 20  # of what was delivered; collect never asks for so much at once


class Engine:
    """One connection to one server, from `connect` until it is lost or closed."""

    def __init__(self, config: Config, inbox: str) -> None:
        """``inbox`` is what the inboxes begin with: permissions name it. Raises Denied."""
        self._nats = import_nats()
        self._config = config
        self._inbox = inbox
        self._servers = itertools.cycle(config.servers)
        self._client: Client | None = None
        self._over: asyncio.Future[Exception] | None = None
        self._refused: asyncio.Future[Exception] | None = None  # while connecting: why not
        self._api = "$JS.API"
        self.version = ""
        self._warned = ""

    @property
    def stream(self) -> str:
        return self._config.stream

    async def connect(self) -> None:
        """Connect to the next of the servers. Raises Doubt, Denied."""
        server = next(self._servers)
        loop = asyncio.get_running_loop()
        self._over, self._refused = loop.create_future(), loop.create_future()
        client = self._nats.aio.client.Client()
        try:
            callbacks = {
                "error_cb": self._on_error,
                "closed_cb": self._on_closed,
                "disconnected_cb": self._on_closed,
            }
            asked = options(self._config, server, self._inbox)
            await self._try(client.connect(**asked, **callbacks))
        except Exception as error:
            await _close(client)
            raise why(server, error) from error
        self._client = client
        version = client.connected_server_version
        self.version = f"{version.major}.{version.minor}.{version.patch}"
        self._judge_version(server)

    async def _try(self, connecting: Coroutine[Any, Any, None]) -> None:
        """Connect. The library tries a server that refuses again and again, and only tells the
        callback why: the first time is enough.
        """
        assert self._refused is not None
        task: asyncio.Future[Any] = asyncio.ensure_future(connecting)
        either: set[asyncio.Future[Any]] = {task, self._refused}
        seconds = CONNECT_SECONDS + 1
        await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return
        task.cancel()
        await asyncio.wait({task}, timeout=_CLOSE_SECONDS)
        raise self._refused.result() if self._refused.done() else TimeoutError()

    def _judge_version(self, server: str) -> None:
        """Say once for each server what its version cannot do."""
        words = version_warning(self.version)
        if words and server not in self._warned:
            log.warning("%s: nats-server %s %s", server, self.version, words)
            self._warned += server + " "

    async def _on_error(self, error: Exception) -> None:
        if self._refused is not None and not self._refused.done():
            self._refused.set_result(error)
        text = str(error).removeprefix("nats: ").strip("'\" ")
        lower = text.lower()
        if "permissions violation" in lower:
            what = lower.partition("permissions violation")[2].replace('"', "").strip()
            self._end(
                Denied(
                    f"the server forbids this user: {what.removeprefix('for ')}; "
                    "msgd-relay(8), PERMISSIONS, has what is needed"
                )
            )
        elif "maximum payload" in lower:
            self._end(Doubt(f"the server has closed the connection: {text}"))

    async def _on_closed(self) -> None:
        self._end(Doubt("the connection to the server was lost"))

    def _end(self, error: Exception) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(error)

    @property
    def max_payload(self) -> int:
        """Bytes that headers and payload may have together."""
        assert self._client is not None
        return self._client.max_payload

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        headers: dict[str, str] | None = None,
        timeout: float = TIMEOUT,
        meanwhile: Callable[[], None] | None = None,
    ) -> Reply:
        """Ask, and wait for the answer. Raises Doubt, Denied."""
        assert self._client is not None
        waiting = asyncio.ensure_future(
            self._client.request(subject, data, timeout=timeout, headers=headers)
        )
        await self.first(waiting, meanwhile)
        try:
            return make_reply(waiting.result())
        except self._nats.errors.NoRespondersError:
            raise Doubt(f"nobody takes {subject}: {NOBODY}") from None
        except (TimeoutError, self._nats.errors.TimeoutError):
            raise Doubt(
                f"no answer within {timeout:g} s (does the cluster have a leader?)"
            ) from None
        except (self._nats.errors.Error, OSError) as error:
            raise Doubt(f"{type(error).__name__}: {error}") from error

    async def first(
        self, waiting: asyncio.Future[Any], meanwhile: Callable[[], None] | None = None
    ) -> None:
        """Wait for it, or for the end of the connection, which raises."""
        assert self._over is not None
        try:
            if meanwhile is not None:
                await self._sent(waiting)
                meanwhile()
            await asyncio.wait({waiting, self._over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not waiting.done():
                waiting.cancel()
        if self._over.done():
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await waiting
            raise self._over.result()

    async def _sent(self, waiting: asyncio.Future[Any]) -> None:
        """Until what was asked is on its way, which takes the library a few turns of the loop."""
        assert self._client is not None
        assert self._over is not None
        await asyncio.sleep(0)
        while self._client.pending_data_size and not (waiting.done() or self._over.done()):
            await asyncio.sleep(0)

    async def api(self, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream; raises ApiError, Doubt, Denied."""
        data = json.dumps(body).encode() if body is not None else b""
        reply = await self.request(f"{self._api}.{verb}", data)
        return read_answer(reply.data)

    async def last(self, subject: str) -> Message | None:
        """The last message of a subject (``*`` and ``>`` allowed), or None."""
        body = {"last_by_subj": subject}
        try:
            answer = await self.api(f"STREAM.MSG.GET.{self.stream}", body)
        except ApiError as error:
            if error.code == NO_MESSAGE:
                return None
            raise Doubt(explain(error, self.stream)) from error
        found = answer["message"]
        return Message(
            found["subject"],
            int(found["seq"]),
            parse_headers(base64.b64decode(found.get("hdrs", ""))),
            base64.b64decode(found.get("data", "")),
        )

    async def last_generation(self, part: Part) -> Message | None:
        """The last message of a day, in whatever generation from this one on."""
        if numbers(self.version) >= (2, 10):
            return await self.last(f"{PREFIX}.{part.node}.{part.day}.*")
        # nats-server 2.9.10 may crash when it is asked for a wildcard.
        found = None
        while (last := await self.last(part.subject)) is not None:
            found, part = last, part._replace(generation=part.generation + 1)
        return found

    async def publish(
        self,
        subject: str,
        data: bytes,
        headers: dict[str, str],
        meanwhile: Callable[[], None] | None = None,
    ) -> int:
        """Put a message into the stream; its sequence. Raises ApiError, Doubt, Denied.

        ``meanwhile`` is called while the server is at it.
        """
        reply = await self.request(subject, data, headers, meanwhile=meanwhile)
        answer = read_answer(reply.data)
        if answer.get("stream") != self.stream:
            raise Denied(
                f"{subject} went into the stream {answer.get('stream')}, not {self.stream}: "
                "say which one is meant in `stream`"
            )
        return int(answer["seq"])

    async def listen(self, subject: str) -> Listener:
        """Subscribe; raises Doubt, Denied."""
        assert self._client is not None
        listener = Listener(self.first)
        try:
            listener.subscription = await self._client.subscribe(
                subject,
                cb=listener.put,
                pending_bytes_limit=_UNREAD_BYTES,
                pending_msgs_limit=1 << 20,
            )
        except self._nats.errors.Error as error:
            raise Doubt(f"{type(error).__name__}: {error}") from error
        return listener

    async def send(self, subject: str, data: bytes, reply: str) -> None:
        """Publish without waiting for anything; raises Doubt."""
        assert self._client is not None
        try:
            await self._client.publish(subject, data, reply=reply)
        except (self._nats.errors.Error, OSError) as error:
            raise Doubt(f"{type(error).__name__}: {error}") from error

    def inbox(self) -> str:
        """A new subject for answers."""
        assert self._client is not None
        return str(self._client.new_inbox())

    async def close(self) -> None:
        """Forget the connection; never raises."""
        client, self._client = self._client, None
        if client is not None:
            await _close(client)


async def _close(client: Any) -> None:
    """Never raises, and never waits for long: some of what it waits for never comes."""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.close(), _CLOSE_SECONDS)
