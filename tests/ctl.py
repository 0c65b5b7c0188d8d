"""msgctl for tests: as a process of its own, with and without a terminal."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pexpect
import pytest

from tests.conftest import SECONDS

# What the machine itself has in /etc and /run is none of these tests' business.
MAIN = (
    "import sys, msgd.ctl, msgd.ctl.settings as its;"
    "its.MSGD_CONFIG, its.SYSTEM_FILE, its.MSGD_SOCKET = sys.argv.pop(1).split(',');"
    "msgd.ctl.main()"
)


def command(
    *arguments: object, config: object = "/-", system: object = "/-", sock: object = "/-"
) -> list[str]:
    return [sys.executable, "-c", MAIN, f"{config},{system},{sock}", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MSGCTL_")}
    return {**kept, "XDG_CONFIG_HOME": "/nonexistent", **more}


def msgctl(
    *arguments: object,
    stdin: bytes = b"",
    config: object = "/-",
    system: object = "/-",
    sock: object = "/-",
    **env: str,
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments, config=config, system=system, sock=sock),
        input=stdin,
        capture_output=True,
        timeout=SECONDS,
        env=environment(**env),
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err
    assert all(line.startswith("msgctl: ") for line in err.splitlines())
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def fails(done: subprocess.CompletedProcess[str], status: int, words: str) -> None:
    """It says one line with these words, nothing else, and ends with this status."""
    assert done.returncode == status, done.stderr
    assert re.fullmatch(f"msgctl: .*(?:{words}).*\n", done.stderr), done.stderr


@pytest.fixture(name="free_port")
def free_port_fixture() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert isinstance(port, int)
        return port


def start_send(*arguments: object) -> tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]:
    process = subprocess.Popen(
        command("send", *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin
    assert process.stdout
    return process, process.stdin, process.stdout


Terminal = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture(name="terminal")
def terminal_fixture(tmp_path: Path) -> Iterator[Terminal]:
    """Run msgctl at a terminal of its own."""
    terminals: list[pexpect.spawn[str]] = []

    def run(*arguments: object, columns: int = 100, **env: str) -> pexpect.spawn[str]:
        program, *rest = command(*arguments)
        settings = environment(**{"XDG_STATE_HOME": str(tmp_path), "TERM": "xterm", **env})
        settings = {name: value for name, value in settings.items() if value}
        spawned = pexpect.spawn(
            program, rest, encoding="utf-8", timeout=SECONDS, env=settings,
            dimensions=(24, columns),
        )  # fmt: skip
        terminals.append(spawned)
        return spawned

    yield run
    for spawned in terminals:
        assert "Traceback" not in (spawned.before or "")
        spawned.close(force=True)


def ends(terminal: pexpect.spawn[str]) -> tuple[int | None, str]:
    """The exit status, and what was said last."""
    terminal.expect(pexpect.EOF)
    said = terminal.before or ""
    terminal.close()
    return terminal.exitstatus, said
