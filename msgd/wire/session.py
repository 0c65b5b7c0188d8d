"""The session of one connection, the server's side: what opens it, and what stops it."""

from __future__ import annotations

import re

from msgd.wire.events import Open
from msgd.wire.headers import SESSION_INTERRUPTED

LAST_NUMBER = 1 << 63  # that a client may ask for
_ARGUMENT = rb"([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?: (0|[1-9][0-9]{0,18}))?"


def opening(argument: bytes) -> Open | None:
    """What SESS with this argument asks for; None where that is malformed."""
    found = re.fullmatch(_ARGUMENT, argument)
    if found is None:
        return None
    number = None if found[2] is None else int(found[2])
    if number is not None and number > LAST_NUMBER:
        return None
    return Open(found[1].decode(), number)


class Session:
    """Whether there is one, and why the messages on this connection are refused, if they are.

    No gap by accident: what is archived of a session is what came before the first FAIL for a
    message of it, and nothing behind that.
    """

    __slots__ = ("_numbered", "lost", "refusal")

    def __init__(self) -> None:
        self._numbered = False
        self.lost = False  # a message of it could not be written
        self.refusal = ""  # what every message gets until the next SESS, where this is not empty

    def open(self) -> None:
        self._numbered, self.lost, self.refusal = True, False, ""

    def refuse(self) -> None:
        """A SESS was refused: what is pipelined behind it must not become plain messages."""
        self.refusal = SESSION_INTERRUPTED

    def take_over(self, reason: str) -> None:
        """Another connection writes the session now."""
        self.refusal = reason

    def fail(self, reason: str) -> str:
        """A message is not archived: the reason to give. The first one stops a session."""
        if self.refusal:
            return self.refusal
        if self._numbered:
            self.refusal = SESSION_INTERRUPTED
        return reason

    def lose(self, reason: str) -> str:
        """A message that was taken could not be written: the reason to give.

        Whatever has stopped the session meanwhile stands behind it in the stream.
        """
        if self.lost:
            return SESSION_INTERRUPTED
        if self._numbered:
            self.lost = True
            self.refusal = self.refusal or SESSION_INTERRUPTED
        return reason
