"""Where messages come from, and the receipts for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from operator import itemgetter
from time import monotonic
from typing import NamedTuple, Protocol

from msgd.client.inflight import Answer, Block
from msgd.client.link import BLOCK_BYTES
from msgd.wire.client import ClientProtocol
from msgd.wire.headers import MORE, encode_message

_LINE_TEXT = itemgetter(slice(5, None))  # what is behind MESG and the space

# For how long a block of texts is gathered, in seconds.
_GATHER_SECONDS = 0.005


class Receipt(NamedTuple):
    """The server's answer to one message: archived as `text`, or refused for a reason."""

    number: int  # of the message, counted from 1
    text: str | None
    refusal: str | None = None


class Source(Protocol):
    """Where blocks of messages come from."""

    ended: bool

    def fileno(self) -> int | None:
        """What to wait for until `read` does not block; None: it never does."""

    def read(self) -> Block:
        """The next block, perhaps an empty one; sets `ended` when it is the last."""


class Texts:
    """Texts as a source: as many at a time as fit into a block."""

    def __init__(self, texts: Iterable[str | bytes]) -> None:
        if isinstance(texts, (str, bytes)):
            raise TypeError("texts are several: put a single one into a list, or use send()")
        self.ended = False
        self._texts = iter(texts)

    def fileno(self) -> int | None:
        return None

    def read(self) -> Block:
        wire, size, patience = list[bytes](), 0, monotonic() + _GATHER_SECONDS
        while size < BLOCK_BYTES and monotonic() < patience:
            try:
                text = next(self._texts)
            except StopIteration:
                self.ended = True
                break
            data = as_bytes(text)
            wire.append(encode_message(data) if b"\n" in data else b"MESG %b\n" % data)
            size += len(wire[-1])
        return Block(b"".join(wire), len(wire))


def receipts(answer: Answer) -> Iterator[Receipt]:
    """The receipt of each message that this answer is for."""
    numbers = range(answer.first, answer.first + answer.messages)
    if answer.refusal is not None:
        return map(Receipt, numbers, repeat(None), repeat(answer.refusal))
    return map(Receipt, numbers, _texts(answer.echo))


def _texts(echo: bytes) -> Iterator[str]:
    """The text of each message, its lines joined by line feeds."""
    if not (echo.startswith(MORE) or b"\nMORE" in echo):
        return map(_LINE_TEXT, echo.decode("utf-8", "backslashreplace").split("\n")[:-1])
    replies = ClientProtocol().receive(echo)
    return (reply.text.decode("utf-8", "backslashreplace") for reply in replies)


def as_bytes(text: str | bytes) -> bytes:
    """Text as UTF-8; what UTF-8 cannot carry becomes an escape, as on the server.

    Raises TypeError for anything else.
    """
    if isinstance(text, str):
        return text.encode("utf-8", "backslashreplace")
    if isinstance(text, bytes):
        return text
    raise TypeError(f"a text is str or bytes, not {text!r}")


class Receipts(Iterator[Receipt]):
    """The receipts of `send_many`: warns where nobody asks for any, and so nothing is sent."""

    def __init__(self, source: Iterator[Receipt]) -> None:
        self._source = source
        self._begun = False

    def __iter__(self) -> Iterator[Receipt]:
        self._begun = True
        return self._source

    def __next__(self) -> Receipt:
        self._begun = True
        return next(self._source)

    def __del__(self) -> None:
        if not self._begun:
            from warnings import warn

            warn("send_many was not iterated: nothing was sent", RuntimeWarning, stacklevel=2)
