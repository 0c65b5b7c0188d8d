"""Mixed clients for a long time; at the end every number must add up exactly.

Each client remembers how many of its messages were echoed and a digest over them, in order. The
archive is then read once from the first day to the last, and must give the same for each.
"""

from __future__ import annotations

import gzip
import hashlib
import random
import re
import socket
import struct
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from tests.lab import fake
from tests.lab.daemon import PASSWORD_HASH, Daemon
from tests.lab.load import Message
from tests.lab.proc import descriptors, rss_bytes

SECONDS = 60.0
CONFIG = f"listen: 127.0.0.1\npassword_hash: {PASSWORD_HASH}\ncompress: gzip\n"
DAY_SECONDS = 60.0  # of real time until the clock is set to the next day
TOO_LONG = b"MESG " + b"x" * 70_000 + b"\n", b"FAIL message too long\n"
UNKNOWN = b"HELO there\n", b"FAIL unknown header\n"
_NAME = re.compile(rb"([a-z]+\d+)-\d+ ")


class Tally:
    """How many messages, and which, in order."""

    def __init__(self) -> None:
        self.count = 0
        self._digest = hashlib.sha256()

    def add(self, text: bytes) -> None:
        self.count += 1
        self._digest.update(text + b"\n\n")

    def value(self) -> tuple[int, str]:
        return self.count, self._digest.hexdigest()


class Client(threading.Thread):
    """One kind of client, which does the same over and over until the soak ends."""

    def __init__(self, name: str, port: int, ended: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.echoed = Tally()
        self.sent = self.refused = self.connections = self.passwords = 0
        self.problem = ""
        self._port, self._ended = port, ended
        self._random = random.Random(name)

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                self.connections += 1
                with socket.create_connection(("127.0.0.1", self._port), SECONDS) as sock:
                    self.talk(sock)
        except (OSError, AssertionError) as error:
            self.problem = f"{self.name}: {type(error).__name__}: {error}"

    @abstractmethod
    def talk(self, sock: socket.socket) -> None:
        """What it does on one connection."""

    def rounds(self, count: int) -> Iterator[None]:
        """So many times, with pauses, unless the soak ends before."""
        for _ in range(count):
            if self._ended.is_set():
                return
            yield
            self._ended.wait(self._random.uniform(0.02, 0.3))

    def messages(self, count: int) -> list[Message]:
        first, self.sent = self.sent, self.sent + count
        return [Message(f"{self.name}-{first + n}", self._random) for n in range(count)]

    def take(self, read: Callable[[int], bytes], messages: list[Message]) -> None:
        """Receive the echoes; each must be the right one."""
        for message in messages:
            reply = read(len(message.echo))
            assert reply == message.echo, f"{message.echo!r} was echoed as {reply!r}"
            self.echoed.add(message.text)


class Line(Client):
    """Pipelines windows of messages, and now and then what is refused."""

    def talk(self, sock: socket.socket) -> None:
        stream = greet(sock)
        for _ in self.rounds(200):
            messages = self.messages(self._random.randint(1, 100))
            bad, answer = self._random.choice([TOO_LONG, UNKNOWN, (b"", b""), (b"", b"")])
            sock.sendall(b"".join(message.request for message in messages) + bad)
            self.take(stream.read, messages)
            assert stream.read(len(answer)) == answer
            self.refused += bool(bad)


class Bare(Client):
    """Written from the base table alone: one message, then its echo."""

    def talk(self, sock: socket.socket) -> None:
        sock.sendall(b"PING")
        assert sock.recv(4) == b"PONG"
        for _ in self.rounds(20):
            (message,) = self.messages(1)
            text = f"{self.name}-{self.sent - 1} bare\nand more".encode()
            sock.sendall(b"MESG " + text)
            assert sock.recv(1 << 16) == b"MESG " + text, message
            self.echoed.add(text)


class Slow(Client):
    """Sends a byte now and then, and reads no faster."""

    def talk(self, sock: socket.socket) -> None:
        stream = greet(sock)
        for _ in self.rounds(3):
            messages = self.messages(3)
            for byte in b"".join(message.request for message in messages)[:200]:
                sock.sendall(bytes([byte]))
                self._ended.wait(0.005)
            sock.sendall(b"".join(message.request for message in messages)[200:])
            self.take(stream.read, messages)


class Deaf(Client):
    """Sends far more than it reads, reads nothing for a while, and then all of it."""

    def talk(self, sock: socket.socket) -> None:
        stream = greet(sock)
        messages = self.messages(5000)
        data = b"".join(message.request for message in messages)
        sender = threading.Thread(target=sock.sendall, args=(data,), daemon=True)
        sender.start()
        self._ended.wait(5)
        self.take(stream.read, messages)
        sender.join()
        self._ended.wait(5)


class Leaver(Client):
    """Connects, sends whole lines, closes its side, and takes what it is owed."""

    def talk(self, sock: socket.socket) -> None:
        messages = self.messages(self._random.randint(0, 20))
        requests = b"".join(message.request for message in messages)
        sock.sendall(b"PING\n" + requests + b"MESG never finished")
        sock.shutdown(socket.SHUT_WR)
        stream = sock.makefile("rb")
        assert stream.readline() == b"PONG\n"
        self.take(stream.read, messages)
        assert stream.read() == b""
        self._ended.wait(0.1)


class Resetter(Client):
    """Breaks the connection in the middle of a line: nothing of it may be archived."""

    def talk(self, sock: socket.socket) -> None:
        greet(sock)
        sock.sendall(f"MESG {self.name}-0 never finished".encode())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._ended.wait(0.1)


class Guesser(Client):
    """Asks the server to stop, with a wrong password."""

    def talk(self, sock: socket.socket) -> None:
        stream = greet(sock)
        for _ in self.rounds(5):
            sock.sendall(b"TERM let me in\n")
            assert stream.readline() == b"PWNO\n"
            self.passwords += 1


KINDS: list[type[Client]] = [Line, Line, Bare, Bare, Slow, Deaf, Leaver, Leaver, Resetter, Guesser]


def greet(sock: socket.socket) -> socket.SocketIO:
    sock.sendall(b"PING\n")
    stream = sock.makefile("rb")
    assert stream.readline() == b"PONG\n"
    return stream  # type: ignore[return-value]


def soak(
    begin: Callable[..., Daemon],
    folder: Path,
    seconds: float,
    tell: Callable[[str], None],
    day_seconds: float = DAY_SECONDS,
) -> str:
    """Run; raises AssertionError for anything that does not add up."""
    folder.mkdir(exist_ok=True)
    clock = fake.FakeClock(folder, "2026-03-01 12:00:00")
    msgd = begin(CONFIG, folder=folder, env=clock.env())
    ended = threading.Event()
    clients = [
        kind(f"{kind.__name__.lower()}{n}", msgd.port, ended) for n, kind in enumerate(KINDS)
    ]
    before = usage(msgd.pid)
    for client in clients:
        client.start()
    days = _watch(msgd, clock, clients, seconds, day_seconds, tell)
    ended.set()
    for client in clients:
        client.join()
    _rest(msgd)
    tell(f"RSS and descriptors: {before} idle at the start, {usage(msgd.pid)} idle at the end")
    assert msgd.stop() == 0
    return f"{days} days; {_add_up(msgd.log_directory, clients)}"


def _watch(
    msgd: Daemon,
    clock: fake.FakeClock,
    clients: list[Client],
    seconds: float,
    day_seconds: float,
    tell: Callable[[str], None],
) -> int:
    """Set the clock from day to day; returns how often."""
    day = datetime(2026, 3, 1, 12)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, day_seconds))
        day += timedelta(days=1)
        clock.set(str(day))
        problems = [client.problem for client in clients if client.problem]
        assert not problems, problems
        assert "Traceback" not in msgd.log  # reads it, too: a full pipe would stop the daemon
        assert msgd.process.poll() is None, msgd.log
        tell(f"{day:%m-%d}: {sum(c.echoed.count for c in clients)} echoed, {usage(msgd.pid)}")
    return (day - datetime(2026, 3, 1)).days


