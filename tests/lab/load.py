"""Clients that push messages which nobody else sends, and remember what they were told."""

from __future__ import annotations

import random
import re
import socket
import threading
from collections.abc import Callable, Iterator

SECONDS = 60.0

# What is sent, and what the archive is to hold of it: the text rules, written out by hand.
_TEXTS = [
    (b"plain", b"plain"),
    (b"tab\tin it", b"tab\tin it"),
    ("Grüße, мир, 世界".encode(), "Grüße, мир, 世界".encode()),
    (b"bell\x07 and escape\x1b[31m", b"bell\\x07 and escape\\x1b[31m"),
    (b"bad \xff\xfe utf-8", b"bad \\xff\\xfe utf-8"),
    ("separator\u2028 and \u202ebidi".encode(), b"separator\\u2028 and \\u202ebidi"),
    (b"two\nlines", b"two\nlines"),
    (b"\nthree\n\tof them", b"\nthree\n\tof them"),
    (b"2026-01-01T00:00:00.000000+00:00 10.0.0.1:1 forged", None),
    (b"long " * 400, None),
]


class Message:
    """One message: as it was sent, and as the archive is to hold it."""

    __slots__ = ("echo", "request", "text")

    def __init__(self, name: str, random: random.Random) -> None:
        sent, archived = random.choice(_TEXTS)
        self.text = name.encode() + b" " + (sent if archived is None else archived)
        self.request = lines_of(name.encode() + b" " + sent)
        self.echo = lines_of(self.text)


def lines_of(text: bytes) -> bytes:
    """A message in line framing, in the slow and obvious way."""
    *more, last = text.split(b"\n")
    return b"".join(b"MORE " + line + b"\n" for line in more) + b"MESG " + last + b"\n"


class Sender(threading.Thread):
    """Sends until it is stopped or the connection breaks; each echo must be the right one."""

    def __init__(
        self, name: str, port: int, window: int = 50, limit: int = 1 << 60, session: str = ""
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.session = session  # its messages are numbered from `told` + 1 on
        self.told: int | None = None  # the session's last number, as the server says at its begin
        self.sent: list[Message] = []
        self.echoed = 0  # the first so many of them
        self.refused: set[int] = set()  # and which of those with FAIL
        self.problem = ""
        self._port, self._window, self._limit = port, window, limit
        self._random = random.Random(name)
        self._halt = threading.Event()

    def stop(self) -> None:
        """Send nothing new, and take the echoes that are due."""
        self._halt.set()

    def run(self) -> None:
        try:
            with socket.create_connection(("127.0.0.1", self._port), SECONDS) as sock:
                self._talk(sock)
        except OSError:
            pass  # the daemon was killed: what was sent and what was echoed is known
        except AssertionError as error:
            self.problem = f"{self.name}: {error}"

    def _talk(self, sock: socket.socket) -> None:
        stream = sock.makefile("rb")
        sock.sendall(b"PING\n")
        if stream.readline() != b"PONG\n" or not self._open(sock, stream.readline):
            return
        while not self._halt.is_set() and len(self.sent) < self._limit:
            new = [self._make() for _ in range(self._random.randint(1, self._window))]
            sock.sendall(b"".join(message.request for message in new))
            for message in new:
                if not self._receive(stream.readline, message):
                    return
            if self.echoed - 1 in self.refused:
                self._halt.wait(0.1)  # the others shall have the processor, too

    def _open(self, sock: socket.socket, readline: Callable[[], bytes]) -> bool:
        if not self.session:
            return True
        sock.sendall(b"SESS %b\n" % self.session.encode())
        reply = readline()
        if not reply.endswith(b"\n"):
            return False
        assert re.fullmatch(rb"SESS (0|[1-9]\d*)\n", reply), reply
        self.told = int(reply.split()[1])
        return True

    def _make(self) -> Message:
        message = Message(f"{self.name}-{len(self.sent)}", self._random)
        self.sent.append(message)
        return message

    def _receive(self, readline: Callable[[], bytes], message: Message) -> bool:
        """Whether the whole reply has come."""
        reply = b""
        for expected in message.echo.splitlines(keepends=True):
            line = readline()
            if not line.endswith(b"\n"):
                return False
            if line == b"FAIL archive cannot be written\n" and not reply:
                self.refused.add(self.echoed)
                break
            assert line == expected, f"{expected!r} was echoed as {line!r}"
            reply += line
        self.echoed += 1
        return True

    def receipts(self) -> Iterator[tuple[bytes, bool]]:
        """The text of each message that was sent, and whether it was echoed."""
        for number, message in enumerate(self.sent):
            yield message.text, number < self.echoed and number not in self.refused

    def denied(self) -> Iterator[bytes]:
        """The texts that were answered with FAIL."""
        return (self.sent[number].text for number in self.refused)
