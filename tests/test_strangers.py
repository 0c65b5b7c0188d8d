"""Clients that were written from msgd-protocol(7) alone, in other languages, against the daemon."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import SECONDS, Daemon, Start

CLIENTS = Path(__file__).parent / "clients"

needs_nc = pytest.mark.skipif(shutil.which("nc") is None, reason="nc is not installed")


def run(msgd: Daemon, *command: str | Path, input: str = "") -> subprocess.CompletedProcess[str]:
    """Run a client; its first two arguments are the daemon's host and port."""
    program, *arguments = map(str, command)
    return subprocess.run(
        [program, "127.0.0.1", str(msgd.port), *arguments],
        input=input,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client in C, compiled."""
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    program = tmp_path_factory.mktemp("clients") / "archive"
    subprocess.run(
        ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-o", program, CLIENTS / "archive.c"],
        check=True,
    )
    return program


@needs_nc
def test_shell_sends_lines(msgd: Daemon) -> None:
    lines = [f"line {number}" for number in range(20_000)]
    done = run(msgd, CLIENTS / "send.sh", input="\n".join(lines) + "\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == lines == msgd.texts()


@needs_nc
def test_shell_names_the_line_that_is_refused(start: Start) -> None:
    msgd = start("limits: {message_bytes: 10}\n")
    done = run(msgd, CLIENTS / "send.sh", input="short\nmuch too long\n\n")
    assert done.returncode == 1
    assert done.stderr == "line 2: FAIL message too long\n"
    assert done.stdout == "short\n\n"
    assert msgd.texts() == ["short", ""]


@needs_nc
def test_shell_sends_a_bare_message(msgd: Daemon) -> None:
    done = run(msgd, CLIENTS / "bare.sh", "two\nlines and \x1b")
    assert (done.returncode, done.stdout) == (0, "two\nlines and \\x1b\n")
    assert msgd.texts() == ["two\nlines and \\x1b"]


@needs_nc
def test_shell_says_what_is_refused(start: Start) -> None:
    msgd = start("limits: {message_bytes: 10}\n")
    done = run(msgd, CLIENTS / "bare.sh", "much too long")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "PONGFAIL message too long\n"


def test_c_sends_messages_of_one_and_several_lines(msgd: Daemon, archive: Path) -> None:
    done = run(msgd, archive, "one", "two\nlines\n", "", "\N{RIGHT-TO-LEFT OVERRIDE}three")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "one\ntwo\nlines\n\n\n\\u202ethree\n"
    assert msgd.texts() == ["one", "two\nlines\n", "", "\\u202ethree"]


def test_c_goes_on_after_a_refusal(start: Start, archive: Path) -> None:
    msgd = start("limits: {message_bytes: 10}\n")
    done = run(msgd, archive, "first", "too\nlong\nmessage", "last")
    assert (done.returncode, done.stdout) == (1, "first\nlast\n")
    assert done.stderr == "FAIL message too long\n"
    assert msgd.texts() == ["first", "last"]


def test_c_finds_nobody(msgd: Daemon, archive: Path) -> None:
    msgd.stop()
    done = run(msgd, archive, "text")
    assert (done.returncode, done.stderr) == (69, "archive: cannot connect\n")
