"""The standard streams: whole writes, and nothing from outside that could steer a terminal."""

from __future__ import annotations

import os
import select
import sys
from io import RawIOBase, TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_PATIENCE = 1.0  # seconds, for standard error that does not take our one line at once


class Whole(RawIOBase):
    """A descriptor that takes all that is written, or raises OSError.

    Python's own standard output forgets the rest of a short write where PYTHONUNBUFFERED is set
    (a disk that fills), and gives up where a pipe does not block.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                wait_for_room(self._descriptor)
        return size


def whole_text(descriptor: int, encoding: str) -> TextIO:
    """The same for text; what the encoding lacks becomes an escape."""
    raw: Any = Whole(descriptor)
    return TextIOWrapper(raw, encoding, "backslashreplace", write_through=True)


def wait_for_room(descriptor: int, seconds: float | None = None) -> bool:
    """Wait until it takes some bytes; false when it does not in time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def open_standard_streams() -> None:
    """Make standard output take whole writes, in the locale's encoding.

    Streams that were closed when msgctl was started, as by some daemons, become /dev/null.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    sys.stdout = whole_text(sys.stdout.fileno(), sys.stdout.encoding)


def say(text: str) -> None:
    """One line on standard output, which was made harmless where it came from outside."""
    sys.stdout.write(text + "\n")


def say_bytes(text: bytes) -> None:
    """UTF-8 without control characters, on standard output, in the locale's encoding.

    In an 8-bit locale the bytes of UTF-8 would be other characters, and some of them controls.
    """
    if sys.stdout.encoding != "utf-8":
        text = text.decode("utf-8", "backslashreplace").encode(
            sys.stdout.encoding, "backslashreplace"
        )
    sys.stdout.buffer.write(text)


def harmless(text: str) -> str:
    """A text from anywhere, such as a file's name, in one line that steers no terminal."""
    from msgd.wire.text import escape, typed

    return escape(typed(text)).decode().replace("\n", "\\x0a")


def complain(message: str) -> None:
    """Say what happened and what to do, in one line; if that cannot be said, all else holds."""
    line = f"msgctl: {harmless(message)}\n".encode(sys.stderr.encoding, "backslashreplace")
    try:
        while line:
            try:
                line = line[os.write(sys.stderr.fileno(), line) :]
            except BlockingIOError:
                if not wait_for_room(sys.stderr.fileno(), _PATIENCE):
                    return
    except OSError:
        pass


def discard_output() -> None:
    """Nobody takes standard output any more; what is written from here on goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
