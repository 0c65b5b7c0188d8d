"""The records of a logging handler on their way: a bounded queue, and a thread that empties it.

A batch is a pipeline of a session, so that over any number of connections each record is
archived once. What gathers while one batch is on its way is the next batch.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Callable

from msgd.client.client import Client
from msgd.client.errors import MsgdError, NoSessions, SessionError
from msgd.client.inflight import Block, Pipeline
from msgd.client.speech import Speech
from msgd.wire.headers import encode_message

_BATCH, _BATCH_BYTES = 1000, 256 << 10
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds

Connect = Callable[[str | None], Client]


class Outbox:
    """Records without an answer, the oldest first, and the thread that sends them.

    `connect` makes a client with the session of this id, or with none.
    """

    def __init__(
        self, connect: Connect, speech: Speech, capacity: int, capacity_bytes: int
    ) -> None:
        self._speech = speech
        self._capacity, self._capacity_bytes = capacity, capacity_bytes
        self._changed = threading.Condition()  # guards what follows
        self._queue: deque[bytes] = deque()  # not taken by the thread yet
        self._bytes = 0  # in the queue, and of the batch that is on its way
        self._on_its_way = 0  # records of that batch without an answer
        self._dropped = 0
        self._in_vain = False  # the last flush has not emptied it
        self._ending = False  # the thread ends when the queue is empty
        self._generation = 0  # grows when `close` gives up on what is on its way
        self._trouble = ""  # why the last attempt to send has failed
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()  # ends a pause between two attempts
        self._sender = _Sender(connect, speech, self)

    @property
    def waiting(self) -> int:
        """How many records have no answer."""
        return len(self._queue) + self._on_its_way

    def put(self, text: bytes) -> None:
        """Add a record, or count it as dropped where there is no room. Never waits."""
        with self._changed:
            self._in_vain = False
            room = self.waiting < self._capacity
            if room and self._bytes + len(text) <= self._capacity_bytes and self._has_thread():
                self._queue.append(text)
                self._bytes += len(text)
                self._changed.notify_all()
            else:
                self._dropped += 1

    def flush(self, timeout: float) -> None:
        """Wait until everything is archived, up to `timeout` seconds."""
        self._hurry.set()
        with self._changed:
            self._await_answers(timeout)

    def close(self, timeout: float) -> None:
        """Flush, disconnect, and say what is not delivered. Another record opens it again."""
        self._hurry.set()
        with self._changed:
            if not self._in_vain:  # or logging.shutdown would wait twice for the same
                self._await_answers(timeout)
            self._ending = True
            left = self.waiting + self._dropped
            if self._on_its_way:
                self._generation += 1
            self._queue.clear()
            self._bytes = self._on_its_way = self._dropped = 0
            self._changed.notify_all()
        self._hurry.set()
        self._speech.lost(left, self._trouble or "the server is too slow")

    def forget(self) -> None:
        """In a forked child: let go of the parent's connection without a word on it."""
        self._sender.forget()

    def _await_answers(self, timeout: float) -> None:
        self._in_vain = not self._changed.wait_for(lambda: not self.waiting, timeout)

    def _has_thread(self) -> bool:
        """Start the thread where there is none; false when Python is past starting any."""
        self._ending = False
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="msgd-handler", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                return False
        return True

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller is the thread that sends."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        """Whatever goes wrong here, the records that come later must find a thread."""
        pause = _FIRST_PAUSE
        while True:
            try:
                if not self._turn():
                    return
                pause = _FIRST_PAUSE
                continue
            except SessionError as error:
                self._speech.say(f"{error}; records without an answer are sent in a new session")
            except MsgdError as error:
                self._note(str(error))
            except Exception as error:
                self._note(f"an error of its own: {type(error).__name__}: {error}")
            self._sender.disconnect()
            self._hurry.wait(pause)
            self._hurry.clear()
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _turn(self) -> bool:
        """Send what waits, once there is any; false when this thread is to end."""
        if not self._sender.busy:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._ending)
                if not self._queue:  # closed; a record from now on starts another thread
                    self._sender.disconnect()
                    self._thread = None
                    return False
                batch, generation = self._take(), self._generation
            self._sender.begin(batch, generation)
        self._sender.send()
        self._recovered()
        return True

    def _take(self) -> list[bytes]:
        batch, size = list[bytes](), 0
        while self._queue and len(batch) < _BATCH and size < _BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1])
        self._on_its_way = len(batch)
        return batch

    def given_up(self, generation: int) -> bool:
        """Whether `close` has counted the batch of this generation as lost."""
        return generation != self._generation

    def answered(self, records: int, size: int, generation: int) -> None:
        """The next records of the batch have their answer."""
        with self._changed:
            if not self.given_up(generation):
                self._on_its_way -= records
                self._bytes -= size
            self._changed.notify_all()

    def _note(self, trouble: str) -> None:
        """Say that the server is away: once, not at each attempt."""
        if not self._trouble:
            self._speech.say(f"{trouble}; log records wait for it, up to {self._capacity}")
        self._trouble = trouble

    def _recovered(self) -> None:
        with self._changed:
            dropped, self._dropped = self._dropped, 0
        reason, self._trouble = self._trouble, ""
        self._speech.lost(dropped, reason or "more records than the server could take")


class _Sender:
    """The batch that is on its way, and its session. Only the outbox's thread is in here."""

    def __init__(self, connect: Connect, speech: Speech, outbox: Outbox) -> None:
        self._connect = connect
        self._speech = speech
        self._outbox = outbox
        self._client: Client | None = None
        self._address = ""  # of the server that was connected last
        self._batch: list[bytes] = []  # without an answer
        self._generation = 0
        self._begin_session()

    def _begin_session(self) -> None:
        self._session: str | None = secrets.token_hex(12)
        self._pipeline = Pipeline()
        self._handed_over = False  # whether the batch is in the pipeline

    @property
    def busy(self) -> bool:
        """Whether a batch is on its way that nobody has given up on."""
        if self._batch and self._outbox.given_up(self._generation):
            self._batch = []
            self.disconnect()
            self._begin_session()  # nobody knows what the old one holds
        return bool(self._batch)

    def begin(self, batch: list[bytes], generation: int) -> None:
        self._batch, self._generation = batch, generation
        self._handed_over = False

    def _hand_over(self) -> None:
        """Give the batch to the pipeline, once, even where memory was short the first time."""
        if not self._handed_over:
            wire = b"".join(map(encode_message, self._batch))
            self._pipeline.add(Block(wire, len(self._batch)))
            self._handed_over = True

    def send(self) -> None:
        """Send the batch; raises `MsgdError` where that has to be tried again."""
        try:
            self._hand_over()
            if self._client is None or self._client.closed:
                self._client = self._connect(self._session)
                self._say_doubt(self._client.address)
            for answer in self._client.transmit(self._pipeline, _Nothing()):
                if answer.refusal is not None:
                    self._speech.lost(answer.messages, answer.refusal)
                self._answered(answer.messages)
            self._answered(len(self._batch))  # an error may have eaten an answer: all have theirs
        except NoSessions:
            self._session = None  # as well as it goes
        except SessionError:
            self.disconnect()
            self._begin_session()
            raise

    def _say_doubt(self, address: str) -> None:
        """A session ends the doubt about what was on its way, but on its own server only."""
        moved, self._address = self._address not in ("", address), address
        if moved and (doubtful := self._pipeline.unknown):
            some = "1 log record" if doubtful == 1 else f"{doubtful} log records"
            self._speech.say(f"{some} sent again, to {address}: perhaps in both archives")

    def _answered(self, records: int) -> None:
        size = sum(map(len, self._batch[:records]))
        del self._batch[:records]
        self._outbox.answered(records, size, self._generation)

    def disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def forget(self) -> None:
        if self._client is not None:
            self._client.abandon()
            self._client = None


class _Nothing:
    """A source at its end: the pipeline holds all that there is."""

    ended = True

    def fileno(self) -> int | None:
        return None

    def read(self) -> Block:
        return Block(b"", 0)
