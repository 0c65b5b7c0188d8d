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


class Records:
    """Messages in a row as the archive holds them, and the echoes due once they are in it.

    In parts, each of which the archive keeps or does not.
    """

    __slots__ = ("archive", "echoes", "last", "messages", "sizes")

    def __init__(self) -> None:
        self.archive: list[bytes] = []  # the records of each part
        self.echoes: list[bytes] = []  # of all parts, cut anywhere
        self.messages: list[int] = []  # how many each part has
        self.sizes: list[int] = []  # bytes of echoes that each part has
        self.last = 0  # the number of the last message in its session; 0 without one

    def add(self, archive: bytes, echo: bytes, messages: int) -> None:
        """One more part."""
        self.archive.append(archive)
        self.echoes.append(echo)
        self.messages.append(messages)
        self.sizes.append(len(echo))

    def size(self) -> int:
        """Bytes of records."""
        return sum(map(len, self.archive))

    def cut(self, kept: int) -> int:
        """Leave the first parts, which are kept; returns how many messages were in the others."""
        lost = sum(self.messages[kept:])
        del self.archive[kept:], self.messages[kept:], self.sizes[kept:]
        self.echoes = [b"".join(self.echoes)[: sum(self.sizes)]]
        self.last = self.last - lost if self.last and kept else 0
        return lost


class Answer(NamedTuple):
    """Bytes that the client is owed as they are, behind the echoes before them."""

    data: bytes


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
