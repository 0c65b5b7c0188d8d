"""The words of the wire: the headers in one table, the reasons of a FAIL, whole requests.

msgd-protocol(7) is the reference.
"""

from __future__ import annotations

from typing import NamedTuple

from msgd.wire.text import is_plain

PING, PONG, MESG, MORE = b"PING", b"PONG", b"MESG", b"MORE"
TERM, PWOK, PWNO, PWIV, FAIL = b"TERM", b"PWOK", b"PWNO", b"PWIV", b"FAIL"
SESS = b"SESS"


class Header(NamedTuple):
    """What one header means, who sends it, and what follows it."""

    sender: str
    argument: str  # "" where the header stands alone
    meaning: str


HEADERS = {
    PING: Header("client", "", "the handshake; later, a question whether the server is there"),
    PONG: Header("server", "", "the answer to PING"),
    MESG: Header("both", "text", "a message, or its last line; from the server, the echo of it"),
    MORE: Header("both", "text", "a line of a message that goes on (line framing only)"),
    SESS: Header("both", "session", "a session is to be opened; from the server, its last number"),
    TERM: Header("client", "password", "a wish that the server stop"),
    PWOK: Header("server", "", "the right password: the server stops"),
    PWNO: Header("server", "", "the wrong password"),
    PWIV: Header("server", "", "no well-formed password"),
    FAIL: Header("server", "reason", "refused; for a message: it is not in the archive"),
}

# The reasons that a FAIL can give: fixed words, never any of what the client sent.
NO_HANDSHAKE = "handshake expected"
ONLY_LINES = "line framing expected"
TOO_LONG = "message too long"
UNKNOWN = "unknown header"
NO_SPACE = "space expected after the header"
ARGUMENT = "header takes no argument"
INTERRUPTED = "message interrupted"
MALFORMED = "malformed session"
NUMBER_USED = "number already used"
SESSION_INTERRUPTED = "session interrupted"
TAKEN_OVER = "session taken over"
NOT_WRITTEN = "archive cannot be written"
NOT_VERIFIED = "password cannot be verified now"
STOPPING = "server is stopping"
BUSY = "busy"
TLS_REQUIRED = "tls required"

PASSWORD_BYTES = 1024


def encode_message(text: bytes) -> bytes:
    """One message in line framing; each line feed in the text makes one more line of it."""
    head, feed, last = text.rpartition(b"\n")
    more = b"MORE " + head.replace(b"\n", b"\nMORE ") + b"\n" if feed else b""
    return more + b"MESG " + last + b"\n"


def request(header: bytes, argument: bytes | None = None) -> bytes:
    """One request in line framing."""
    return header + (b"" if argument is None else b" " + argument) + b"\n"


def well_formed(password: bytes) -> bool:
    """Whether TERM may carry this: 1 to 1,024 bytes of text in which nothing needs an escape."""
    return (
        1 <= len(password) <= PASSWORD_BYTES
        and is_plain(password)
        and not (b"\t" in password or b"\n" in password)
    )
