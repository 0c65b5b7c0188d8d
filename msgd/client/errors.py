"""What can go wrong with a msgd at the other end. The text of each is one line for people.

Each can be pickled, for the pools of processes hand errors over so, and wait for ever else.
"""

from __future__ import annotations


class MsgdError(Exception):
    """Anything that can go wrong here; its text is one line for people."""


class NotConnected(MsgdError):
    """There is no connection to a msgd: nobody listens there, or somebody else does."""


class ConnectionLost(MsgdError):
    """The connection broke, or the server gave no answer for the length of the time-out.

    The client is closed. Messages are answered in order: those behind the first
    ``confirmed + refused`` have no answer. Of them, the first ``unknown`` were sent and may be
    in the archive; the others are not.
    """

    def __init__(self, reason: str, confirmed: int = 0, refused: int = 0, unknown: int = 0) -> None:
        super().__init__(reason)
        self.confirmed, self.refused, self.unknown = confirmed, refused, unknown


class NotNow(ConnectionLost):
    """In a session: the server refuses a message for a reason that has to do with itself.

    Its disk is full, or it is stopping. That message and those behind it are not in the archive;
    the session can go on with it, on another connection, once the server can. `reason` is the
    server's.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the server refuses messages now: {self.reason}"


class SessionError(MsgdError):
    """A session that cannot go on. To try again does not help: somebody has to look at it."""


class NoSessions(SessionError):
    """This server is too old to have sessions."""


class Refused(MsgdError):
    """The server answered FAIL: the message is not in the archive. `reason` is the server's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the server refused it: {self.reason}"


class PasswordRefused(MsgdError):
    """The server goes on; `well_formed` is false where no password can look like this one."""

    def __init__(self, well_formed: bool) -> None:
        super().__init__(well_formed)
        self.well_formed = well_formed

    def __str__(self) -> str:
        return "wrong password" if self.well_formed else "not a well-formed password"


class InUse(MsgdError):
    """Another call of this client is under way, such as an iteration that has not ended.

    Or this process was forked from the one that has connected: the answers are that one's.
    """

    def __init__(
        self, reason: str = "the client is in use: another of its calls has not ended"
    ) -> None:
        super().__init__(reason)
