"""Messages on their way to a msgd and their answers, in blocks, without I/O.

The plain case is fast because it looks at no single message: the echo of plain text is what
was sent, so a block of messages is confirmed as soon as the bytes that come back equal the bytes
that went out. Only where they differ (escaped text, a refusal) does it look at lines.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from msgd.wire.client import ProtocolError
from msgd.wire.headers import FAIL, MESG, MORE
from msgd.wire.text import escape

# How much may be on its way without an answer. It has to cover what the server takes in while
# it waits for its disk, and it bounds what may be sent twice after a break.
WINDOW_BYTES = 4 << 20

# No answer grows more than this by its escapes: one byte becomes the four of \xff.
_GROWTH = 4


class Block(NamedTuple):
    """Whole requests as they go over the wire, and the number of messages in them."""

    wire: bytes
    messages: int


class Answer(NamedTuple):
    """What the server says to consecutive messages: all are archived, or all are refused."""

    first: int  # the number of the first of them, counted from 1
    messages: int
    echo: bytes  # MORE and MESG lines as they came; empty where refused
    refusal: str | None = None  # the reason


@dataclass(slots=True)
class _Unanswered:
    wire: bytes
    messages: int  # without an answer: those in wire[at:]
    at: int = 0


class Pipeline:
    """What has been handed over for sending, from the first message without an answer on.

    It outlives a connection: `rewind` makes the next one begin with that message.
    """

    def __init__(self) -> None:
        self.confirmed = 0
        self.refused = 0
        self._blocks: deque[_Unanswered] = deque()
        self.bytes_unanswered = 0  # in the blocks
        self._next = 0  # the index of the block that is being sent
        self._at = 0  # how much of it is sent
        self._sent = 0  # how many messages were sent whole before `rewind`
        self._rest = b""  # the beginning of an answer whose end has not come

    @property
    def answered(self) -> int:
        return self.confirmed + self.refused

    @property
    def idle(self) -> bool:
        """Whether everything that was handed over has its answer."""
        return not self._blocks

    @property
    def unknown(self) -> int:
        """How many messages were sent whole, over any connection, and have no answer.

        They are in the archive or not: only their answers could tell.
        """
        blocks = list(self._blocks)
        sent = self.answered + sum(block.messages for block in blocks[: self._next])
        for block in blocks[self._next : self._next + 1]:
            sent += _count(MESG, block.wire, block.at, block.wire.rfind(b"\n", 0, self._at) + 1)
        return max(sent, self._sent) - self.answered

    @property
    def has_room(self) -> bool:
        return self.bytes_unanswered < WINDOW_BYTES

    def add(self, block: Block) -> None:
        if block.messages:
            self._blocks.append(_Unanswered(*block))
            self.bytes_unanswered += len(block.wire)

    def output(self) -> memoryview:
        """What is to be sent next; empty when all is sent."""
        if self._next == len(self._blocks):
            return memoryview(b"")
        return memoryview(self._blocks[self._next].wire)[self._at :]

    def sent(self, size: int) -> None:
        """So many bytes of `output` are sent."""
        self._at += size
        if self._at == len(self._blocks[self._next].wire):
            self._next, self._at = self._next + 1, 0
            self._drop_answered()

    def rewind(self) -> None:
        """Begin again with the first message without an answer, on a new connection."""
        self._sent = self.answered + self.unknown
        self._blocks = deque(block for block in self._blocks if block.messages)
        for block in self._blocks:
            block.wire, block.at = block.wire[block.at :], 0
        self.bytes_unanswered = sum(len(block.wire) for block in self._blocks)
        self._next, self._at, self._rest = 0, 0, b""

    def receive(self, data: bytes) -> list[Answer]:
        """Take bytes from the server, cut anywhere; raises `ProtocolError`."""
        data, start = self._rest + data, 0
        answers = []
        while self._blocks and (end := data.rfind(b"\n", start) + 1) > start:
            answer, size = self._answer(data, start, end)
            if not answer.messages:
                break
            answers.append(answer)
            start += size
        self._rest = data[start:]
        self._check_rest()
        return answers

    def _check_rest(self) -> None:
        head = self._blocks[0].wire if self._blocks else b""
        if len(self._rest) > _GROWTH * len(head) + (1024 if head else 0):
            raise ProtocolError
        if not any(header.startswith(self._rest[:4]) for header in (MESG, MORE, FAIL)):
            raise ProtocolError

    def _answer(self, data: bytes, start: int, end: int) -> tuple[Answer, int]:
        """The next answer in these whole lines, and the size of it."""
        block = self._blocks[0]
        if not block.messages or (self._next == 0 and block.at >= self._at):
            raise ProtocolError  # nothing of what it would be an answer to has been sent
        if data.startswith(FAIL, start):
            return self._refusal(data, start, end)
        same = min(end, start + len(block.wire) - block.at)
        if block.wire.startswith(data[start:same], block.at):
            end = _last_message(data, start, same)
            messages = _count(MESG, data, start, end)
            self._advance(messages, end - start)
        else:
            end, messages = self._echoes(data, start, end)
            self._advance(messages, _size(block.wire, block.at, messages))
        answer = Answer(self.answered + 1, messages, data[start:end])
        self.confirmed += messages
        return answer, end - start

    def _echoes(self, data: bytes, start: int, end: int) -> tuple[int, int]:
        """The end and the number of the echoes in these lines that belong to the first block."""
        fail = data.find(b"\n" + FAIL, start, end)
        end = fail + 1 if fail >= 0 else end
        messages = _count(MESG + b" ", data, start, end)
        if messages + _count(MORE + b" ", data, start, end) < data.count(b"\n", start, end):
            raise ProtocolError
        messages = min(messages, self._blocks[0].messages)
        return start + _size(data, start, messages), messages

    def _refusal(self, data: bytes, start: int, end: int) -> tuple[Answer, int]:
        """As many refusals for the same reason as follow each other in the first block."""
        line = data[start : data.index(b"\n", start) + 1]
        block, messages, at = self._blocks[0], 1, start + len(line)
        while messages < block.messages and data.startswith(line, at, end):
            messages, at = messages + 1, at + len(line)
        self._advance(messages, _size(block.wire, block.at, messages))
        reason = escape(line[5:-1]).decode()  # it goes to terminals: whoever has sent it
        answer = Answer(self.answered + 1, messages, b"", reason)
        self.refused += messages
        return answer, at - start

    def _advance(self, messages: int, size: int) -> None:
        """The first block's next messages, which take so many bytes on the wire, are answered."""
        block = self._blocks[0]
        block.messages -= messages
        block.at += size
        self._drop_answered()

    def _drop_answered(self) -> None:
        """Let go of the first block once it is answered, and sent: a refusal may come before."""
        if self._next > 0 and not self._blocks[0].messages:
            self.bytes_unanswered -= len(self._blocks.popleft().wire)
            self._next -= 1


def _count(header: bytes, data: bytes, start: int, end: int) -> int:
    """How many of these lines begin with the header; no text holds a line feed."""
    return data.startswith(header, start, end) + data.count(b"\n" + header, start, end)


def _last_message(data: bytes, start: int, end: int) -> int:
    """Where the last whole message in these lines ends."""
    last = max(data.rfind(b"\n" + MESG, start, end) + 1, start)
    return data.index(b"\n", last) + 1 if data.startswith(MESG, last) else start


def _size(data: bytes, start: int, messages: int) -> int:
    """How many bytes the first messages take, of the lines that begin here."""
    if not messages:
        return 0
    lines = data[start:]
    last = (b"\n" + lines).split(b"\n" + MESG, messages)[-1]
    return len(lines) - len(last) + last.index(b"\n") + 1
