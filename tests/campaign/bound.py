"""How much memory clients can make the daemon take: the bound that the siege holds it to."""

from __future__ import annotations

import re
from pathlib import Path

from msgd.connection import BITE_FIRST, BITE_MOST, OUTPUT_BYTES
from msgd.peers import HELD_BYTES
from msgd.server import SYNCED

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
