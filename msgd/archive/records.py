"""What a record looks like: the one place that writes its form, and reads it again.

    2026-11-23T02:51:07.123456+00:00 127.0.0.1:40312 a line
    2026-11-23T02:51:07.123456+00:00 127.0.0.1:40312/nightly:1502+1 two
    <TAB>lines

A time stamp, a space, the origin, a space, the text. In a session the origin ends with the
session's id and the record's number, and with the number of further lines where there are any.
Each further line of a text begins with a TAB, so a line that does not begins a record, always.
msgd-protocol(7) is the reference.
"""

from __future__ import annotations

CAN = b"\x18"  # a line that ends with it is no record: no text can hold it
MARK = CAN + b"\n"  # what a start appends where a crash has left an end that is not whole

# The last three digits of a number, as they stand before a text. Formatting each number would
# take longer than all else that is done for a record.
_DIGITS = [b"%03d " % number for number in range(1000)]


class Form:
    """Makes the records of one client: of texts that need no more escapes.

    It knows nothing of what is kept. `number` is that of the next record in the session, 0
    where there is none.
    """

    __slots__ = ("_begin", "_behind", "_origin", "_stamp", "number")

    def __init__(self, origin: str) -> None:
        """``origin`` is such as ``127.0.0.1:40312``, with ``@name`` where the client has one."""
        self._origin = f" {origin}".encode()
        self._behind = self._origin + b" "  # the time stamp, up to the text or the number
        self._stamp = self._begin = b""
        self.number = 0

    def open(self, session: str, number: int) -> None:
        """From here records are numbered, from this number on."""
        self._behind, self.number = b"%b/%b:" % (self._origin, session.encode()), number
        self.at(self._stamp)

    def at(self, stamp: bytes) -> None:
        """The time stamp of all records until the next call."""
        self._stamp = stamp
        self._begin = stamp + self._behind

    def block(self, texts: list[bytes], size: int) -> bytes | None:
        """The records of these texts, each one line with its line feed.

        The list begins with an empty entry, and the records with the text behind that. None, and
        no number is taken, where the texts are not ``size`` bytes together.
        """
        messages = len(texts) - 1
        if not self.number:
            made = self._begin.join(texts)
            return made if len(made) == size + messages * len(self._begin) else None
        parts, first = list[bytes](), 0
        while first < messages:  # as many as have all but their last three digits in common
            thousands, digits = divmod(self.number + first, 1000)
            count = min(1000 - digits, messages - first)
            begin = self._begin + (b"%d" % thousands if thousands else b"")
            size += count * (len(begin) + len(b"000 "))
            run = [begin] * (3 * count)
            run[1::3] = _DIGITS[digits : digits + count]
            run[2::3] = texts[first + 1 : first + 1 + count]
            parts += run
            first += count
        made = b"".join(parts)
        if len(made) != size:
            return None
        self.number += messages
        return made

    def message(self, text: bytes) -> bytes:
        """The record of one text, of one line or several, without its last line feed."""
        further = text.count(b"\n")
        begin = self._begin
        if self.number:
            begin += b"%03d" % self.number + (b"+%d " % further if further else b" ")
            self.number += 1
        return begin + (text.replace(b"\n", b"\n\t") if further else text) + b"\n"
