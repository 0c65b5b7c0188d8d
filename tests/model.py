"""A reference model of the protocol: slow and obvious, one byte and one message at a time.

It is written from the protocol's description, and shares no code with msgd.
"""

from __future__ import annotations

import string
import unicodedata

SEPARATORS = {0x2028, 0x2029}
BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
ANNOTATIONS = {0xFFF9, 0xFFFA, 0xFFFB}
NONCHARACTERS = {*range(0xFDD0, 0xFDF0)} | {c for c in range(0x110000) if c & 0xFFFE == 0xFFFE}
# Default_Ignorable_Code_Point in DerivedCoreProperties.txt, line by line.
IGNORABLE = {
    0x00AD, 0x034F, 0x061C, *range(0x115F, 0x1161), *range(0x17B4, 0x17B6),
    *range(0x180B, 0x180E), 0x180E, 0x180F, *range(0x200B, 0x2010), *range(0x202A, 0x202F),
    *range(0x2060, 0x2065), 0x2065, *range(0x2066, 0x2070), 0x3164, *range(0xFE00, 0xFE10),
    0xFEFF, 0xFFA0, *range(0xFFF0, 0xFFF9), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B),
    0xE0000, 0xE0001, *range(0xE0002, 0xE0020), *range(0xE0020, 0xE0080),
    *range(0xE0080, 0xE0100), *range(0xE0100, 0xE01F0), *range(0xE01F0, 0xE1000),
}  # fmt: skip
NEEDED = {0x200C, 0x200D, *range(0xFE00, 0xFE10)}  # by emoji, Persian and Indic scripts
HIDDEN = SEPARATORS | BIDI | ANNOTATIONS | NONCHARACTERS | (IGNORABLE - NEEDED)


def escaped(text: bytes) -> bytes:
    """The text as archived; the line feeds of a message of several lines stay."""
    out = b""
    while text:
        for size in (1, 2, 3, 4):
            try:
                char = text[:size].decode()
            except UnicodeDecodeError:
                continue
            out += visible(char)
            text = text[size:]
            break
        else:
            out += b"\\x%02x" % text[0]
            text = text[1:]
    return out


def is_unsafe(char: str) -> bool:
    """Whether it is not archived as it is; TAB and the line feed are looked at elsewhere."""
    return unicodedata.category(char) == "Cc" or ord(char) in HIDDEN


def visible(char: str) -> bytes:
    if char in "\t\n" or not is_unsafe(char):
        return char.encode()
    code = ord(char)
    form = "\\x%02x" if code < 0x100 else "\\u%04x" if code < 0x10000 else "\\U%08x"
    return (form % code).encode()


def well_formed(password: bytes) -> bool:
    try:
        text = password.decode()
    except UnicodeDecodeError:
        return False
    return 1 <= len(password) <= 1024 and not any(map(is_unsafe, text))


def opening(argument: bytes) -> tuple[bytes, int | None] | None:
    """The session and the number that SESS asks for; None if they are malformed."""
    name, space, number = argument.partition(b" ")
    letters_and_digits = string.ascii_letters + string.digits
    if not (1 <= len(name) <= 64 and name.isascii()):
        return None
    if name.decode()[0] not in letters_and_digits:
        return None
    if any(char not in letters_and_digits + "._-" for char in name.decode()):
        return None
    if not space:
        return name, None
    if not (number.isascii() and number.isdigit()) or str(int(number)) != number.decode():
        return None
    return (name, int(number)) if int(number) <= 2**63 else None


