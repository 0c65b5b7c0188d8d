"""What both programs are made of: signals, the service manager, figures, the way to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from msgd import __version__
from msgd.process import systemd
from msgd.process.log import catch_up
from msgd.process.metrics import Registry

log = logging.getLogger("msgd")

_METRICS_SECONDS = 10.0
_STOP_SECONDS = 5.0  # for what is under way
_SHORT = 0.2
_KEPT_BYTES = 4 << 20

T = TypeVar("T")


class Program:
    """Runs one piece of work until it ends or a signal asks it to."""

    def __init__(self, metrics_file: str | None) -> None:
        self.registry = Registry()
        labels = {"version": __version__}
        self.registry.gauge("msgd_relay_build_info", "Always 1.", labels=labels).value = 1
        self.stopping = asyncio.Event()
        self.status: Callable[[], str] = str  # what STATUS says
        self.before_metrics: Callable[[], None] = lambda: None  # sets figures that are looked up
        self._metrics_file = metrics_file
        self._said = ""

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Returns when the work has ended, or what it was doing when a signal came. Raises what
        the work raises.
        """
        self._take_signals()
        keep_memory()
        task = asyncio.create_task(work)
        pulse = asyncio.create_task(self._pulse())
        stop = asyncio.create_task(self.stopping.wait())
        systemd.notify("READY=1")
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            systemd.notify("STOPPING=1")
            if not task.done():
                await asyncio.wait({task}, timeout=_STOP_SECONDS)
        finally:
            await end(task, pulse, stop)
            self._write_metrics()
        if task.done() and not task.cancelled():
            task.result()

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop, number)
        loop.add_signal_handler(
            signal.SIGHUP, log.warning, "SIGHUP: the configuration is read only at the start"
        )

    def _asked_to_stop(self, number: int) -> None:
        if self.stopping.is_set():
            os._exit(1)  # asked twice: at once; there is no state that could be left half written
        log.info("stopping: %s", signal.Signals(number).name)
        self.stopping.set()

    async def _pulse(self) -> None:
        watchdog = systemd.watchdog_seconds()
        seconds = min(1.0, (watchdog or 3.0) / 3)
        due = 0.0
        while True:
            text = self.status()
            if text != self._said:
                systemd.notify(f"STATUS={text}")
                self._said = text
            if watchdog is not None:
                systemd.notify("WATCHDOG=1")
            catch_up()
            if time.monotonic() >= due:
                due = time.monotonic() + _METRICS_SECONDS
                self._write_metrics()
            await asyncio.sleep(seconds)

    def _write_metrics(self) -> None:
        if self._metrics_file is not None:
            self.before_metrics()
            self.registry.write(self._metrics_file)

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What the work returns; None when asked to stop before it has ended."""
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            await end(task, stop)

    async def sleep(self, seconds: float) -> None:
        """Wait, unless asked to stop; a short wait is not cut short by that."""
        if seconds <= _SHORT:
            await asyncio.sleep(seconds)
        elif not self.stopping.is_set():
            try:
                await asyncio.wait_for(self.stopping.wait(), seconds)
            except TimeoutError:
                return


def keep_memory() -> None:
    """Let the C library keep the memory of blocks for the next ones.

    Else it gives most of it back to the kernel after each block and asks for it again, page by
    page, which costs more than all that is done with the block. glibc gives back what is more than
    twice the largest piece that was ever freed: mallopt(3), M_MMAP_THRESHOLD.
    """
    bytes(_KEPT_BYTES)


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel what is not done, and wait for it."""
    for task in tasks:
        if not task.done():
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Run them beside each other until all have ended, or one has failed, which ends the others."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        await end(*tasks)


class Rate:
    """How many a second, over the last few seconds."""

    def __init__(self) -> None:
        self._count, self._since, self._last = 0, time.monotonic(), 0.0

    def add(self) -> None:
        self._count += 1

    def __call__(self) -> float:
        now = time.monotonic()
        if now - self._since >= 1:
            self._last = self._count / (now - self._since)
            self._count, self._since = 0, now
        return self._last
