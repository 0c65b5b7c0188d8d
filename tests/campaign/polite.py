"""A well-behaved client, a program of its own: ``python -m tests.campaign.polite PORT PID``.

It sends a message, waits for its echo, rests a moment, and so on until its standard input ends. It
writes a line for each wait: seconds on the clock, and seconds of the daemon's work meanwhile. Where
others use the machine, too, only the second is the daemon's doing.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from pathlib import Path

REST_SECONDS = 0.002


def main(port: int, pid: int) -> None:
    sock = socket.create_connection(("127.0.0.1", port), 60)
    sock.sendall(b"PING\n")
    assert sock.recv(99) == b"PONG\n"
    print("in place", flush=True)
    number = 0
    while not select.select([sys.stdin], [], [], REST_SECONDS)[0]:
        message = b"MESG well-behaved %d\n" % number
        began, worked = time.monotonic(), at_work(pid)
        sock.sendall(message)
        echo = b""
        while len(echo) < len(message):
            more = sock.recv(99)
            assert more, "the daemon has closed"
            echo += more
        assert echo == message, echo
        print(f"{time.monotonic() - began:.6f} {at_work(pid) - worked:.6f}", flush=True)
        number += 1


def at_work(pid: int) -> float:
    """Seconds of a processor that a process of one thread has had (proc(5), schedstat)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
