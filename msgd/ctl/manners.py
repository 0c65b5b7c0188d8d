"""How msgctl speaks: its exit statuses, and one line on standard error for whatever goes wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

# 69 and 77 are EX_UNAVAILABLE and EX_NOPERM of sysexits(3). What a signal ends counts as 128
# and the signal's number, as in a shell.
OK, REFUSED, USAGE, UNAVAILABLE, NO_PERMISSION = 0, 1, 2, 69, 77
INTERRUPTED, BROKEN_PIPE = 130, 141


def complain(message: str) -> None:
    """Say what happened and what to do, in one line; if that cannot be said, all else holds."""
    line = f"msgctl: {message}\n".encode(sys.stderr.encoding, sys.stderr.errors or "strict")
    with suppress(OSError):
        os.write(sys.stderr.fileno(), line)


def words(error: OSError) -> str:
    """The error and its file, where it has one, for one line."""
    return f"{error.filename}: {error.strerror}" if error.filename else f"{error.strerror}"


def discard_output() -> None:
    """Nobody takes standard output any more; else Python would try once more at its very end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def unless_closed(verb: Callable[[], int]) -> int:
    """Run the verb; where nobody reads standard output any more, say so and end."""
    try:
        return verb()
    except BrokenPipeError:
        discard_output()
        complain("standard output was closed")
        return BROKEN_PIPE


def open_standard_streams() -> None:
    """Give those that were closed when msgctl was started, as by some daemons, to /dev/null."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
