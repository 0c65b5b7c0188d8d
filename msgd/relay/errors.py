"""What can go wrong between the relay and the engine: two kinds, by what is to be done."""

from __future__ import annotations


class Doubt(Exception):
    """It may pass: forget what is known of the stream, and look again after a pause.

    The text says what, and what to do should it last.
    """


class Denied(Exception):
    """Somebody must mend something first: the program ends with status 78.

    The text is one line: what is not allowed or does not fit, and how to mend it.
    """
