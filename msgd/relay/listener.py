"""Messages that come to a subject."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from msgd.relay.answers import Reply, make_reply

First = Callable[[asyncio.Future[Any]], Awaitable[None]]


class Listener:
    """A subscription, and what has come to it."""

    def __init__(self, first: First) -> None:
        """``first`` waits, and raises when the connection has ended before."""
        self._first = first
        self._queue: asyncio.Queue[Reply] = asyncio.Queue()
        self.subscription: Any = None

    async def put(self, message: Any) -> None:
        self._queue.put_nowait(make_reply(message))

    async def next(self, timeout: float) -> Reply | None:
        """The next one; None when none has come in time. Raises Doubt, Denied."""
        if self._queue.empty():
            waiting = asyncio.ensure_future(asyncio.wait_for(self._queue.get(), timeout))
            await self._first(waiting)
            try:
                return waiting.result()
            except TimeoutError:
                return None
        return self._queue.get_nowait()

    def ready(self) -> Reply | None:
        """The next one, if it is there already."""
        return None if self._queue.empty() else self._queue.get_nowait()

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self.subscription.unsubscribe()
