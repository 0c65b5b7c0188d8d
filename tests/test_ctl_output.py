"""What msgctl prints: whole, harmless, and never more important than the work."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pexpect
import pytest

from msgd.ctl.progress import NoProgress, Progress, progress
from tests.conftest import SECONDS, Daemon
from tests.ctl import (
    Terminal,
    command,
    ends,
    environment,
    fails,
    msgctl,
    start_send,
    terminal_fixture,  # noqa: F401
)
from tests.scripted import Part, greet, receive, says, scripted, silent


@pytest.fixture
def msgd(shared_msgd: Daemon) -> Daemon:
    return shared_msgd


BUFFERED = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])


# Short writes


@BUFFERED
def test_a_disk_that_fills(msgd: Daemon, tmp_path: Path, unbuffered: str) -> None:
    """A limit on the file's size cuts the one write short, as a full disk does."""
    lines = b"".join(b"%050d\n" % number for number in range(500))
    with open(tmp_path / "out", "wb") as out:
        done = subprocess.run(
            command("send", "-p", msgd.port),
            input=lines,
            stdout=out,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_001, 10_001)),
            env=environment(PYTHONUNBUFFERED=unbuffered),
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"msgctl: standard output cannot be written (File too large): ")
    assert (tmp_path / "out").read_bytes() == lines[:10_001]


@BUFFERED
def test_a_pipe_that_does_not_block(msgd: Daemon, unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    lines = b"".join(b"%050d\n" % number for number in range(10_000))
    process = subprocess.Popen(
        command("send", "-p", msgd.port), stdin=subprocess.PIPE, stdout=writing,
        env=environment(PYTHONUNBUFFERED=unbuffered),
    )  # fmt: skip
    os.close(writing)
    assert process.stdin
    with ThreadPoolExecutor(1) as pool, open(reading, "rb") as out, process.stdin as feed:
        # Who does not read what msgctl prints cannot expect it to read on.
        fed = pool.submit(lambda: (feed.write(lines), feed.close()))
        assert out.read() == lines
        fed.result()
    assert process.wait(SECONDS) == 0


@pytest.mark.parametrize("what", ["--help", "--version", "send --help"])
def test_nobody_reads_the_help(what: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command(*what.split()), stdout=writing, stderr=subprocess.PIPE, text=True,
        env=environment(),
    )  # fmt: skip
    os.close(writing)
    fails(subprocess.CompletedProcess([], done.returncode, "", done.stderr), 141, "was closed")


# What comes from outside


@pytest.mark.parametrize("name", ["no\x1b[2J\nsuch", os.fsdecode(b"\x9b\xff\xfe") + "\u202e"])
def test_a_name_of_a_file_steers_no_terminal(msgd: Daemon, tmp_path: Path, name: str) -> None:
    gone = msgctl("send", "-f", tmp_path / name, "-p", msgd.port)
    (tmp_path / name).write_bytes(b"x" * 100_000 + b"\na\n")
    refused = msgctl("send", "-f", tmp_path / name, "-p", msgd.port)
    whole = msgctl("send", "-f", tmp_path / name, "--json", "-p", msgd.port)
    (tmp_path / name).chmod(0)
    for done, status in (gone, 2), (refused, 1), (whole, 1):
        assert done.returncode == status
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\udc00-\udfff]", done.stderr)
    assert len(gone.stderr.splitlines()) == 1
    assert len(refused.stderr.splitlines()) == 2
    assert all(char.isprintable() for char in whole.stdout.replace("\n", ""))


@pytest.mark.parametrize("what", ["option", "host", "verb", "text"])
def test_arguments_steer_no_terminal(what: str, msgd: Daemon) -> None:
    evil = "\x1b[2J\n\x9b"
    arguments = {
        "option": ["ping", f"--{evil}"],
        "host": ["ping", "-H", f"{evil}.invalid"],
        "verb": [evil],
        "text": ["send", "a", f"-{evil}", "b"],
    }[what]
    done = msgctl(*arguments)
    assert done.returncode in (2, 69)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_an_eight_bit_locale_gets_its_own_bytes(msgd: Daemon) -> None:
    """As UTF-8 the last one ends in 0x9b, which begins a control sequence there."""
    for words in (["é €"], ["ś"]):
        done = subprocess.run(
            command("send", "-p", msgd.port, *words), capture_output=True,
            env=environment(PYTHONIOENCODING="iso8859-1", PYTHONUTF8="1"),
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == {"é €": b"\xe9 \\u20ac\n", "ś": b"\\u015b\n"}[words[0]]


@pytest.mark.parametrize("reply", [b"MESG \x1b[2J\n", b"FAIL \x1b[2J\xc2\x9b\n", b"MESG \xff\n"])
def test_a_reply_from_a_stranger_steers_no_terminal_behind_a_pipe(reply: bytes) -> None:
    for text in ("a", "\x1b[2J"):
        with scripted(says(reply)) as port:
            done = msgctl("send", "-p", port, text)
        assert done.returncode in (1, 69)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout + done.stderr)


