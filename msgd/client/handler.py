"""A handler for the logging module that archives its records with msgd.

    handler = MsgdHandler("127.0.0.1", 6743)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)

A thread of its own sends the records, so that a slow or absent server never holds up the
program: logging a record only appends it to a queue. What gathers while one batch is on its way
is the next batch. Only `flush` and `close` wait, and together not longer than the time-out;
`logging.shutdown`, which Python calls at exit, calls both.

A record stays in the queue until its echo has come. After a broken connection the records
without an echo are sent again, and may then be twice in the archive. When the queue is full, new
records are dropped. Whatever is not delivered is counted, and said on standard error.

A forked child begins with an empty queue and its own connection: what the parent logged is the
parent's to deliver. A process that ends by `os._exit` or a signal loses its queue.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections import Counter, deque
from itertools import islice

from msgd.client.client import PORT, Client, MsgdError

_BATCH = 1000  # records
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds


class MsgdHandler(logging.Handler):
    """Archives log records; a record of several lines is one message.

    `timeout` is in seconds: the longest that `flush` and `close` wait. `capacity` is the number
    of records that may wait for the server.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = PORT,
        timeout: float = 5.0,
        capacity: int = 10_000,
        level: int = logging.NOTSET,
    ) -> None:
        super().__init__(level)
        self.host, self.port, self.timeout, self.capacity = host, port, timeout, capacity
        self._begin()
        itself = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _begin_again(itself))

    def _begin(self) -> None:
        self._changed = threading.Condition()  # guards what follows
        self._queue: deque[str] = deque()  # without an echo, the oldest first
        self._sending = self._queue  # of which the batch is that is on its way
        self._dropped = 0
        self._in_vain = False  # the last flush has not emptied the queue
        self._ending = False  # the thread ends when the queue is empty
        self._trouble = ""  # why the last attempt to send has failed
        self._thread: threading.Thread | None = None
        self._client: Client | None = None
        self._hurry = threading.Event()  # ends a pause between two attempts

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record. Never waits for the server."""
        try:
            text = self.format(record)
        except Exception:  # the program's own objects are formatted here
            self.handleError(record)
            return
        with self._changed:
            self._in_vain = False
            if len(self._queue) < self.capacity and self._has_thread():
                self._queue.append(text)
                self._changed.notify_all()
            else:
                self._dropped += 1

    def flush(self) -> None:
        """Wait until everything is archived, but not longer than the time-out."""
        self._hurry.set()
        with self._changed:
            self._await_answers()

    def close(self) -> None:
        """Flush, disconnect, and say what is not delivered. Another record opens it again."""
        self._hurry.set()
        with self._changed:
            if not self._in_vain:  # or logging.shutdown would wait twice for the same
                self._await_answers()
            self._ending = True
            left = len(self._queue) + self._dropped
            self._queue, self._dropped = deque(), 0
            self._changed.notify_all()
        self._hurry.set()
        self._count_out(left, self._trouble or "the server is too slow")
        super().close()

    def _await_answers(self) -> None:
        self._in_vain = not self._changed.wait_for(lambda: not self._queue, self.timeout)

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

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while batch := self._next_batch():
            try:
                self._deliver(batch)
                pause = _FIRST_PAUSE
            except MsgdError as error:
                self._disconnect()
                self._note(error)
                self._hurry.wait(pause)
                self._hurry.clear()
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _next_batch(self) -> list[str]:
        """The oldest records, once there are any; nothing when this thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ending)
            self._sending = self._queue
            if not self._queue:  # closed; a record from now on starts another thread
                self._disconnect()
                self._thread = None
            return list(islice(self._queue, _BATCH))

    def _deliver(self, batch: list[str]) -> None:
        if self._client is None:
            self._client = Client(self.host, self.port, self.timeout)
        refusals = Counter[str]()
        try:
            for receipt in self._client.send_many(batch):
                if receipt.refusal is not None:
                    refusals[receipt.refusal] += 1
                self._drop_oldest()
        finally:
            for reason, number in refusals.items():
                self._count_out(number, reason)
        self._recover()

    def _drop_oldest(self) -> None:
        """The oldest record has its answer."""
        with self._changed:
            if self._sending is self._queue:  # else close has given up on all of them
                self._queue.popleft()
            self._changed.notify_all()

    def _note(self, error: MsgdError) -> None:
        """Say that the server is away: once, not at each attempt."""
        if not self._trouble:
            self._say(f"{error}; log records wait for it, {self.capacity} at most")
        self._trouble = str(error)

    def _recover(self) -> None:
        with self._changed:
            dropped, self._dropped = self._dropped, 0
        reason, self._trouble = self._trouble, ""
        self._count_out(dropped, reason or "more records than the server could take")

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _count_out(self, number: int, reason: str) -> None:
        if number:
            self._say(f"{number} log record{'s' * (number > 1)} not delivered: {reason}")

    def _say(self, message: str) -> None:
        if sys.stderr is not None:
            print(f"msgd.handler: {message}", file=sys.stderr, flush=True)


def _begin_again(itself: weakref.ref[MsgdHandler]) -> None:
    """In a forked child: the thread is not there, and the connection is the parent's."""
    handler = itself()
    if handler is not None:
        handler._disconnect()
        handler._begin()
