"""How much memory clients can make the daemon take: the bound that the siege holds it to."""

from __future__ import annotations

from msgd.server.clients import HELD_MOST, KERNEL_RECEIVES, KERNEL_SENDS, WIDE_BYTES, WIDE_CLIENTS
from msgd.server.fairness import BITE_MOST, SYNCED

BASE_BYTES = 40 << 20  # the daemon itself, and what malloc keeps
CLIENT_BYTES = 2 << 10  # one that is idle takes 1.1 KiB
TLS_BYTES = 90 << 10  # more for one over TLS, with a certificate of its own, that has pushed
# One byte in, up to this many out: "\n", "FAIL unknown header\n". And Python's own bytes for one
# such answer until it is committed.
GROWTH, OBJECT_BYTES = len(b"FAIL unknown header\n"), 240
# A message of one byte a line, which is no UTF-8: it is held, its record and its echo are made,
# joined with others, and written: MORE \\xff and a line feed for each of its bytes.
MESSAGE_GROWTH = 2 + 3 * (6 + 10)


# Of what is held, for the room that a bytearray keeps to grow (an eighth), and malloc's gaps.
SPARE = 4


def most_memory(clients: int, message_bytes: int, tls: bool = False) -> int:
    """Bytes of memory that this number of clients can make the daemon take, whatever they send.

    Output and unfinished input of all clients together are bounded (`HELD_MOST`): those who hold
    most are closed. To that comes one group, with the last bite that it was complete with, or the
    last message that it released.
    """
    bite = BITE_MOST * (1 + GROWTH + OBJECT_BYTES)
    group = 3 * SYNCED.group_bytes + max(bite, MESSAGE_GROWTH * message_bytes)
    return (
        BASE_BYTES
        + HELD_MOST
        + HELD_MOST // SPARE
        + group
        + clients * (CLIENT_BYTES + tls * TLS_BYTES)
    )


def kernel_memory(clients: int) -> int:
    """Bytes that the kernel keeps for as many that send and do not read: setsockopt doubles it."""
    return clients * 2 * (KERNEL_RECEIVES + KERNEL_SENDS)


def wide_memory() -> int:
    """More of it, for the few who have pushed much."""
    return WIDE_CLIENTS * 2 * 2 * WIDE_BYTES
