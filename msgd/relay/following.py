"""Reading the stream in order: one consumer after the other, each without a gap.

A consumer numbers what it delivers; a number that does not follow the one before it means that
something was lost on the way, and a new consumer begins behind what came last. What decides is
`Order`, without I/O.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from msgd.relay.answers import ApiError, Reply
from msgd.relay.blocks import Message
from msgd.relay.errors import Doubt
from msgd.relay.listener import Listener

BATCH = 500  # messages asked for at once,
BATCH_BYTES = 16 << 20  # and bytes, unless one message is longer
EXPIRES = 5.0  # seconds that the server waits for more
_GRACE = 3.0  # seconds more that we wait for the server's word that it has waited
_INACTIVE = 60  # seconds after which the server forgets a consumer that nobody asks
_NANO = 1_000_000_000


class Gap(Exception):
    """This consumer cannot be trusted any more: begin a new one."""


class Delivery(Protocol):
    """What is needed of the engine."""

    @property
    def stream(self) -> str: ...
    @property
    def max_payload(self) -> int: ...

    async def api(self, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]: ...
    async def listen(self, subject: str) -> Listener: ...
    async def send(self, subject: str, data: bytes, reply: str) -> None: ...
    def inbox(self) -> str: ...


class Numbers:
    """What the reply subject of a delivered message says (ADR-15 of NATS)."""

    def __init__(self, reply: str) -> None:
        """Raises Gap for what is no such subject."""
        tokens = reply.split(".")
        if len(tokens) >= 11:  # with domain and account
            tokens = ["$JS", "ACK", *tokens[4:]]
        try:
            self.stream, self.consumer = int(tokens[5]), int(tokens[6])
            self.pending = int(tokens[8])
        except (ValueError, IndexError):
            raise Gap(f"a message without its numbers: {reply!r}") from None


class Order:
    """The order of what one consumer delivers."""

    def __init__(self) -> None:
        self._last = 0  # the consumer's number

    def take(self, numbers: Numbers) -> None:
        """Raises Gap unless this is the next one."""
        if numbers.consumer != self._last + 1:
            raise Gap(f"message {numbers.consumer} came behind message {self._last}")
        self._last = numbers.consumer


class Consumer:
    """An ephemeral pull consumer without acknowledgements."""

    def __init__(self, engine: Delivery, config: dict[str, Any], subject: str = "") -> None:
        """``config`` says where it begins; ``subject`` limits it to one."""
        self._engine, self._subject = engine, subject
        self._name = f"collect_{secrets.token_hex(8)}"
        self._config = {
            "name": self._name,
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": _INACTIVE * _NANO,
            "mem_storage": True,
            "num_replicas": 1,
            **config,
        }
        if subject:
            self._config["filter_subject"] = subject
        self._order = Order()
        self._listener: Listener | None = None
        self._inbox = ""
        self._pulls = 0
        self._left = 0  # messages of the pull under way
        self.pending = 0  # in the stream, behind the last one delivered

    async def open(self) -> None:
        """Make it. Raises ApiError, Doubt, Denied."""
        verb = f"CONSUMER.CREATE.{self._engine.stream}.{self._name}"
        if self._subject:
            verb += f".{self._subject}"
        body = {"stream_name": self._engine.stream, "config": self._config}
        answer = await self._engine.api(verb, body)
        self.pending = int(answer.get("num_pending", 0))
        self._inbox = self._engine.inbox()
        self._listener = await self._engine.listen(f"{self._inbox}.*")

    async def next(self) -> list[Message]:
        """Some messages; none when none came for `EXPIRES` seconds. Raises Gap, Doubt, Denied."""
        assert self._listener is not None
        if not self._left:
            await self._pull()
        reply = await self._listener.next(EXPIRES + _GRACE)
        if reply is None:
            raise Gap("the consumer says nothing")
        found: list[Message] = []
        size = 0
        while reply is not None:
            if reply.status:
                self._end_of_pull(reply)
            else:
                found.append(self._taken(reply))
                size += len(reply.data)
            reply = self._listener.ready() if size < BATCH_BYTES else None
        return found

    async def _pull(self) -> None:
        self._pulls += 1
        self._left = BATCH
        body = {
            "batch": BATCH,
            "max_bytes": max(BATCH_BYTES, 2 * self._engine.max_payload),
            "expires": int(EXPIRES * _NANO),
        }
        await self._engine.send(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._engine.stream}.{self._name}",
            json.dumps(body).encode(),
            f"{self._inbox}.{self._pulls}",
        )

    def _end_of_pull(self, reply: Reply) -> None:
        """The server's word that no more comes of this pull, or of this consumer."""
        words = reply.headers.get("Description", "").lower()
        if reply.status == "100":
            return
        if reply.status in ("404", "408") or "maxbytes" in words or "batch completed" in words:
            self._left = 0
            return
        raise Gap(f"the consumer has ended: {reply.status} {words}")

    def _taken(self, reply: Reply) -> Message:
        numbers = Numbers(reply.reply)
        self._order.take(numbers)
        self._left = max(self._left - 1, 0)
        self.pending = numbers.pending
        return Message(reply.subject, numbers.stream, reply.headers, reply.data)

    async def close(self) -> None:
        """Forget it, here and on the server; never raises but for what ends the connection."""
        if self._listener is not None:
            await self._listener.close()
            self._listener = None
            try:
                await self._engine.api(f"CONSUMER.DELETE.{self._engine.stream}.{self._name}")
            except (ApiError, Doubt):
                return


def from_sequence(sequence: int) -> dict[str, Any]:
    """Begin with this message, or the first one behind it that is there."""
    if sequence <= 1:
        return {"deliver_policy": "all"}
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": sequence}


LAST_OF_EACH = {"deliver_policy": "last_per_subject", "headers_only": True}
EVERYTHING = {"deliver_policy": "all"}
SIZE = "Nats-Msg-Size"  # with headers_only: bytes of the payload that was left out
