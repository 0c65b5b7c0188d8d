"""What comes of the bytes that a client sends: events, in the order in which it is owed replies."""

from __future__ import annotations

from typing import NamedTuple


class Records(NamedTuple):
    """Messages as the archive holds them, and the echo that is due once they are in it."""

    archive: bytes
    echo: bytes
    messages: int


class Answer(NamedTuple):
    """Bytes that the client is owed as they are, behind the echoes before them."""

    data: bytes


class Terminate(NamedTuple):
    """TERM with a well-formed password. What follows waits until `ServerProtocol.resume`."""

    password: bytes


class Dropped(NamedTuple):
    """The stream ended in the middle of a message: what there was of it is not archived."""

    size: int


class Close(NamedTuple):
    """Nothing more will be read from this client: send what is due to it, then close."""


Event = Records | Answer | Terminate | Dropped | Close
