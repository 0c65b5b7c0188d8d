"""The daemon's own log: whoever reads it, slowly, never, or no more, holds up nobody."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import socket
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from msgd.process import log
from tests.conftest import Start
from tests.lab.waiting import SECONDS, wait_for

logger = logging.getLogger("msgd")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    yield
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
    logging.raiseExceptions = True


class Reader:
    """Somebody who does not read, until asked to."""

    def __init__(self, kind: str) -> None:
        self.reading: int
        if kind == "socket":
            ours, theirs = socket.socketpair()
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            self.reading, self.writing = ours.detach(), theirs.detach()
        elif kind == "terminal":
            self.reading, self.writing = pty.openpty()
            tty.setraw(self.writing)
        else:
            self.reading, self.writing = os.pipe()
            fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.reading, False)
        self.text = ""

    def read(self) -> str:
        """All that is there now, and what the log had yet to say."""
        log.catch_up()
        try:
            while data := os.read(self.reading, 1 << 16):
                self.text += data.decode()
        except BlockingIOError:
            pass
        return self.text

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture(params=["pipe", "socket", "terminal", "pipe of another user"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    reader = Reader(request.param)
    if request.param == "pipe of another user":

        def refused(*_: object) -> int:
            raise PermissionError

        monkeypatch.setattr(os, "open", refused)
    yield reader
    monkeypatch.undo()
    reader.close()


def test_who_does_not_read_is_told_later_how_much_was_dropped(reader: Reader) -> None:
    log.to_stderr(reader.writing)
    assert os.get_blocking(reader.writing)  # others who share it did not ask for anything else
    lines = 4000
    for number in range(lines):
        logger.info("line %d", number)
    wait_for(lambda: sum(map(sum, account(reader.read()))) == lines, "room")
    logger.info("the last line")
    wait_for(lambda: reader.read().endswith("the last line\n"), "the last line")
    kept, dropped = account(reader.text)
    assert 0 < len(kept) < lines
    assert reader.text.count("\n") == len(kept) + len(dropped) + 1  # none is cut in two


def account(text: str) -> tuple[list[int], list[int]]:
    """A 1 for each line that came whole; and how many were dropped, each time that it is said.

    A terminal passes on what it holds when it likes: there may be room again in between.
    """
    kept = re.findall(r"^msgd: line \d+\n", text, re.MULTILINE)
    dropped = re.findall(r"^msgd: lines .* were dropped, .*: (\d+)\n", text, re.MULTILINE)
    return [1] * len(kept), [int(number) for number in dropped]


def test_a_long_line_comes_whole_or_not_at_all(reader: Reader) -> None:
    log.to_stderr(reader.writing)
    logger.info("x" * 300_000)
    logger.info("dropped")
    wait_for(lambda: "dropped, as" in reader.read(), "room")
    assert reader.text.splitlines()[0] == "msgd: " + "x" * 300_000
    assert reader.text.splitlines()[1].startswith("msgd: lines of this log that were dropped")


def test_a_file_takes_everything(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        file.write(b"before\n")
        file.flush()
        log.to_stderr(file.fileno())
        logger.info("hello")
    assert (tmp_path / "log").read_text() == "before\nmsgd: hello\n"


def test_nobody_there_to_read() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    log.to_stderr(writing)
    logger.info("nobody")
    os.close(writing)


def test_a_line_that_cannot_be_made_ends_nobody() -> None:
    log.to_stderr()
    logger.info("%d", "no number")


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_syslog_that_does_not_read(tmp_path: Path, kind: socket.SocketKind) -> None:
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(path)
        if kind == socket.SOCK_STREAM:
            server.listen()
        log.to_syslog(path)
        for number in range(8000):
            logger.info("line %d", number)
        sock = server.accept()[0] if kind == socket.SOCK_STREAM else server
        sock.setblocking(False)
        text = b""

        def read() -> bytes:
            nonlocal text
            log.catch_up()
            try:
                while data := sock.recv(1 << 16):
                    text += data
            except BlockingIOError:
                return text
            return text

        wait_for(lambda: b"dropped" in read(), "room")
        assert re.search(rb"<28>msgd\[\d+\]: lines of this log that were dropped", text)
        if sock is not server:
            sock.close()


def test_syslog_that_is_started_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log.to_syslog(str(path))
    for number in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.settimeout(SECONDS)
            server.bind(str(path))
            logger.info("start %d", number)
            assert server.recv(1000).endswith(b": start %d" % number)
        path.unlink()


def test_a_daemon_whose_log_nobody_reads_serves_and_stops(start: Start) -> None:
    daemon = start("", "--verbose")
    assert daemon.process.stderr is not None
    fcntl.fcntl(daemon.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    for number in range(200):
        with daemon.line_client() as client:
            assert client.ask(b"MESG %d\n" % number) == b"MESG %d\n" % number
    daemon.signal(15)
    assert daemon.process.wait(SECONDS) == 0
    assert len(daemon.texts()) == 200