# What is only shown


class _Stream:
    def __init__(self, descriptor: int) -> None:
        self.fileno = lambda: descriptor
        self.isatty = lambda: True


def stderr_at_pty(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Both ends of it. Not as a fixture: pytest gives each phase a standard error of its own."""
    master, slave = pty.openpty()
    monkeypatch.setattr(sys, "stderr", _Stream(slave))
    monkeypatch.setenv("TERM", "xterm")
    return master, slave


def test_a_terminal_that_is_gone_ends_the_bar_only(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = stderr_at_pty(monkeypatch)
    bar = Progress(100)
    bar.show(1, 1)
    assert b"1 messages" in os.read(master, 1000)
    os.close(master)
    for _ in range(3):
        bar.hide()
        bar._next = 0.0
        bar.show(50, 50)
    os.close(slave)
    bar.hide()


def test_a_terminal_that_takes_nothing_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = stderr_at_pty(monkeypatch)
    os.set_blocking(slave, False)
    with pytest.raises(BlockingIOError):  # noqa: PT012
        while True:
            os.write(slave, b"x" * 4096)
    os.set_blocking(slave, True)
    bar = Progress(100)
    bar.show(1, 1)  # would wait for ever
    os.close(master)
    os.close(slave)


def test_a_size_that_cannot_be_told_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def total() -> int:
        raise FileNotFoundError

    both = stderr_at_pty(monkeypatch)
    assert type(progress(total)) is NoProgress
    assert type(progress(lambda: 1)) is Progress
    for descriptor in both:
        os.close(descriptor)


def test_the_bar_is_drawn_ten_times_a_second_at_most(
    msgd: Daemon, terminal: Terminal, tmp_path: Path
) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b"y" * 20 + b"\n" + b"y\n" * 200_000)
    for options in ([], ["-q"]):
        began = time.monotonic()
        _, said = ends(terminal("send", *options, "-p", msgd.port, "-f", lines))
        drawn = said.count("messages  ")
        assert 1 <= drawn <= 10 * (time.monotonic() - began) + 1


@pytest.mark.parametrize("term", ["dumb", ""])
def test_no_bar_where_none_can_be_drawn(
    msgd: Daemon, terminal: Terminal, tmp_path: Path, term: str
) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b"y\n" * 10_000)
    status, said = ends(terminal("send", "-q", "-p", msgd.port, "-f", lines, TERM=term))
    assert (status, said) == (0, "")


def test_no_bar_in_the_background(msgd: Daemon, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b"y\n" * 10_000)
    shell = pexpect.spawn(
        "bash", ["--norc", "-i"], timeout=SECONDS, encoding="utf-8",
        env=environment(TERM="xterm", PS1="> "),
    )  # fmt: skip
    words = shlex.join(command("send", "-q", "-p", msgd.port, "-f", lines))
    shell.sendline(f"{words} & wait $!; echo sta''tus $?")
    shell.expect("status (.)")
    assert isinstance(shell.match, re.Match)
    assert shell.match[1] == "0"
    assert "messages" not in (shell.before or "")
    shell.close(force=True)


# JSON


def test_json_tells_the_end_when_the_connection_breaks() -> None:
    with scripted(says(b"MESG a\n", b"")) as port:
        done = msgctl("send", "--json", "-p", port, stdin=b"a\nb\n")
    assert done.returncode == 69
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"line": 1, "status": "confirmed", "text": "a"},
        {"confirmed": 1, "refused": 0, "unknown": 1},
    ]


def test_json_tells_the_end_when_it_is_interrupted(msgd: Daemon) -> None:
    process, stdin, stdout = start_send("--json", "-p", msgd.port)
    stdin.write(b"a\n")
    stdin.flush()
    assert json.loads(stdout.readline())["text"] == "a"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=SECONDS)
    assert json.loads(out) == {"confirmed": 1, "refused": 0, "unknown": 0}


# Retrying


def test_idle_connections_that_are_closed_are_no_outage() -> None:
    """Each outage here is shorter than --retry; all of them together are longer."""

    def last(connection: socket.socket) -> None:
        greet(connection)
        assert receive(connection, 22).startswith(b"SESS ")
        connection.sendall(b"SESS 0\n")
        os.write(writing, b"a\n")
        os.close(writing)
        assert receive(connection, 7) == b"MESG a\n"
        connection.sendall(b"MESG a\n")

    def closes(connection: socket.socket) -> None:
        greet(connection)
        receive(connection, 22)
        connection.sendall(b"SESS 0\n")

    parts: list[Part] = [lambda connection: closes(connection) for _ in range(6)]
    reading, writing = os.pipe()
    with scripted(*parts, last) as port:
        process = subprocess.Popen(
            command("send", "--retry", "0.5", "-p", port), stdin=reading, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        )  # fmt: skip
        os.close(reading)
        out, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (0, "a\n"), errors


# Words


def test_no_line_is_named_that_does_not_exist(msgd: Daemon, tmp_path: Path) -> None:
    ten = tmp_path / "ten"
    ten.write_bytes(b"line\n" * 10)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("send", "-p", msgd.port, "-f", ten), stdout=full, stderr=subprocess.PIPE,
            text=True, env=environment(),
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.endswith("): 10 confirmed, 0 refused, 0 not known\n")


def test_one_second_is_one() -> None:
    with scripted(says(b"")) as port:
        done = msgctl("send", "--retry", "1", "-p", port, "a")
    assert "trying again for 1 second\n" in done.stderr
    with scripted(silent) as port:
        done = msgctl("send", "--timeout", "1", "-p", port, "a")
    fails(done, 69, "no answer for 1 second: the message is not confirmed")


def test_too_little_memory_is_one_line(msgd: Daemon, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.write_bytes(b"x\n" * (8 << 20))
    done = subprocess.run(
        command("send", "--whole", "-p", msgd.port, "-f", whole),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (72 << 20, 72 << 20)),
        env={k: v for k, v in environment().items() if not k.startswith("COV")},
    )
    assert done.returncode == 1
    assert re.fullmatch("msgctl: not enough memory.*\n", done.stderr), done.stderr


# Manners


def test_quiet_says_nothing_where_all_went_well(msgd: Daemon) -> None:
    done = msgctl("send", "-q", "-p", msgd.port, stdin=b"a\nb\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = msgctl("send", "-q", "-p", msgd.port, stdin=b"a\n%b\n" % (b"x" * 100_000))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "msgctl: line 2: refused: message too long",
        "msgctl: 1 confirmed, 1 refused, 0 not known",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_send_with_the_line_that_says_how_far(
    msgd: Daemon, number: signal.Signals
) -> None:
    process, stdin, stdout = start_send("-p", msgd.port)
    stdin.write(b"first\n")
    stdin.flush()
    assert stdout.readline() == b"first\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number
    assert errors.decode() == (
        f"msgctl: ended by {number.name}: 1 confirmed, 0 refused, 0 not known;"
        " first without confirmation: line 2\n"
    )


def test_a_hangup_that_was_ignored_stays_ignored(msgd: Daemon) -> None:
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command("send", "-p", msgd.port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"a\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"a\n"
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(b"b\n", timeout=SECONDS)
    assert (process.returncode, out) == (0, b"b\n")


def test_an_option_between_words_is_not_dropped_in_silence(msgd: Daemon) -> None:
    at = ["-p", msgd.port]
    fails(msgctl("send", *at, "rsync", "-q", "finished"), 2, "-q stands between the words")
    fails(msgctl("send", "rsync", *at, "finished"), 2, "-p stands between the words")
    assert msgctl("send", *at, "--", "rsync", "-q", "finished").stdout == "rsync -q finished\n"
    assert msgctl("send", *at, "rsync", "--", "-q", "finished").stdout == "rsync -q finished\n"
    assert msgctl("send", "-q", *at, "rsync", "finished").stdout == ""
    assert msgctl("send", "rsync", "finished", *at).stdout == "rsync finished\n"
    assert msgctl("send", "rsync - finished", "-", *at).stdout == "rsync - finished -\n"


def test_a_server_that_does_not_answer_is_named_with_its_time() -> None:
    with scripted(silent) as port:
        fails(msgctl("send", "--timeout", "1", "-p", port, "a"), 69, "no answer for 1 second")


@pytest.mark.parametrize(
    ("error", "said"),
    [("KeyError('x')", "a bug in msgctl: KeyError: 'x'"), ("MemoryError", "not enough memory")],
)
def test_what_nobody_has_foreseen_is_one_line(tmp_path: Path, error: str, said: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import msgd.ctl.settings as its\n"
        f"def broken(*_): raise {error}\n"
        "its.Server.connect = broken\n"
    )
    for verb in (["ping"], ["send", "-q", "-"], ["terminate", "--password-stdin"]):
        fails(msgctl(*verb, PYTHONPATH=str(tmp_path)), 1, re.escape(said))
