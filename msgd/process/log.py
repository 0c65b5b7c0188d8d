"""The daemon's own log: where its lines go. One line an event, without a time stamp.

Whoever reads the lines stamps them: the journal, syslog, a supervisor. What a line says may come
from outside (a path, an address), so whatever could break it or steer a terminal is escaped.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TextIO

from msgd.process import systemd
from msgd.wire.text import escape

_log = logging.getLogger("msgd")

SYSLOG_SOCKET = "/dev/log"

# sd-daemon(3): the journal takes <N> at the beginning of a line as its priority.
_PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}


class _Lines(logging.Formatter):
    """One line for the message; where a traceback is wanted, one for each of its lines too."""

    def __init__(self, prefix: str, *, priorities: bool = False) -> None:
        super().__init__()
        self._prefix = prefix
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        lines = [record.getMessage()]
        if record.exc_info:
            lines += self.formatException(record.exc_info).splitlines()
        prefix = f"<{_PRIORITIES[record.levelname]}>" if self._priorities else self._prefix
        return "\n".join(prefix + _harmless(line) for line in lines)


def _harmless(line: str) -> str:
    return escape(line.encode("utf-8", "backslashreplace")).decode().replace("\n", "\\n")


def to_stderr(stream: TextIO | None = None, *, verbose: bool = False) -> None:
    """Log to standard error: for the journal with priorities, for everybody else with a name."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Lines("msgd: ", priorities=systemd.under_journal(stream.fileno())))
    _use(handler, verbose)


def to_syslog(socket_path: str = SYSLOG_SOCKET, *, verbose: bool = False) -> None:
    """Log to syslog, as the facility daemon. Like syslog(3) it is silent while nobody reads."""
    from logging.handlers import SysLogHandler

    handler = SysLogHandler(socket_path, SysLogHandler.LOG_DAEMON)
    handler.ident = f"msgd[{os.getpid()}]: "
    handler.append_nul = False
    handler.setFormatter(_Lines(""))
    _use(handler, verbose)


def _use(handler: logging.Handler, verbose: bool) -> None:
    # A log that cannot be written is no reason to print tracebacks into it.
    logging.raiseExceptions = False
    logger = logging.getLogger("msgd")
    logger.propagate = False
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
    logger.addHandler(handler)


class Seldom:
    """Says one kind of thing at most ``burst`` times a minute, and how often it was left out."""

    def __init__(self, level: int, message: str, burst: int = 10) -> None:
        """``message`` is a format as of logging."""
        self._level, self._message, self._burst = level, message, burst
        self._since = time.monotonic()
        self._count = 0

    def __call__(self, *arguments: object) -> None:
        now = time.monotonic()
        if now - self._since >= 60:
            left_out = self._count - self._burst
            if left_out > 0:
                _log.log(self._level, "%d more like this: " + self._message, left_out, *arguments)
            self._since, self._count = now, 0
        self._count += 1
        if self._count <= self._burst:
            _log.log(self._level, self._message, *arguments)
