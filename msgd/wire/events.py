"""What comes of the bytes that a client sends: events, in the order in which it is owed replies.

And the form of the records that they go into, as far as the wire needs to know it.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Form(Protocol):
    """Makes the records of one client: see `msgd.archive.records.Form`."""

    number: int  # of the next record in the session; 0 without one

    def open(self, session: str, number: int) -> None:
        """From here records are numbered, from this number on."""

    def block(self, texts: list[bytes], size: int) -> bytes | None:
        """The records of these texts, behind an empty entry; None unless they are this long."""

    def message(self, text: bytes) -> bytes:
        """The record of one text, of one line or several."""


class Records(NamedTuple):
    """Messages in a row as the archive holds them, and the echoes due once they are in it.

    The archive keeps all of them or none.
    """

    archive: list[bytes]  # cut anywhere, as the echoes
    echoes: list[bytes]
    messages: int
    last: int  # the number of the last of them in its session; 0 without one


class Answer(NamedTuple):
    """Bytes that the client is owed, behind the echoes before them: see `ServerProtocol.told`."""

    data: bytes
    own_reason: bool = False  # a message is refused, and nothing before it was by then


class Terminate(NamedTuple):
    """TERM with a well-formed password. What follows waits until `ServerProtocol.resume`."""

    password: bytes


class Open(NamedTuple):
    """SESS: a session is to be opened, and its next message to have this number, if any.

    What follows waits until `ServerProtocol.resume`.
    """

    id: str
    number: int | None


class Dropped(NamedTuple):
    """The stream ended in the middle of a message: what there was of it is not archived."""

    size: int


class Close(NamedTuple):
    """Nothing more will be read from this client: send what is due to it, then close."""


Event = Records | Answer | Terminate | Open | Dropped | Close


def last_number(form: Form) -> int:
    """The number of the last record that was made, in a session; else 0."""
    return form.number - 1 if form.number else 0
