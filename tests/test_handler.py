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
from math import nan
from pathlib import Path
from typing import Any

import pytest

from msgd.client import Client
from msgd.client.inflight import Answer, Block, Pipeline
from msgd.client.tls import Tls
from msgd.handler import MsgdHandler
from tests.conftest import Daemon, Start, wait_for
from tests.lab.certificates import Authority
from tests.lab.proc import descriptors
from tests.scripted import greet, says, scripted, silent
from tests.session_server import Sessions
from tests.tls_server import over_tls


@pytest.fixture
def msgd(shared_msgd: Daemon) -> Daemon:
    return shared_msgd


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


def run(program: str, port: int, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM + program, str(port)]
    environment = {**os.environ, **env}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True, env=environment
    )


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


def test_what_was_not_confirmed_before_a_break_is_archived_once(log: logging.Logger) -> None:
    sessions = Sessions()
    with scripted(sessions.serve(1), sessions.serve(1), sessions.serve()) as port:
        handler = handle(log, port)
        with handler._outbox._changed:  # so that all three are one batch
            for text in "abc":
                log.info(text)
        handler.flush()
        assert not handler._outbox.waiting
        log.info("d")
        handler.close()
    [session] = sessions.archive
    assert sessions.texts(session) == [b"a", b"b", b"c", b"d"]


def test_another_server_goes_on_and_the_doubt_is_said(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = Sessions(), Sessions()
    with scripted(first.serve(1)) as one, scripted(second.serve()) as other:
        handler = MsgdHandler([f"127.0.0.1:{one}", f"127.0.0.1:{other}"], timeout=20)
        log.addHandler(handler)
        with handler._outbox._changed:  # so that all three are one batch
            for text in "abc":
                log.info(text)
        handler.flush()
        handler.close()
    assert [sessions.texts(*sessions.archive) for sessions in (first, second)] == [
        [b"a"],
        [b"b", b"c"],
    ]
    said = capsys.readouterr().err
    assert f"2 log records sent again, to 127.0.0.1:{other}: perhaps in both archives" in said


def test_a_server_without_sessions_gets_them_again(log: logging.Logger) -> None:
    old = says(b"FAIL unknown header\n")
    with scripted(old, says(b"MESG a\n"), says(b"MESG b\n", b"MESG c\n")) as port:
        handler = handle(log, port)
        with handler._outbox._changed:
            for text in "abc":
                log.info(text)
        handler.flush()
        assert not handler._outbox.waiting
        handler.close()


def test_a_session_that_the_server_has_lost_is_said_and_begun_anew(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions = Sessions()
    with scripted(sessions.serve(1), sessions.serve(), sessions.serve()) as port:
        handler = handle(log, port)
        log.info("a")
        handler.flush()
        [first] = sessions.archive
        sessions.archive.clear()  # and the connection breaks
        for text in "bc":
            log.info(text)
        handler.flush()
        handler.close()
    [second] = sessions.archive
    assert first != second
    assert sessions.texts(second) == [b"b", b"c"]
    assert "lost the session" in capsys.readouterr().err


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
            assert lines.readline().startswith(b"SESS ")
            connection.sendall(b"SESS 0\n")
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
        wait_for(lambda: not handler._outbox.waiting, "the answer to the new record")
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


@pytest.mark.parametrize("formatted", [{"a": 1}, None, 5])
def test_a_formatter_that_gives_no_text_costs_one_record(
    msgd: Daemon, log: logging.Logger, capsys: pytest.CaptureFixture[str], formatted: Any
) -> None:
    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return formatted if record.msg == "odd" else "even"

    handler = handle(log, msgd.port)
    handler.setFormatter(Formatter())
    log.info("odd")
    log.info("next")
    handler.flush()
    assert msgd.texts() == ["even"]
    assert "a text is str or bytes" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, OSError])
