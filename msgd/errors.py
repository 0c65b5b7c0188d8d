"""The one exception that ends the daemon."""

from __future__ import annotations


class Fatal(Exception):
    """The daemon cannot go on: it ends with status 1.

    Its text is one line for the administrator: what is wrong, and how to mend it.
    """