class Model:
    """Replies to the whole of what one client sends, and the texts that are archived.

    Passwords are always wrong; an archive always works. ``sessions`` are the last numbers of those
    that the server knows.
    """

    def __init__(self, limit: int, sessions: dict[bytes, int] | None = None) -> None:
        self.limit = limit
        self.replies = b""
        self.archive: list[bytes] = []
        self.marks: list[bytes] = []  # for each of them, what stands behind the address
        self.sessions = {} if sessions is None else sessions
        self.session: bytes | None = None  # the one that is open
        self.number = 0  # of its next message
        self.refusal = b""  # every message gets this
        self.tail = b""  # a line that has not ended
        self.pending: list[bytes] | None = None  # lines of a message that goes on
        self.lost = False  # it is too long, and that has been said

    def line_framed(self, stream: bytes) -> None:
        """A stream whose first bytes are PING and a line end."""
        assert stream.startswith((b"PING\n", b"PING\r\n"))
        self.replies += b"PONG\n"
        self.lines(stream.partition(b"\n")[2])

    def lines(self, data: bytes) -> None:
        """What comes behind the handshake, or behind what came before."""
        *lines, self.tail = (self.tail + data).split(b"\n")
        for line in lines:
            self.line(line.removesuffix(b"\r"))

    def line(self, line: bytes) -> None:
        header, space, text = line[:4], line[4:5], line[5:]
        if header in (b"MORE", b"MESG") and space == b" ":
            self.pending = [*(self.pending or []), text]
            if not self.lost and not self.refusal and self.is_too_long(self.pending):
                self.replies += self.failed(b"message too long") + b"\n"
                self.lost = True
            if header == b"MESG":
                if not self.lost:
                    self.line_message(self.pending)
                self.pending, self.lost = None, False
            return
        interrupted, self.pending, self.lost = self.pending is not None, None, False
        if header in (b"MORE", b"MESG"):
            self.replies += self.failed(b"space expected after the header") + b"\n"
            return
        if interrupted:
            self.failed(b"")
        self.replies += self.request(line, interrupted) + b"\n"

    def taken_over(self) -> None:
        self.refusal = b"session taken over"

    def failed(self, reason: bytes) -> bytes:
        """The FAIL for a message: the first one stops the session, if there is one."""
        if self.refusal:
            return b"FAIL " + self.refusal
        if self.session is not None:
            self.refusal = b"session interrupted"
        return b"FAIL " + reason

    def is_too_long(self, lines: list[bytes]) -> bool:
        return sum(map(len, lines)) > self.limit or len(lines) > self.limit + 1

    def line_message(self, lines: list[bytes]) -> None:
        if self.refusal:
            self.replies += self.failed(b"") + b"\n"
            return
        lines = [escaped(line) for line in lines]
        self.archived(b"\n".join(lines))
        for line in lines[:-1]:
            self.replies += b"MORE " + line + b"\n"
        self.replies += b"MESG " + lines[-1] + b"\n"

    def archived(self, text: bytes) -> None:
        self.archive.append(text)
        mark = b""
        if self.session is not None:
            more = text.count(b"\n")
            mark = b"/%b:%03d" % (self.session, self.number) + (b"+%d" % more if more else b"")
            self.sessions[self.session] = self.number
            self.number += 1
        self.marks.append(mark)

    def open(self, argument: bytes) -> bytes:
        asked = opening(argument)
        if asked is None:
            return self.not_opened(b"malformed session")
        name, number = asked
        last = self.sessions.get(name, 0)
        if number is not None and number <= last:
            return self.not_opened(b"number already used")
        self.session, self.refusal = name, b""
        self.number = last + 1 if number is None else number
        return b"SESS %d" % last

    def not_opened(self, reason: bytes) -> bytes:
        self.refusal = b"session interrupted"
        return b"FAIL " + reason

    def request(self, message: bytes, interrupted: bool, bare: bool = False) -> bytes:
        """Anything that is no message."""
        header, space, rest = message[:4], message[4:5], message[5:]
        if header == b"SESS" and not bare:
            if interrupted:
                return self.not_opened(b"message interrupted")
            if space != b" ":
                return self.not_opened(b"space expected after the header")
            return self.open(rest)
        if interrupted and header in (b"PING", b"TERM"):
            return b"FAIL message interrupted"
        if message == b"PING":
            return b"PONG"
        if header == b"PING" and space == b" ":
            return b"FAIL header takes no argument"
        if header == b"TERM" and space in (b"", b" "):
            return b"PWNO" if well_formed(rest) else b"PWIV"
        if header == b"TERM" or (header == b"MESG" and bare):
            return b"FAIL space expected after the header"
        return b"FAIL unknown header"

    def bare_message(self, message: bytes) -> None:
        """What came between two silences."""
        for end in (b"\r\n", b"\n"):
            if message.endswith(end):
                message = message[: -len(end)]
                break
        if message.startswith(b"MESG "):
            if len(message) - 5 > self.limit:
                self.replies += b"FAIL message too long"
                return
            text = escaped(message[5:])
            self.archived(text)
            self.replies += b"MESG " + text
        else:
            self.replies += self.request(message, False, bare=True)
