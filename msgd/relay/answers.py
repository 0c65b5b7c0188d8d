"""What a server says, without I/O: answers, errors, the headers of a stored message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from msgd.relay.errors import Doubt

# Errors of JetStream (server/errors.json of nats-server).
WRONG_SEQUENCE = (10071, 10164)
NO_MESSAGE, NO_STREAM = 10037, 10059
NO_ROOM = (10047, 10023)
_FULL = (10077, *NO_ROOM)
NAME_IN_USE = 10058

NOBODY = "msgd-relay collect makes the stream; is it running, and is JetStream enabled?"


class Reply(NamedTuple):
    """What a server has answered, or a consumer delivered."""

    subject: str  # to which it was sent
    reply: str  # where an answer would go: for a delivered message its numbers
    headers: Mapping[str, str]
    data: bytes

    @property
    def status(self) -> str:
        """``404``, ``408``, ``409`` where there are no messages (any more); else empty."""
        return self.headers.get("Status", "")


def make_reply(message: Any) -> Reply:
    """From one of nats-py's messages."""
    return Reply(message.subject, message.reply or "", message.headers or {}, message.data)


class ApiError(Exception):
    """JetStream has answered with an error."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("description", "an error without words")))
        self.code = int(error.get("err_code", 0))


def explain(error: ApiError, stream: str) -> str:
    """What to say of it in the log."""
    if error.code in WRONG_SEQUENCE:
        return "somebody else has published to this subject"
    if error.code == NO_STREAM:
        return f"there is no stream {stream}: {NOBODY}"
    if error.code in _FULL:
        return (
            f"the stream {stream} takes no more ({error}): nothing is lost, "
            "the day files wait; raise its max_bytes, or lower its max_age"
        )
    return f"JetStream says: {error} ({error.code})"


def read_answer(data: bytes) -> dict[str, Any]:
    """What JetStream has answered. Raises ApiError, Doubt."""
    try:
        found = json.loads(data)
    except ValueError:
        raise Doubt("an answer that is no JSON: is it JetStream?") from None
    if not isinstance(found, dict):
        raise Doubt("an answer that JetStream does not give")
    if "error" in found:
        raise ApiError(found["error"])
    return found


def parse_headers(data: bytes) -> dict[str, str]:
    """The headers of a stored message."""
    headers = {}
    for line in data.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name] = value.strip()
    return headers
