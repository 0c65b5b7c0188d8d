"""A handler for the logging module that archives its records with msgd.

    handler = MsgdHandler("127.0.0.1", 6743)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)

A thread of its own sends the records, so that a slow or absent server never holds up the
program: logging a record only appends it to a queue. Only `flush` and `close` wait, and together
not longer than the time-out; `logging.shutdown`, which Python calls at exit, calls both.

Each record is archived once: the handler has a session of its own, with a random id, and after a
broken connection goes on behind what the archive has. (A server that is too old to have sessions
may then have some records twice. Of several servers, two may have what was on its way when one
broke; that is said.) When the queue is full, new records are dropped. Whatever is
not delivered is counted, and said on standard error.

A forked child begins with an empty queue and a session of its own: what the parent logged is the
parent's to deliver. Children of multiprocessing deliver at their end, as others do. A process
that ends by `os._exit` or a signal loses its queue.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 (or the thread would import it, and a fork find the lock taken)
import logging
import os
import sys
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgd.client.client import Client
from msgd.client.outbox import Outbox
from msgd.client.servers import PORT, checked_seconds, checked_tls, servers
from msgd.client.speech import Speech
from msgd.client.texts import as_bytes

if TYPE_CHECKING:
    from msgd.client.tls import Tls


class MsgdHandler(logging.Handler):
    """Archives log records; a record of several lines is one message.

    `host`, `port` and `tls` are those of `Client`. `timeout` is in seconds: the longest that
    `flush` and `close` wait. `capacity` is the number of records that may wait for the server,
    `capacity_bytes` the number of bytes in them. Raises ValueError and TypeError for what cannot
    be meant.
    """

    def __init__(
        self,
        host: str | Sequence[str] = "127.0.0.1",
        port: int = PORT,
        timeout: float = 5.0,
        capacity: int = 10_000,
        level: int = logging.NOTSET,
        *,
        tls: Tls | bool | None = None,
        capacity_bytes: int = 16 << 20,
    ) -> None:
        super().__init__(level)
        self._tls = checked_tls(tls, servers(host, port))
        self.host, self.port = host, port
        self.timeout = checked_seconds("timeout", timeout)
        self.capacity = _checked_number("capacity", capacity)
        self.capacity_bytes = _checked_number("capacity_bytes", capacity_bytes)
        if self._tls is not None:
            import msgd.client.secure  # noqa: F401 (or the thread would import it)
        self._begin()
        _handlers.add(self)

    def _begin(self) -> None:
        self._speech = Speech()
        self._outbox = Outbox(self._connect, self._speech, self.capacity, self.capacity_bytes)
        self._is_finalized = False  # multiprocessing will close it at the end of this process

    def _begin_again(self) -> None:
        """In a forked child: the thread is not there, and the connection is the parent's."""
        self._outbox.forget()
        self._begin()

    def _connect(self, session: str | None) -> Client:
        return Client(self.host, self.port, self.timeout, tls=self._tls, session=session)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record. Never waits for the server."""
        if self._speech.is_under_way or self._outbox.is_this_thread:
            return  # standard error leads back into logging: this would never end
        try:
            text = as_bytes(self.format(record))
        except Exception:  # the program's own objects are formatted here
            with self._speech:
                self.handleError(record)
            return
        self._finalize()
        self._outbox.put(text)

    def flush(self) -> None:
        """Wait until everything is archived, but not longer than the time-out."""
        self._outbox.flush(self.timeout)

    def close(self) -> None:
        """Flush, disconnect, and say what is not delivered. Another record opens it again."""
        self._outbox.close(self.timeout)
        self._speech.rest()
        super().close()

    def _finalize(self) -> None:
        """Have multiprocessing close this, whose children end without what `atexit` knows."""
        if self._is_finalized:
            return
        self._is_finalized = True
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            from multiprocessing.util import Finalize

            Finalize(self, _close, args=(weakref.ref(self),), exitpriority=0)


def _checked_number(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} is at least 1, not {value!r}")
    return value


def _close(handler: weakref.ref[MsgdHandler]) -> None:
    if (found := handler()) is not None:
        found.close()


def _begin_again_in_child() -> None:
    for handler in _handlers:
        handler._begin_again()


_handlers: weakref.WeakSet[MsgdHandler] = weakref.WeakSet()
os.register_at_fork(after_in_child=_begin_again_in_child)
