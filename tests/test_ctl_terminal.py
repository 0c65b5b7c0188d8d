"""msgctl at a real terminal: passwords that are never shown, conversations that go on."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import termios
from pathlib import Path

import pexpect
import pytest

from tests.conftest import PASSWORD, SECONDS, Daemon
from tests.ctl import Terminal, command, ends, environment, terminal_fixture  # noqa: F401
from tests.matrix import every_other
from tests.scripted import echo, says, scripted


@pytest.fixture
def msgd(shared_msgd: Daemon) -> Daemon:
    return shared_msgd


def shows_typing(at: pexpect.spawn[str]) -> bool:
    return bool(termios.tcgetattr(at.child_fd)[3] & termios.ECHO)


PLACES = "terminate", "conversation", "hash-password"
SIGNALS = signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT


@pytest.mark.parametrize(("where", "number"), every_other(PLACES, SIGNALS))
def test_a_signal_at_the_prompt_leaves_the_terminal_as_it_was(
    msgd: Daemon, terminal: Terminal, number: signal.Signals, where: str
) -> None:
    if where == "hash-password":
        words = ["-m", "msgd.daemon", "hash-password"]
        at = pexpect.spawn(command()[0], words, encoding="utf-8", timeout=SECONDS)
    elif where == "terminate":
        at = terminal("terminate", "-p", msgd.port)
    else:
        at = terminal("send", "-p", msgd.port)
        at.expect("msgd> ")
        at.sendline("terminate")
    at.expect("Password: ")
    assert not shows_typing(at)
    at.kill(number)
    if where == "conversation" and number == signal.SIGINT:
        at.expect(pexpect.EOF)
    at.expect([pexpect.EOF, "dumped"])
    assert shows_typing(at)
    at.close(force=True)


def shell(*words: object) -> pexpect.spawn[str]:
    at = pexpect.spawn(
        "bash", ["--norc", "-i"], timeout=SECONDS, encoding="utf-8",
        env=environment(PS1="she''ll> ", TERM="dumb"),
    )  # fmt: skip
    at.sendline("PS1='she''ll> '")
    at.expect("shell> ")
    at.sendline(shlex.join(map(str, words)))
    return at


@pytest.mark.parametrize("stop", ["\x1a", signal.SIGSTOP], ids=["Ctrl-Z", "SIGSTOP"])
def test_a_prompt_that_was_stopped_does_not_show_the_password(
    msgd: Daemon, stop: str | int
) -> None:
    at = shell(*command("terminate", "-p", msgd.port))
    at.expect("Password: ")
    if isinstance(stop, str):
        at.send(f"half{stop}")
    else:
        os.kill(os.tcgetpgrp(at.child_fd), stop)
    at.expect("Stopped")
    at.expect("shell> ")
    at.sendline("fg")
    at.expect("Password: ")
    at.sendline(PASSWORD)
    at.expect("the server stops")
    assert PASSWORD not in (at.before or "")
    assert msgd.wait() == 0
    at.expect("shell> ")
    at.sendline("echo vis''ible")
    at.expect("echo vis''ible\r\nvisible")
    at.close(force=True)


def test_a_conversation_connects_again(terminal: Terminal) -> None:
    with scripted(says(b"MESG a\n"), says(b"MESG b\n", b""), echo) as port:
        at = terminal("send", "-p", port, NO_COLOR="1")
        at.expect("msgd> ")
        at.sendline("a")
        at.expect("a\r\na\r\n")
        at.expect("msgd> ")
        at.sendline("b")
        at.expect("connected again to .*\r\nb\r\n")
        at.expect("msgd> ")
        at.sendline("c")
        at.expect("the last line is not confirmed|connected again")
        at.expect("msgd> ")
        at.sendline("d")
        at.expect("\nd\r\n")
        at.sendcontrol("d")
        ends(at)


def test_a_conversation_says_what_was_not_sent(terminal: Terminal) -> None:
    with scripted(says(b"MESG a\n")) as port:
        at = terminal("send", "-p", port, NO_COLOR="1")
        at.expect("msgd> ")
        at.sendline("a")
        at.expect("a\r\na\r\n")
    at.expect("msgd> ")
    at.sendline("b")
    at.expect("nobody listens at .*: the last line was not sent")
    at.expect("msgd> ")
    at.sendcontrol("d")
    assert ends(at)[0] == 69


def test_an_empty_line_is_no_message(msgd: Daemon, terminal: Terminal) -> None:
    at = terminal("send", "-p", msgd.port, NO_COLOR="1")
    for line in ("", "a", ""):
        at.expect("msgd> ")
        at.sendline(line)
    at.expect("msgd> ")
    at.sendcontrol("d")
    assert ends(at)[0] == 0
    assert msgd.texts() == ["a"]


def test_a_redirected_output_holds_the_echoes_and_nothing_else(
    msgd: Daemon, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = shlex.join(command("send", "-p", msgd.port))
    at = pexpect.spawn(
        "bash", ["-c", f"{words} > '{out}'"], timeout=SECONDS, encoding="utf-8",
        env=environment(XDG_STATE_HOME=str(tmp_path), TERM="xterm", NO_COLOR=""),
    )  # fmt: skip
    at.expect("Connected to")
    at.expect("msgd> ")
    at.sendline("first")
    at.expect("msgd> ")
    at.send("\x1b[A again\r")  # the arrow up: lines are edited as ever
    at.expect("msgd> ")
    at.sendcontrol("d")
    at.expect(pexpect.EOF)
    at.close()
    assert at.exitstatus == 0
    assert out.read_text() == "first\nfirst again\n"


def test_two_conversations_keep_both_histories(
    msgd: Daemon, terminal: Terminal, tmp_path: Path
) -> None:
    both = [terminal("send", "-p", msgd.port, NO_COLOR="1") for _ in range(2)]
    for at, line in zip(both, ("one", "two"), strict=True):
        at.expect("msgd> ")
        at.sendline(line)
        at.expect("msgd> ")
    for at in both:
        at.sendcontrol("d")
        assert ends(at)[0] == 0
    assert (tmp_path / "msgctl" / "history").read_text().split() == ["one", "two"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_conversation(
    msgd: Daemon, terminal: Terminal, number: signal.Signals, tmp_path: Path
) -> None:
    at = terminal("send", "-p", msgd.port, NO_COLOR="1")
    at.expect("msgd> ")
    at.sendline("one")
    at.expect("msgd> ")
    at.kill(number)
    at.expect(pexpect.EOF)
    at.close()
    assert at.exitstatus == 128 + number
    assert (tmp_path / "msgctl" / "history").read_text() == "one\n"


def test_a_terminal_that_goes_while_the_password_is_asked(msgd: Daemon) -> None:
    master, slave = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "sh", "-c", 'trap "" HUP; exec "$@"', "sh",
         *command("terminate", "-p", msgd.port)],
        stdin=slave, stdout=slave, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    os.close(slave)
    said = b""
    while b"Password: " not in said:
        said += os.read(master, 1000)
    os.close(master)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert errors == b"msgctl: interrupted\n"


def test_a_conversation_without_readline(msgd: Daemon, terminal: Terminal, tmp_path: Path) -> None:
    """Editing lines is a convenience."""
    (tmp_path / "readline.py").write_text("raise ImportError")
    at = terminal("send", "-p", msgd.port, NO_COLOR="1", PYTHONPATH=str(tmp_path))
    at.expect("msgd> ")
    at.sendline("a")
    at.expect("a\r\na\r\n")
    at.expect("msgd> ")
    at.sendcontrol("d")
    assert ends(at)[0] == 0
