"""msgctl, the command: a verb a file (ping, send, terminate), and what they share.

A message comes in as text, lines or files (sources), goes to msgd.client, and comes out as an echo
(printer). Nothing here knows the wire: what a program could want too belongs into the library.
"""

from __future__ import annotations

import sys

from msgd.ctl.exits import interrupted, of_error
from msgd.ctl.streams import open_standard_streams


def main() -> None:
    """Run msgctl; the exit status tells how it went."""
    open_standard_streams()
    try:
        from msgd.ctl.commands import run  # takes most of the time until Ctrl-C is expected

        status = run()
    except KeyboardInterrupt as error:
        status = interrupted(error)
    except MemoryError as error:  # already while it is loaded
        status = of_error(error)
    sys.exit(status)
