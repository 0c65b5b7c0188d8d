"""The logging handler, against the real daemon, and without any."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from msgd.handler import MsgdHandler
from tests.conftest import Daemon, Start, wait_for
from tests.lab.proc import descriptors
from tests.scripted import greet, says, scripted, silent

PROGRAM = """
import logging, os, sys
from msgd.handler import MsgdHandler
handler = MsgdHandler(port=int(sys.argv[1]), timeout=0.5)
log = logging.getLogger("program")
log.addHandler(handler)
"""


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("test_handler")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def handle(
    log: logging.Logger, port: int, timeout: float = 20, capacity: int = 10_000
) -> MsgdHandler:
    handler = MsgdHandler(port=port, timeout=timeout, capacity=capacity)
    log.addHandler(handler)
    return handler


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert isinstance(port, int)
        return port


def run(program: str, port: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM + program, str(port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)


def test_records_are_archived_when_flush_returns(msgd: Daemon, log: logging.Logger) -> None:
    handler = handle(log, msgd.port)
    for number in range(3000):
        log.info("record %d", number)
    handler.flush()
    assert msgd.texts() == [f"record {number}" for number in range(3000)]


def test_a_traceback_is_one_message(msgd: Daemon, log: logging.Logger) -> None:
    handler = handle(log, msgd.port)
    try:
        raise KeyError("missing")
    except KeyError:
        log.exception("it broke")
    handler.flush()
    [text] = msgd.texts()
    assert text.startswith("it broke\nTraceback")
    assert text.endswith("KeyError: 'missing'")


def test_records_arrive_without_a_flush(msgd: Daemon, log: logging.Logger) -> None:
    handle(log, msgd.port)
    log.info("soon")
    wait_for(lambda: msgd.texts() == ["soon"], "the record in the archive")


def test_exit_delivers_what_is_left(msgd: Daemon) -> None:
    done = run("for n in range(1000): log.warning('last %d', n)", msgd.port)
    assert done.stderr == ""
    assert msgd.texts() == [f"last {n}" for n in range(1000)]


def test_a_forked_child_delivers_its_own(msgd: Daemon) -> None:
    done = run(
        "log.warning('parent'); handler.flush(); log.warning('parent again')\n"
        # Since Python 3.12 a fork beside threads warns; the program may do it all the same.
        "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
        "pid = os.fork()\n"
        "log.warning('after the fork in %s', 'parent' if pid else 'child')\n"
        "if pid: os.waitpid(pid, 0)",
        msgd.port,
    )
    assert done.stderr == ""
    assert sorted(msgd.texts()) == [
        "after the fork in child",
        "after the fork in parent",
        "parent",
        "parent again",
    ]
    assert len({record.origin for record in msgd.records()}) == 2


def test_no_server_costs_the_program_only_the_time_out(free_port: int) -> None:
    done = run("for n in range(500): log.warning('lost')", free_port)
    first, last = done.stderr.splitlines()
    assert "nobody listens" in first
    assert last.startswith("msgd.handler: 500 log records not delivered: nobody listens")


def test_a_server_that_never_answers_is_reported() -> None:
    with scripted(silent) as port:
        done = run("log.warning('lost')", port)
    assert "1 log record not delivered" in done.stderr


def test_records_wait_for_a_server_that_comes_late(
    start: Start, log: logging.Logger, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = handle(log, free_port, capacity=3)
    for number in range(5):
        log.info("record %d", number)
    said = ""

    def is_said() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return "nobody listens" in said

    wait_for(is_said, "the complaint")
    daemon = start("listen: 127.0.0.1\n", "--port", str(free_port))
    handler.flush()
    assert daemon.texts() == ["record 0", "record 1", "record 2"]
    log.info("record 5")
    handler.close()
    assert daemon.texts()[3:] == ["record 5"]
    assert "2 log records not delivered" in capsys.readouterr().err


def test_what_was_not_confirmed_before_a_break_is_sent_again(log: logging.Logger) -> None:
    first = says(b"MESG a\n")
    second = says(b"MESG b\n", b"MESG c\n")
    with scripted(first, second) as port:
        handler = handle(log, port)
        with handler._changed:  # so that all three are one batch
            for text in "abc":
                log.info(text)
        handler.flush()
        assert not handler._queue
        handler.close()


def test_records_that_are_logged_while_it_is_closed_are_archived(
    msgd: Daemon, log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = handle(log, msgd.port)
    closing = True

    def close_often() -> None:
        while closing:
            handler.close()

    thread = threading.Thread(target=close_often)
    thread.start()
    for number in range(5000):
        log.info("record %d", number)
        if number % 50 == 0:
            time.sleep(0.001)  # to let the other thread close it, too
    closing = False
    thread.join()
    handler.flush()
    assert msgd.texts() == [f"record {number}" for number in range(5000)]
    assert capsys.readouterr().err == ""


def test_an_answer_that_comes_after_close_takes_no_later_record(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    sent, logged = threading.Event(), threading.Event()

    def late(connection: socket.socket) -> None:
        greet(connection)
        with connection.makefile("rb") as lines:
            assert lines.readline() == b"MESG old\n"
            sent.set()
            assert logged.wait(20)
            connection.sendall(b"MESG old\n")
            assert lines.readline() == b"MESG new\n"
            connection.sendall(b"MESG new\n")

    with scripted(late) as port:
        handler = handle(log, port)
        log.info("old")
        assert sent.wait(20)
        handler.timeout = 0.1
        handler.close()
        log.info("new")
        logged.set()
        wait_for(lambda: not handler._queue, "the answer to the new record")
    assert "1 log record not delivered: the server is too slow" in capsys.readouterr().err


def test_a_refused_record_is_said(
    msgd: Daemon, log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = handle(log, msgd.port)
    log.info("x" * 70_000)
    log.info("short")
    handler.close()
    assert msgd.texts() == ["short"]
    assert "msgd.handler: 1 log record not delivered: message too long" in capsys.readouterr().err


def test_a_closed_handler_opens_again(msgd: Daemon, log: logging.Logger) -> None:
    handler = handle(log, msgd.port)
    for text in ("one", "two"):
        log.info(text)
        handler.close()
    assert msgd.texts() == ["one", "two"]


def test_a_record_that_cannot_be_formatted_is_pythons_to_report(
    msgd: Daemon, log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handle(log, msgd.port)
    log.info("%d", "no number")
    assert "Logging error" in capsys.readouterr().err


def test_no_standard_error_is_no_error(free_port: int) -> None:
    run("sys.stderr = None\nlog.warning('lost')", free_port)


def test_the_connection_is_closed_with_the_handler(msgd: Daemon, log: logging.Logger) -> None:
    handler = handle(log, msgd.port)
    log.info("hello")
    handler.flush()
    sockets = _sockets()
    handler.close()
    wait_for(lambda: _sockets() < sockets, "the end of the connection")


def _sockets() -> int:
    return descriptors(os.getpid(), "socket:")
