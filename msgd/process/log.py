"""The daemon's own log: where its lines go. One line an event, without a time stamp.

Whoever reads the lines stamps them: the journal, syslog, a supervisor. What a line says may come
from outside (a path, an address), so whatever could break it or steer a terminal is escaped.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import stat
import time
from logging import WARNING

from msgd.process import systemd
from msgd.wire.text import escape

_log = logging.getLogger("msgd")

SYSLOG_SOCKET = "/dev/log"

_DAEMON = 3  # the facility of syslog(3)
# sd-daemon(3): the journal takes <N> at the beginning of a line as its priority.
_SEVERITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}


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
        prefix = f"<{_SEVERITIES[record.levelname]}>" if self._priorities else self._prefix
        return "\n".join(prefix + _harmless(line) for line in lines)


def _harmless(line: str) -> str:
    return escape(line.encode("utf-8", "backslashreplace")).decode().replace("\n", "\\n")


class _Channel(logging.Handler):
    """Gives lines to somebody who may not read them, and never waits for that.

    A line for which there is no room is dropped and counted; the count goes out before the next
    one. What went out in part is kept, so that no line is ever cut in two.
    """

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._rest = b""
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not (self.catch_up() and self._put(record)):
                self._dropped += 1
        except Exception:
            self.handleError(record)

    def catch_up(self) -> bool:
        """Say what is left to be said; whether there is room again."""
        if not self._push():
            return False
        if self._dropped:
            words = "lines of this log that were dropped, as nobody read it: %d"
            if not self._put(_log.makeRecord("", WARNING, "", 0, words, (self._dropped,), None)):
                return False
            self._dropped = 0
        return True

    def _put(self, record: logging.LogRecord) -> bool:
        """Whether the line is given away: all of it, or the beginning."""
        line = self.line(record)
        self._rest = line
        self._push()
        if self._rest is line:
            self._rest = b""
            return False
        return True

    def _push(self) -> bool:
        while self._rest:
            try:
                sent = self.send(self._rest)
            except OSError:
                return False
            self._rest = self._rest[sent:]
        return True

    def line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode("utf-8", "backslashreplace") + b"\n"

    def send(self, data: bytes) -> int:
        """How many of these bytes are sent; raises OSError, at once, where there is no room."""
        raise NotImplementedError


class _StandardError(_Channel):
    """Standard error, which others share: it must neither block us, nor they not block for us.

    O_NONBLOCK belongs to the open file, not to the descriptor. So a pipe or a terminal is opened
    once more, by which it is another open file; a socket has a flag for each send. Where neither
    is possible it is asked for room first: a pipe that has some takes PIPE_BUF bytes at once.
    """

    def __init__(self, formatter: logging.Formatter, fd: int) -> None:
        super().__init__(formatter)
        self._fd = self._given = fd
        self._socket: socket.socket | None = None
        self._poll: select.poll | None = None
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif not stat.S_ISREG(mode):  # a file never blocks for want of a reader
            try:
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._fd = os.open(f"/proc/self/fd/{fd}", flags)
            except OSError:  # another user's, or no /proc
                self._poll = select.poll()
                self._poll.register(fd, select.POLLOUT)

    def close(self) -> None:
        super().close()
        if self._socket is not None:
            self._socket.close()
        elif self._fd != self._given:
            os.close(self._fd)
            self._fd = self._given

    def send(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        if self._poll is not None:
            if not self._poll.poll(0):
                raise BlockingIOError
            data = data[: select.PIPE_BUF]
        return os.write(self._fd, data)


class _Syslog(_Channel):
    """The socket of syslog(3). It may come, go and come again, and be of either type."""

    def __init__(self, formatter: logging.Formatter, path: str) -> None:
        super().__init__(formatter)
        self._path = path
        self._socket: socket.socket | None = None

    def line(self, record: logging.LogRecord) -> bytes:
        priority = _DAEMON << 3 | _SEVERITIES[record.levelname]
        return b"<%d>msgd[%d]: %b" % (priority, os.getpid(), super().line(record))

    def close(self) -> None:
        super().close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def send(self, data: bytes) -> int:
        for _ in range(2):
            if self._socket is None:
                self._socket = self._connect()
            try:
                if self._socket.type == socket.SOCK_DGRAM:
                    self._socket.send(data[:-1])
                    return len(data)
                return self._socket.send(data)
            except BlockingIOError:
                raise
            except OSError:  # it was started anew
                self._socket.close()
                self._socket = None
        raise ConnectionError

    def _connect(self) -> socket.socket:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
            try:
                sock.connect(self._path)
            except OSError as error:
                sock.close()
                if error.errno != errno.EPROTOTYPE:
                    raise
            else:
                return sock
        raise ConnectionError


def to_stderr(fd: int = 2, *, verbose: bool = False, name: str = "msgd") -> None:
    """Log to standard error: for the journal with priorities, for everybody else with a name."""
    lines = _Lines(f"{name}: ", priorities=systemd.under_journal(fd))
    _use(_StandardError(lines, fd), verbose)


def to_syslog(socket_path: str = SYSLOG_SOCKET, *, verbose: bool = False) -> None:
    """Log to syslog, as the facility daemon."""
    _use(_Syslog(_Lines(""), socket_path), verbose)


def catch_up() -> None:
    """Say how many lines were dropped, if there is room now: to be called now and then."""
    for handler in _log.handlers:
        if isinstance(handler, _Channel):
            handler.catch_up()


def _use(handler: logging.Handler, verbose: bool) -> None:
    # A log that cannot be written is no reason to print tracebacks into it.
    logging.raiseExceptions = False
    logger = logging.getLogger("msgd")
    logger.propagate = False
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
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