def test_no_error_ends_the_thread(
    msgd: Daemon,
    log: logging.Logger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    connect, errors = Client._connect, [error("it broke")] * 2

    def breaks(client: Client) -> None:
        if errors:
            raise errors.pop()
        connect(client)

    monkeypatch.setattr(Client, "_connect", breaks)
    handler = handle(log, msgd.port)
    log.info("one")
    handler.flush()
    log.info("two")
    handler.flush()
    assert msgd.texts() == ["one", "two"]
    assert not errors
    assert f"{error.__name__}: it broke" in capsys.readouterr().err


def test_an_error_in_the_middle_of_a_batch_loses_nothing(
    msgd: Daemon, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever memory is short: in handing a batch over, or while its answers come."""
    add, receive, errors = Pipeline.add, Pipeline.receive, ["add", "receive", "add", "receive"]

    def short(step: str) -> None:
        if errors and errors[-1] == step:
            errors.pop()
            raise MemoryError

    def short_add(pipeline: Pipeline, block: Block) -> None:
        short("add")
        add(pipeline, block)

    def short_receive(pipeline: Pipeline, data: bytes) -> list[Answer]:
        short("receive")
        return receive(pipeline, data)

    monkeypatch.setattr(Pipeline, "add", short_add)
    monkeypatch.setattr(Pipeline, "receive", short_receive)
    handler = handle(log, msgd.port)
    for number in range(4):
        log.info("record %d", number)
        handler.flush()
    assert not errors
    assert msgd.texts() == [f"record {number}" for number in range(4)]


def test_what_waits_is_bounded_in_bytes(
    free_port: int, log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = MsgdHandler(port=free_port, timeout=0.1, capacity_bytes=1000)
    log.addHandler(handler)
    for _ in range(10):
        log.info("x" * 300)
    log.info("x" * 2000)
    assert handler._outbox.waiting == 3
    handler.close()
    assert "11 log records not delivered" in capsys.readouterr().err


def test_the_bytes_of_what_is_answered_are_free_again(msgd: Daemon, log: logging.Logger) -> None:
    handler = MsgdHandler(port=msgd.port, timeout=20, capacity_bytes=1000)
    log.addHandler(handler)
    for number in range(10):
        log.info(str(number) + "x" * 600)
        handler.flush()
    assert [text[0] for text in msgd.texts()] == list("0123456789")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"port": 6743 + 65536}, ValueError),
        ({"host": None}, TypeError),
        ({"timeout": None}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": nan}, ValueError),
        ({"timeout": 1e7}, ValueError),
        ({"tls": "yes"}, TypeError),
        ({"capacity": 0}, ValueError),
        ({"capacity": None}, TypeError),
        ({"capacity_bytes": -1}, ValueError),
    ],
)
def test_what_cannot_be_meant_is_an_error(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        MsgdHandler(**wrong)


def test_the_thread_imports_nothing(msgd: Daemon, free_port: int) -> None:
    """A child that is forked meanwhile would find the lock of imports taken, for ever."""
    done = run(
        "handler.host = 'localhost'\n"
        "before = set(sys.modules)\n"
        "log.warning('one'); handler.flush()\n"
        "handler._outbox._sender.disconnect(); handler.port = int(os.environ['FREE'])\n"
        "log.warning('two'); handler.flush()\n"
        "print(set(sys.modules) - before)",
        msgd.port,
        FREE=str(free_port),
    )
    assert done.stdout == "set()\n"


def test_a_child_that_is_forked_at_the_first_record_can_connect(msgd: Daemon) -> None:
    done = run(
        "import socket, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "handler.host = 'localhost'\n"
        "log.warning('parent')\n"
        "pid = os.fork()\n"
        "if not pid: socket.getaddrinfo('localhost', 1)\n"
        "log.warning('both')\n"
        "if pid: assert os.waitpid(pid, 0)[1] == 0",
        msgd.port,
    )
    assert done.stderr == ""
    assert sorted(msgd.texts()) == ["both", "both", "parent"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_deliver_at_their_end(
    msgd: Daemon, tmp_path: Path, method: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing\n" + PROGRAM + "def work(number):\n"
        "    for n in range(100): log.warning('%d %d', number, n)\n"
        "if __name__ == '__main__':\n"
        f"    context = multiprocessing.get_context({method!r})\n"
        "    children = [context.Process(target=work, args=(n,)) for n in range(2)]\n"
        "    for child in children: child.start()\n"
        "    for child in children: child.join()\n"
    )
    command = [sys.executable, str(program), str(msgd.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert sorted(msgd.texts()) == sorted(f"{n} {m}" for n in range(2) for m in range(100))


def test_a_child_of_multiprocessing_says_what_it_loses(free_port: int, tmp_path: Path) -> None:
    done = run(
        "import multiprocessing\n"
        "def work():\n"
        "    for n in range(100): log.warning('lost')\n"
        "child = multiprocessing.get_context('fork').Process(target=work)\n"
        "child.start(); child.join()",
        free_port,
    )
    assert "100 log records not delivered: nobody listens" in done.stderr


@pytest.mark.parametrize("thread", [False, True])
def test_standard_error_that_leads_into_logging_is_no_loop(msgd: Daemon, thread: bool) -> None:
    """One refusal is one line, which may come back as a record: through another thread, too."""
    done = run(
        "import queue, threading\n"
        "lines = queue.Queue()\n"
        "def write(text):\n"
        "    log.warning('stderr: ' + 'x' * 70_000 + text)\n"
        "def take():\n"
        "    while True: write(lines.get())\n"
        "class Stream:\n"
        "    def write(self, text):\n"
        f"        (lines.put if {thread} else write)(text)\n"
        "    def flush(self): pass\n"
        "threading.Thread(target=take, daemon=True).start()\n"
        "emitted = []\n"
        "log.addFilter(lambda record: emitted.append(1) or True)\n"
        "sys.stderr = Stream()\n"
        "log.warning('x' * 70_000)\n"
        "for n in range(5): log.warning('fine'); handler.flush()\n"
        "print(len(emitted))",
        msgd.port,
    )
    assert int(done.stdout) < 20
    assert msgd.texts() == ["fine"] * 5


def test_records_go_through_tls_once(tmp_path: Path, log: logging.Logger) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("localhost")
    sessions = Sessions()
    parts = [over_tls(certificate, sessions.serve(2)), over_tls(certificate, sessions.serve())]
    with scripted(*parts) as port:
        handler = MsgdHandler("localhost", port, 20, tls=Tls(ca=str(authority.certificate)))
        log.addHandler(handler)
        for text in "abcd":
            log.info(text)
        handler.close()
    [session] = sessions.archive
    assert sessions.texts(session) == [b"a", b"b", b"c", b"d"]


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
