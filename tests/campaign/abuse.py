"""Clients that misbehave in every way at once; a program of its own: ``… abuse PORT SECONDS``."""

from __future__ import annotations

import random
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from msgd.connection import BITE_FIRST, BITE_MOST, OUTPUT_BYTES
from msgd.peers import HELD_BYTES
from msgd.server import SYNCED

SILENT, DEAF, ENDLESS, GUESSERS, FLOODERS = 100, 20, 20, 100, 5
CLIENTS = 2 * (SILENT + DEAF + ENDLESS + GUESSERS + FLOODERS)  # some leave late

# One byte in, so many out, for the shortest line that is answered: "\n", "FAIL unknown header\n".
GROWTH = len(b"FAIL unknown header\n")
OBJECT_BYTES = 240  # of Python's own for one such answer, until the turn of the loop has ended
BASE_BYTES = 40 << 20  # the daemon itself, and what malloc keeps


def most_memory(clients: int, message_bytes: int) -> int:
    """Bytes of memory that so many clients can make the daemon take, whatever they send.

    For each: an unfinished line, the MORE lines of an unfinished message (which may be as many
    empty ones again), and output up to where it is not read from any more. For all together: what
    one turn of the loop reads, and its answers.
    """
    each = max(message_bytes, 1024) + 2 * message_bytes + OUTPUT_BYTES + GROWTH * BITE_FIRST
    turn = SYNCED.commit_bytes + BITE_MOST
    return BASE_BYTES + HELD_BYTES + clients * each + turn * (1 + GROWTH + OBJECT_BYTES)


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had so far."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def _deaf(sock: socket.socket, ended: threading.Event) -> None:
    """Sends as long as anything is taken, and never reads."""
    sock.sendall(b"PING\n")
    while not ended.is_set():
        sock.sendall(b"MESG \x1b\x1b\x1b\x1b\n\n\n\n" * 1000)


def _endless(sock: socket.socket, ended: threading.Event) -> None:
    """Never finishes a line."""
    sock.sendall(b"PING\nMESG ")
    while not ended.is_set():
        sock.sendall(b"x" * 500)
        ended.wait(0.05)


def _silent(sock: socket.socket, ended: threading.Event) -> None:
    """Never shakes hands; comes again when it is shown the door."""
    sock.settimeout(60)
    sock.recv(1)


def _guesser(sock: socket.socket, ended: threading.Event) -> None:
    stream = sock.makefile("rb")
    sock.sendall(b"PING\n")
    stream.readline()
    while not ended.is_set():
        sock.sendall(b"TERM guess %d\n" % random.randrange(10**9))
        if not stream.readline():
            return


def _flooder(sock: socket.socket, ended: threading.Event) -> None:
    """Connects and resets, in whatever state."""
    first = random.choice([b"", b"P", b"PING", b"PING\n", b"PING\nMESG a\nMESG", b"PINGMESG a"])
    sock.sendall(random.choice([first, random.randbytes(1000)]))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ended.wait(0.002)


Kind = Callable[[socket.socket, threading.Event], None]
KINDS: dict[Kind, int] = {
    _deaf: DEAF,
    _endless: ENDLESS,
    _silent: SILENT,
    _guesser: GUESSERS,
    _flooder: FLOODERS,
}


def attack(port: int, seconds: float) -> None:
    """All of them at once, for so long."""
    ended = threading.Event()
    for kind, count in KINDS.items():
        for _ in range(count):
            threading.Thread(target=_again, args=(kind, port, ended), daemon=True).start()
    time.sleep(seconds)


def _again(kind: Kind, port: int, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            with socket.create_connection(("127.0.0.1", port), 60) as sock:
                kind(sock, ended)
        except OSError:
            ended.wait(0.01)


if __name__ == "__main__":
    attack(int(sys.argv[1]), float(sys.argv[2]))
