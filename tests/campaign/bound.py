"""How much memory clients can make the daemon take: the bound that the siege holds it to."""

from __future__ import annotations

from msgd.server.clients import HELD_BYTES
from msgd.server.connection import BITE_FIRST, BITE_MOST, OUTPUT_BYTES
from msgd.server.fairness import SYNCED

# One byte in, so many out, for the shortest line that is answered: "\n", "FAIL unknown header\n".
GROWTH = len(b"FAIL unknown header\n")
OBJECT_BYTES = 240  # of Python's own for one such answer, until it is committed
BASE_BYTES = 40 << 20  # the daemon itself, and what malloc keeps
CLIENT_BYTES = 2 << 10  # one that is idle takes 1.1 KiB


def most_memory(clients: int, message_bytes: int) -> int:
    """Bytes of memory that so many clients can make the daemon take, whatever they send.

    For all together: what is read before the next commit, and its answers; then output, and lines
    behind passwords, up to where everybody is read from in small bites. For each client: itself;
    an unfinished line; the MORE lines of an unfinished message, which may be as many empty ones
    again; output up to where it is not read from any more; one small bite more, which is answered
    or waits behind a password. A bytearray that grows takes an eighth more than it holds.
    """
    group = SYNCED.commit_bytes + BITE_MOST
    together = group * (1 + GROWTH + OBJECT_BYTES) + HELD_BYTES
    text = (max(message_bytes, 1024) + 2 * message_bytes + BITE_FIRST) * 9 // 8
    each = CLIENT_BYTES + text + OUTPUT_BYTES + GROWTH * BITE_FIRST
    return BASE_BYTES + together + clients * each
