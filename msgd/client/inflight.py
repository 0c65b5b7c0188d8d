"""Messages on their way to a msgd and their answers, in blocks, without I/O.

What must come back is known: the echo of a message is the message as the text rules show it. So
a block of messages is confirmed as soon as the bytes that come back equal those that must, and no
single message is looked at. Anything else is a refusal, or not msgd that answers.

In a session (msgd-protocol(7)) message k has the number ``start + k``, whatever happens: a number
whose message is refused is left out. After a break the server tells the number of its last
message, which confirms all up to it.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from msgd.client.errors import MsgdError, NotNow, SessionError
from msgd.client.lines import bytes_of, count, last_message, message_end, same
from msgd.client.replies import session_number
from msgd.wire.client import ProtocolError
from msgd.wire.headers import FAIL, MESG, SESS, TAKEN_OVER, TOO_LONG
from msgd.wire.text import escape

# How much may be on its way without an answer. It has to cover what the server takes in while
# it waits for its disk, and it bounds what may be sent twice after a break.
WINDOW_BYTES = 4 << 20

# The longest line that a FAIL or a SESS can be.
_LINE_BYTES = 1024


class Block(NamedTuple):
    """Whole requests as they go over the wire, and the number of messages in them."""

    wire: bytes
    messages: int


class Answer(NamedTuple):
    """What the server says to consecutive messages: all are archived, or all are refused."""

    first: int  # the number of the first of them, counted from 1
    messages: int
    echo: bytes  # MORE and MESG lines as archived; empty where refused
    refusal: str | None = None  # the reason
    already: bool = False  # archived before this pipeline had sent anything of them


class _Unanswered:
    """A block, from its first message without an answer on."""

    __slots__ = ("at", "echo", "echo_at", "messages", "wire")

    def __init__(self, wire: bytes, echo: bytes, messages: int) -> None:
        self.wire = wire
        self.echo = echo  # what must come back; the same object where nothing is escaped
        self.messages = messages  # without an answer: those in wire[at:] and echo[echo_at:]
        self.at = self.echo_at = 0


class Pipeline:
    """What has been handed over for sending, from the first message without an answer on.

    It outlives a connection: `begin` makes the next one go on with that message. `start` is the
    number in the session that message 0 would have.
    """

    def __init__(self, start: int = 0) -> None:
        self.confirmed = 0
        self.refused = 0
        self.already = 0  # messages that the session had before; they count as confirmed
        self.failure: Exception | None = None  # what the answers of the last `receive` ended with
        self._server = ""
        self._archived: dict[str, int] = {}  # by server; what `archived` says of this one
        self._start = start
        self._blocks: deque[_Unanswered] = deque()
        self.bytes_unanswered = 0  # in the blocks
        self._next = 0  # the index of the block that is being sent
        self._at = 0  # how much of it is sent
        self._sent = 0  # how many messages were sent whole before `rewind`
        self._got = 0  # bytes of the next echo that have come
        self._line = bytearray()  # the beginning of a FAIL or SESS line
        self._session = ""
        self._known = 0  # this many messages are in the archive, by the number that was told
        self._told: list[Answer] = []  # confirmed by their number alone
        self._ahead = b""  # is sent before the blocks go on
        self._void = 0  # FAILs that still come for messages behind one that was refused
        self._opening = False  # the answer to a SESS comes behind them
        self._window = WINDOW_BYTES

    @property
    def answered(self) -> int:
        return self.confirmed + self.refused

    @property
    def idle(self) -> bool:
        """Whether everything that was handed over has its answer."""
        return not (self._blocks or self._opening or self._ahead)

    @property
    def unknown(self) -> int:
        """How many messages were sent whole, over any connection, and have no answer.

        They are in the archive or not: only their answers, or the session, could tell.
        """
        blocks = list(self._blocks)
        sent = self.answered + sum(block.messages for block in blocks[: self._next])
        for block in blocks[self._next : self._next + 1]:
            sent += count(MESG, block.wire, block.at, block.wire.rfind(b"\n", 0, self._at) + 1)
        return max(sent, self._sent) - self.answered

    @property
    def next_number(self) -> int:
        """The number in the session of the first message without an answer."""
        return self._start + self.answered + 1

    @property
    def has_room(self) -> bool:
        return self.bytes_unanswered < WINDOW_BYTES

    def add(self, block: Block) -> None:
        if not block.messages:
            return
        wire, messages = block
        echo = escape(wire.replace(b"\r\n", b"\n") if b"\r" in wire else wire)
        self._blocks.append(_Unanswered(wire, wire if echo == wire else echo, messages))
        self.bytes_unanswered += len(wire)
        if self.answered < self._known:
            self._settle()

    def output(self) -> memoryview:
        """What is to be sent next; empty when all is sent, or enough is under way."""
        if self._ahead:
            return memoryview(self._ahead)
        if self._next == len(self._blocks) or self._flight >= self._window:
            return memoryview(b"")
        return memoryview(self._blocks[self._next].wire)[self._at :]

    @property
    def _flight(self) -> int:
        """Bytes that are sent and not answered, where they are limited."""
        if self._window >= WINDOW_BYTES or not self._next:
            return 0
        return sum(len(self._blocks[n].wire) for n in range(self._next)) - self._blocks[0].at

    def sent(self, size: int) -> None:
        """So many bytes of `output` are sent."""
        if not size:
            return
        if self._ahead:
            self._ahead = self._ahead[size:]
            return
        self._at += size
        if self._at == len(self._blocks[self._next].wire):
            self._next, self._at = self._next + 1, 0
            self._drop_answered()

    @property
    def progress(self) -> object:
        """Something else whenever the server has brought the work forward.

        An answer does, and 64 KiB of the first message or of its echo; not a message that is
        only sent, nor a byte or two.
        """
        sent = -1 if self._next else self._at >> 16
        return self.answered, self._got >> 16, sent, self._void, self._opening

    @property
    def under_way(self) -> bool:
        """Whether something of this connection waits for an answer."""
        return bool(self._next or self._opening or (self._blocks and self._at > self._blocks[0].at))

    @property
    def archived(self) -> int:
        """The number of the last message that is known to be in the archive of this server."""
        return self._archived.get(self._server, self._start)

    def begin(self, session: str = "", last: int = 0, following: int = 0, server: str = "") -> None:
        """Go on over this connection to this server, which has opened this session, or none.

        `last` is the number of the session's last message in the archive, `following` the one
        that the server gives to the next. A session belongs to its server: on another one what
        was confirmed elsewhere is left out, and the messages keep their numbers. Raises
        `SessionError`.
        """
        if not self._unused:
            self.rewind()
        self._session, self._server = session, server
        if not session:
            return
        if server in self._archived:
            self._check_told(last)
        else:
            self._archived[server] = self._start
            self.already = max(self.already, last - self._start)
        self._known = last - self._start
        self._settle()
        if self._start + max(self.answered, self._known) + 1 != following:
            self._ahead, self._opening = self._open_request(), True

    @property
    def _unused(self) -> bool:
        """Whether nothing of this has been sent over any connection."""
        return not (self._next or self._at or self._sent or self.answered or self._archived)

    def rewind(self) -> None:
        """Begin again with the first message without an answer, on a new connection."""
        self._sent = self.answered + self.unknown
        self._blocks = deque(block for block in self._blocks if block.messages)
        for block in self._blocks:
            same = block.echo is block.wire
            block.wire = block.wire[block.at :]
            block.echo = block.wire if same else block.echo[block.echo_at :]
            block.at = block.echo_at = 0
        self.bytes_unanswered = sum(len(block.wire) for block in self._blocks)
        self._next, self._at, self._got = 0, 0, 0
        self._line.clear()
        self._ahead, self._void, self._opening, self.failure = b"", 0, False, None
        self._window = WINDOW_BYTES

    def told(self) -> list[Answer]:
        """The messages that the session's number has confirmed since this was last asked."""
        told, self._told = self._told, []
        return told

    def check_end(self) -> None:
        """Everything is handed over: the session may not have more than that."""
        if self.already > self.answered:
            raise SessionError(
                f"the session {self._session} holds {self.already} messages, and there are only"
                f" {self.answered} here: it is not the same input"
            )

    def receive(self, data: bytes) -> list[Answer]:
        """Take bytes from the server, cut anywhere.

        Raises `ProtocolError`, `NotNow` and `SessionError`; where answers came before it, they
        are returned, and `failure` is set.
        """
        answers: list[Answer] = []
        start = 0
        try:
            while start < len(data):
                start = self._take(data, start, answers)
        except (ProtocolError, MsgdError) as error:
            if not answers:
                raise
            self.failure = error
        return answers

    def _take(self, data: bytes, start: int, answers: list[Answer]) -> int:
        """Take the next answers from `start` on; where what follows them begins."""
        if self._line or (not self._got and data[start] in b"FS"):
            return self._take_line(data, start, answers)
        block = self._asked()
        if self._void or self._opening:
            raise ProtocolError  # nothing behind a refused message may be archived
        at = block.echo_at + self._got
        end = at + same(block.echo, at, data, start)
        done, messages = len(block.echo), block.messages
        if end < done:
            feed = block.echo.find(b"\n", at, end)
            done = block.echo_at if feed < 0 else last_message(block.echo, block.echo_at, end)
            messages = count(MESG, block.echo, block.echo_at, done)
        self._got = end - done
        if messages:
            answers.append(self._confirm(block, messages, done))
        return start + end - at

    def _asked(self) -> _Unanswered:
        """The block with the first message that has no answer, and is sent at least in part."""
        block = self._blocks[0] if self._blocks else None
        if block is None or not block.messages or not (self._next or self._at > block.at):
            raise ProtocolError
        return block

    def _confirm(self, block: _Unanswered, messages: int, done: int) -> Answer:
        if messages > self._whole(block):
            raise ProtocolError  # the echo of what has not been sent
        answer = Answer(self.answered + 1, messages, block.echo[block.echo_at : done])
        self._window = min(2 * (self._window + done - block.echo_at), WINDOW_BYTES)
        self._advance(block, messages, done)
        self.confirmed += messages
        self._archived[self._server] = self._start + self.answered
        return answer

    def _whole(self, block: _Unanswered) -> int:
        """How many messages of the first block are sent whole."""
        if self._next:
            return block.messages
        return count(MESG, block.wire, block.at, block.wire.rfind(b"\n", 0, self._at) + 1)

    def _take_line(self, data: bytes, start: int, answers: list[Answer]) -> int:
        """Take a FAIL or a SESS, or the beginning of one."""
        end = data.find(b"\n", start) + 1 or len(data)
        self._line += data[start:end]
        if len(self._line) > _LINE_BYTES or not (
            (FAIL + b" ").startswith(self._line[:5]) or (SESS + b" ").startswith(self._line[:5])
        ):
            raise ProtocolError
        if self._line.endswith(b"\n"):
            line = bytes(self._line)
            self._line.clear()
            if line.startswith(SESS):
                self._reopened(line[5:-1])
            else:
                end += self._failed(line, data, end, answers)
        return end

    def _failed(self, line: bytes, data: bytes, start: int, answers: list[Answer]) -> int:
        """Take a FAIL; the bytes of those for the same reason behind it that are taken, too."""
        reason = escape(line[5:-1]).decode()  # it goes to terminals: whoever has sent it
        if self._session:
            self._failed_in_session(reason, answers)
            return 0
        block, messages, at = self._asked(), 1, start
        most = min(self._whole(block) + 1, block.messages)
        while messages < most and data.startswith(line, at):
            messages, at = messages + 1, at + len(line)
        answers.append(self._refuse(block, messages, reason))
        return at - start

    def _failed_in_session(self, reason: str, answers: list[Answer]) -> None:
        if reason == TAKEN_OVER:
            raise SessionError(f"session {self._session} was taken over by another client")
        if self._void:
            self._void -= 1
        elif self._opening:
            raise SessionError(f"session {self._session} cannot be opened again: {reason}")
        elif reason != TOO_LONG:
            self._asked()
            raise NotNow(reason)
        else:
            answers.append(self._refuse(self._asked(), 1, reason))
            self._open_again()

    def _refuse(self, block: _Unanswered, messages: int, reason: str) -> Answer:
        answer = Answer(self.answered + 1, messages, b"", reason)
        self._advance(
            block, messages, block.echo_at + bytes_of(block.echo, block.echo_at, messages)
        )
        self.refused += messages
        return answer

    def _open_again(self) -> None:
        """Leave out the number of a refused message; those sent behind it are sent again.

        The message that is being sent goes out whole before. From here on little is sent ahead,
        until all is well again, or each refusal would cost a whole window.
        """
        blocks = list(self._blocks)
        self._void = sum(block.messages for block in blocks[: self._next])
        rest = b""
        if self._next < len(blocks) and self._at:
            block = blocks[self._next]
            end = max(block.at, message_end(block.wire, self._at))
            rest = block.wire[self._at : end]
            self._void += count(MESG, block.wire, block.at, end)
        if blocks and not blocks[0].messages:
            self.bytes_unanswered -= len(self._blocks.popleft().wire)
        self._next, self._at = 0, self._blocks[0].at if self._blocks else 0
        self._window = 1
        self._ahead, self._opening = rest + self._open_request(), True

    def _open_request(self) -> bytes:
        number = self._start + max(self.answered, self._known) + 1
        return b"%b %b %d\n" % (SESS, self._session.encode(), number)

    def _reopened(self, number: bytes) -> None:
        if not self._opening or self._void or self._ahead:
            raise ProtocolError
        self._opening = False
        self._check_told(session_number(number))

    def _check_told(self, last: int) -> None:
        """What the server tells is between what was confirmed and what was sent."""
        if last < self.archived:
            raise SessionError(
                f"the server has lost the session {self._session}: it confirmed number"
                f" {self.archived}, and its last is {last} now"
            )
        sent = self._start + max(self.answered + self.unknown, self.already)
        # A number between is one that was left out, unless another server has had its message.
        left_out = self.archived < last < self.next_number and len(self._archived) == 1
        if last > sent or left_out:
            raise SessionError(
                f"somebody else writes the session {self._session}: its last number is {last},"
                f" and {self.archived if left_out else sent} were sent"
            )

    def _settle(self) -> None:
        """Confirm what has been handed over and is in the archive by its number."""
        for block in list(self._blocks):
            messages = min(block.messages, self._known - self.answered)
            if messages > 0:
                first = self.answered + 1
                size = bytes_of(block.echo, block.echo_at, messages)
                echo = block.echo[block.echo_at : block.echo_at + size]
                already = first <= self.already
                self._told.append(Answer(first, messages, echo, already=already))
                self._advance(block, messages, block.echo_at + size)
                self.confirmed += messages
        while self._blocks and not self._blocks[0].messages:
            self.bytes_unanswered -= len(self._blocks.popleft().wire)
        self._at = self._blocks[0].at if self._blocks else 0
        self._archived[self._server] = max(self.archived, self._start + self._known)

    def _advance(self, block: _Unanswered, messages: int, echo_at: int) -> None:
        """The block's next messages, whose echo ends there, are answered."""
        if block.echo is block.wire:
            block.at = echo_at
        else:
            block.at += bytes_of(block.wire, block.at, messages)
        block.echo_at = echo_at
        block.messages -= messages
        self._drop_answered()

    def _drop_answered(self) -> None:
        """Let go of the first block once it is answered, and sent: a refusal may come before."""
        if self._next > 0 and not self._blocks[0].messages:
            self.bytes_unanswered -= len(self._blocks.popleft().wire)
            self._next -= 1
