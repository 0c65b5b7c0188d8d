"""A reference model of the protocol: slow and obvious, one byte and one message at a time.

It is written from the protocol's description, and shares no code with msgd.
"""

from __future__ import annotations

import unicodedata

BIDI_AND_SEPARATORS = {
    0x061C, 0x200E, 0x200F, 0x2028, 0x2029, 0x202A, 0x202B, 0x202C, 0x202D, 0x202E,
    0x2066, 0x2067, 0x2068, 0x2069,
}  # fmt: skip


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


def visible(char: str) -> bytes:
    code = ord(char)
    if char in "\t\n":
        return char.encode()
    if unicodedata.category(char) == "Cc" or code in BIDI_AND_SEPARATORS:
        return b"\\x%02x" % code if code < 256 else b"\\u%04x" % code
    return char.encode()


def well_formed(password: bytes) -> bool:
    try:
        text = password.decode()
    except UnicodeDecodeError:
        return False
    return 1 <= len(password) <= 1024 and not any(
        unicodedata.category(char) == "Cc" or ord(char) in BIDI_AND_SEPARATORS for char in text
    )


class Model:
    """Replies to the whole of what one client sends, and the texts that are archived.

    Passwords are always wrong; an archive always works.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.replies = b""
        self.archive: list[bytes] = []

    def line_framed(self, stream: bytes) -> None:
        """A stream whose first bytes are PING and a line end."""
        assert stream.startswith((b"PING\n", b"PING\r\n"))
        self.replies += b"PONG\n"
        lines = stream.split(b"\n")[1:-1]  # behind the last line feed there is no message
        pending: list[bytes] | None = None
        lost = False
        for line in lines:
            line = line.removesuffix(b"\r")
            header, space, text = line[:4], line[4:5], line[5:]
            if header in (b"MORE", b"MESG") and space == b" ":
                pending = [*(pending or []), text]
                if not lost and self.is_too_long(pending):
                    self.replies += b"FAIL message too long\n"
                    lost = True
                if header == b"MESG":
                    if not lost:
                        self.line_message(pending)
                    pending, lost = None, False
                continue
            interrupted, pending, lost = pending is not None, None, False
            self.replies += self.request(line, interrupted) + b"\n"

    def is_too_long(self, lines: list[bytes]) -> bool:
        return sum(map(len, lines)) > self.limit or len(lines) > self.limit + 1

    def line_message(self, lines: list[bytes]) -> None:
        lines = [escaped(line) for line in lines]
        self.archive.append(b"\n".join(lines))
        for line in lines[:-1]:
            self.replies += b"MORE " + line + b"\n"
        self.replies += b"MESG " + lines[-1] + b"\n"

    def request(self, message: bytes, interrupted: bool) -> bytes:
        header, space, rest = message[:4], message[4:5], message[5:]
        if interrupted and header in (b"PING", b"TERM"):
            return b"FAIL message interrupted"
        if message == b"PING":
            return b"PONG"
        if header == b"PING" and space == b" ":
            return b"FAIL header takes no argument"
        if header == b"TERM" and space in (b"", b" "):
            return b"PWNO" if well_formed(rest) else b"PWIV"
        if header in (b"MESG", b"MORE", b"TERM"):
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
            self.archive.append(text)
            self.replies += b"MESG " + text
        elif message.startswith(b"MORE"):
            self.replies += b"FAIL unknown header"
        else:
            self.replies += self.request(message, False)