def _rest(msgd: Daemon) -> None:
    """Wait until the daemon has closed all connections."""
    end = time.monotonic() + SECONDS
    while descriptors(msgd.pid, "socket:") > 1:
        assert time.monotonic() < end, "connections are left"
        time.sleep(0.05)


def usage(pid: int) -> str:
    return f"{rss_bytes(pid) >> 10} KiB, {descriptors(pid)} descriptors"


def texts(folder: Path) -> Iterator[bytes]:
    """The text of every record, from the first day to the last."""
    days = sorted({path.name[:10] for path in folder.glob("????-??-??.log*")})
    for day in days:
        plain = folder / f"{day}.log"
        with plain.open("rb") if plain.exists() else gzip.open(f"{plain}.gz") as lines:
            text: bytes | None = None
            for line in lines:
                assert line.endswith(b"\n")
                if line.startswith(b"\t"):
                    assert text is not None
                    text += b"\n" + line[1:-1]
                    continue
                if text is not None:
                    yield text
                assert line.startswith(day.encode()), line
                text = line[:-1].split(b" ", 2)[2]
            if text is not None:
                yield text


def _add_up(folder: Path, clients: list[Client]) -> str:
    problems = [client.problem for client in clients if client.problem]
    assert not problems, problems
    archived = {client.name: Tally() for client in clients}
    for text in texts(folder):
        found = _NAME.match(text)
        assert found, f"never sent: {text!r}"
        archived[found[1].decode()].add(text)
    for client in clients:
        assert archived[client.name].value() == client.echoed.value(), client.name
        assert client.sent == client.echoed.count, client.name
    sent = sum(client.sent for client in clients)
    kept = sum(tally.count for tally in archived.values())
    return (
        f"{sent} messages sent = {kept} echoed = {kept} archived, each client's in its order; "
        f"{sum(c.refused for c in clients)} requests refused, "
        f"{sum(c.passwords for c in clients)} wrong passwords, "
        f"{sum(c.connections for c in clients)} connections"
    )
