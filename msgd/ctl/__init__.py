"""msgctl, the command: its verbs are in commands.py."""

from __future__ import annotations

import sys

from msgd.ctl.manners import INTERRUPTED, complain, open_standard_streams


def main() -> None:
    """Run msgctl; the exit status tells how it went."""
    open_standard_streams()
    try:
        from msgd.ctl.commands import run  # takes most of the time until Ctrl-C is expected

        status = run()
    except KeyboardInterrupt:
        complain("interrupted")
        status = INTERRUPTED
    sys.exit(status)
