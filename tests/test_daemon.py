"""The command msgd, as it is called: options, exit statuses, hash-password, the background."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pexpect
import pytest

import msgd
from msgd.password import check_hash, verify
from msgd.process import log
from msgd.process.lockfile import PidFile
from msgd.wire.headers import well_formed
from tests.conftest import PASSWORD_HASH, SECONDS, Client, Start, wait_for

COMMAND = [sys.executable, "-m", "msgd.daemon"]


def call(
    *arguments: str | Path, stdin: bytes = b"", wrapper: Sequence[str] = (), **more: Any
) -> tuple[int, str, str]:
    """Run msgd to its end: status, output, errors."""
    done = subprocess.run(
        [*wrapper, *COMMAND, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=SECONDS,
        **more,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "msgd.yaml"
    path.write_text(
        f"listen: 127.0.0.1\nport: 0\nlog_directory: {tmp_path / 'archive'}\n"
        f"password_hash: {PASSWORD_HASH}\n"
    )
    return path


# Options -----------------------------------------------------------------------------------


def test_version() -> None:
    assert call("--version") == (0, f"msgd {msgd.__version__}\n", "")


def test_help_names_every_option() -> None:
    status, out, errors = call("--help")
    assert (status, errors) == (0, "")
    for option in (  # Python 3.13 and newer write the argument once
        "-c( FILE)?, --config FILE",
        "-p( N)?, --port N",
        "-d( DIR)?, --log-directory DIR",
        "--check",
        "--daemonize",
        "--pidfile FILE",
        "-v, --verbose",
        "--version",
        "hash-password",
    ):
        assert re.search(option, out), option


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--chec"], "unrecognized arguments: --chec"),
        (["--config"], "argument -c/--config: expected one argument"),
        (["-c", ""], "argument -c/--config: must not be empty"),
        (["-d", ""], "argument -d/--log-directory: must not be empty"),
        (
            ["--port", "x"],
            'argument -p/--port: must be a whole number from 0 to 65535, not "x"',
        ),
        (
            ["-p", "65536"],
            'argument -p/--port: must be a whole number from 0 to 65535, not "65536"',
        ),
    ],
)
def test_bad_usage(arguments: list[str], error: str) -> None:
    assert call(*arguments) == (2, "", f"msgd: {error}; see msgd --help\n")


def test_an_unknown_command() -> None:
    status, out, errors = call("frobnicate")
    assert (status, out) == (2, "")
    assert errors.startswith("msgd: argument COMMAND: invalid choice: 'frobnicate'")
    assert errors.count("\n") == 1


def test_check_shows_the_effective_configuration(config: Path, tmp_path: Path) -> None:
    assert call("--check", "-c", config, "--port", "7") == (
        0,
        f"""\
listen: ["127.0.0.1"]
port: 7
log_directory: {tmp_path / "archive"}
# password_hash is set, and not shown
sync: always
time_zone: local
keep_days: 0
compress: none
metrics_file: none
allow: []
terminate_from: []
proxy_from: []
tls:
  certificate: none
  key: none
  required: no
  client_ca: none
  clients: []
limits:
  clients: 4096
  clients_per_address: 0
  message_bytes: 65536
  handshake_seconds: 10
  idle_seconds: 0
  bare_quiet_ms: 50
  sessions: 10000
  keep_free: 1%
""",
        "",
    )
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize("more", [["--check"], [], ["--daemonize"]])
def test_a_bad_configuration(config: Path, more: list[str]) -> None:
    config.write_text("sync: always\nprot: 1\n")
    assert call("-c", config, *more) == (
        78,
        "",
        f"msgd: {config}:2: prot: unknown key; did you mean port?\n",
    )


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    assert call("-c", tmp_path / "none") == (
        78,
        "",
        f"msgd: {tmp_path / 'none'}: cannot be read: No such file or directory\n",
    )


def test_an_output_that_is_full(config: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >/dev/full', "sh", *COMMAND, "--check", "-c", str(config)],
        stderr=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 1
    assert done.stderr == "msgd: standard output: No space left on device\n"


def test_a_path_cannot_break_the_line(tmp_path: Path) -> None:
    path = f"{tmp_path}/two\nlines\x1b[2J\udcff"
    assert call("-c", path)[2] == (
        f"msgd: {tmp_path}/two\\nlines\\x1b[2J\\udcff: cannot be read: No such file or directory\n"
    )


def test_closed_standard_streams_are_not_taken_by_sockets(config: Path, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    command = [*COMMAND, "-c", str(config), "--pidfile", str(pidfile)]
    process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command])
    try:
        wait_for(lambda: pidfile.exists() and pidfile.read_text(), "the pid file")
        for number in range(3):
            assert os.readlink(f"/proc/{process.pid}/fd/{number}") == "/dev/null"
    finally:
        process.terminate()
        assert process.wait(SECONDS) in (0, -signal.SIGTERM)


def test_verbose_logs_connects_and_is_off_otherwise(start: Start) -> None:
    loud, quiet = start("", "--verbose"), start("")
    for daemon in (loud, quiet):
        with daemon.line_client() as client:
            origin = client.origin
            assert client.ask(b"MESG hello\n") == b"MESG hello\n"
        assert daemon.stop() == 0
        assert (origin in daemon.log) is (daemon is loud)


# hash-password -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "password"),
    [
        (b"secret\r\n", b"secret"),
        (b" two words \nthe rest is not read\n", b" two words "),
        ("pässwörd €".encode(), "pässwörd €".encode()),
        (b"x" * 1024 + b"\n", b"x" * 1024),
    ],
)
def test_a_password_by_a_pipe(line: bytes, password: bytes) -> None:
    status, out, errors = call("hash-password", stdin=line)
    assert (status, errors) == (0, "")
    assert out.count("\n") == 1
    check_hash(out.strip())
    assert verify(password, out.strip())


@pytest.mark.parametrize(
    "line", [b"\n", b"\r\n", b"tab\there\n", b"\x1b[A\n", b"\xff\n", b"x" * 1025, b"x" * 5000]
)
def test_a_password_that_no_client_could_send(line: bytes) -> None:
    assert not well_formed(line.strip(b"\r\n"))
    assert call("hash-password", stdin=line) == (
        1,
        "",
        "msgd: a password has 1 to 1024 bytes of UTF-8, and no control character\n",
    )


def test_no_password_at_all() -> None:
    assert call("hash-password") == (1, "", "msgd: no password was given on standard input\n")


@pytest.fixture
def terminal() -> Iterator[pexpect.spawn[str]]:
    """`msgd hash-password` at a terminal."""
    child = pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], "hash-password"], timeout=SECONDS, encoding="utf-8"
    )
    yield child
    child.close(force=True)


def answer(terminal: pexpect.spawn[str], *entries: str) -> str:
    """Type at the prompts, each when it is there; all that is shown behind the last."""
    for prompt, entry in zip(("Password: ", "The same again: "), entries, strict=False):
        terminal.expect_exact(prompt)
        terminal.send(entry)
    terminal.expect(pexpect.EOF)
    terminal.wait()
    assert terminal.before is not None
    return terminal.before


def test_a_password_at_a_terminal(terminal: pexpect.spawn[str]) -> None:
    shown = answer(terminal, "sécret\n", "sécret\n")
    assert terminal.exitstatus == 0
    assert verify("sécret".encode(), shown.split()[0])
    assert "cret" not in shown.replace(shown.split()[0], "")


def test_two_passwords_that_differ(terminal: pexpect.spawn[str]) -> None:
    shown = answer(terminal, "secret\n", "secrte\n")
    assert shown.strip() == "msgd: the two passwords differ: no hash is made"
    assert terminal.exitstatus == 1


def test_an_empty_password_at_a_terminal(terminal: pexpect.spawn[str]) -> None:
    assert "a password has 1 to 1024 bytes" in answer(terminal, "\n", "\n")
    assert terminal.exitstatus == 1


def test_end_of_file_at_a_terminal(terminal: pexpect.spawn[str]) -> None:
    assert answer(terminal, "\x04").strip() == "msgd: no password was given"
    assert terminal.exitstatus == 1


def test_bytes_at_a_terminal_that_are_no_text(terminal: pexpect.spawn[str]) -> None:
    for prompt in ("Password: ", "The same again: "):
        terminal.expect_exact(prompt)
        os.write(terminal.child_fd, b"\xff\n")
    assert "a password has 1 to 1024 bytes of UTF-8" in answer(terminal)
    assert terminal.exitstatus == 1


def test_interrupt_at_a_terminal(terminal: pexpect.spawn[str]) -> None:
    assert answer(terminal, "\x03").strip() == ""
    assert terminal.exitstatus == 1


# The background ----------------------------------------------------------------------------


class Background:
    """A msgd that was started with --daemonize, and is not our child."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.archive = config.parent / "archive"
        self.pidfile = config.parent / "msgd.pid"
        self._pids: list[int] = []

    def start(self, *more: str | Path, **options: Any) -> tuple[int, str, str]:
        result = call("-c", self.config, "--daemonize", "--pidfile", self.pidfile, *more, **options)
        if result[0] == 0:
            self._pids.append(self.pid)
        return result

    @property
    def pid(self) -> int:
        return int(self.pidfile.read_text())

    def alive(self) -> bool:
        return any(_alive(pid) for pid in self._pids)

    def stop(self) -> None:
        for pid in filter(_alive, self._pids):
            os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not self.alive(), "the daemon's end")

    def port(self) -> int:
        """The port that the process listens on, as the kernel knows it."""
        inodes = set()
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            inodes.add(os.readlink(link))
        for line in Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in inodes and fields[3] == "0A":
                return int(fields[1].split(":")[1], 16)
        raise AssertionError("it does not listen")


def _alive(pid: int) -> bool:
    """Whether the process runs; one that only waits for its parent has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def background(config: Path) -> Iterator[Background]:
    daemon = Background(config)
    yield daemon
    daemon.stop()


def test_when_the_starter_ends_the_daemon_serves(background: Background) -> None:
    assert background.start() == (0, "", "")
    with Client(("127.0.0.1", background.port())) as client:
        client.send(b"PING\nMESG hello\n")
        client.expect(b"PONG\nMESG hello\n")
    assert (background.archive / "current.log").read_text().endswith(" hello\n")
    assert (background.archive / ".msgd.lock").read_text().strip() == str(background.pid)


def test_the_daemon_has_left_its_starter(background: Background, tmp_path: Path) -> None:
    assert background.start(cwd=tmp_path, umask=0o077)[0] == 0
    pid = background.pid
    process = Path(f"/proc/{pid}")
    assert os.readlink(process / "cwd") == "/"
    assert os.getsid(pid) not in (os.getsid(0), pid)  # it can never get a terminal again
    assert all(os.readlink(process / "fd" / name) == "/dev/null" for name in "012")
    modes = {
        name: stat.S_IMODE((background.archive / name).stat().st_mode)
        for name in (".", "current.log", ".msgd.lock", ".msgd.state", ".msgd.final")
    }
    assert modes == {
        ".": 0o750,
        "current.log": 0o640,
        ".msgd.lock": 0o600,
        ".msgd.state": 0o600,
        ".msgd.final": 0o640,
    }


def test_it_inherits_no_descriptor(background: Background, tmp_path: Path) -> None:
    with (tmp_path / "inherited").open("w") as file:
        assert background.start(pass_fds=[file.fileno()])[0] == 0
        held = {os.readlink(link) for link in Path(f"/proc/{background.pid}/fd").iterdir()}
        assert file.name not in held


def test_relative_paths_mean_the_starter_s_directory(background: Background) -> None:
    """It re-reads its configuration on SIGHUP in another directory."""
    folder = background.config.parent
    status, _, errors = call(
        "-c", "msgd.yaml", "-d", "here", "--daemonize", "--pidfile", "msgd.pid", cwd=folder
    )
    assert (status, errors) == (0, "")
    background._pids.append(background.pid)
    assert (folder / "here" / "current.log").exists()
    old = folder / "here" / "2001-01-01.log"
    old.touch()
    background.config.write_text("listen: 127.0.0.1\nport: 0\nkeep_days: 1\nlimits: {clients: 1}\n")
    os.kill(background.pid, signal.SIGHUP)
    wait_for(lambda: not old.exists(), "the end of an old day")
    address = ("127.0.0.1", background.port())
    with Client(address) as first:
        first.send(b"PING\n")
        first.expect(b"PONG\n")
        wait_for(lambda: _is_busy(address), "the new limit")


def test_a_reload_does_not_go_to_another_directory(background: Background, tmp_path: Path) -> None:
    """That needs a restart; until then it must not delete anything there."""
    assert background.start()[0] == 0
    there = tmp_path / "there"
    there.mkdir()
    old = background.archive / "2001-01-01.log", there / "2001-01-01.log"
    for file in old:
        file.touch()
    background.config.write_text(f"log_directory: {there}\nkeep_days: 1\n")
    os.kill(background.pid, signal.SIGHUP)
    wait_for(lambda: not old[0].exists(), "the end of an old day")
    assert old[1].exists()


def _is_busy(address: tuple[str, int]) -> bool:
    with Client(address) as client, suppress(ConnectionError):
        return client.ask(b"PING\n").startswith(b"FAIL busy")
    return False  # reset before we could read what it said


def test_sigterm_stops_it_and_removes_the_pid_file(background: Background) -> None:
    assert background.start()[0] == 0
    os.kill(background.pid, signal.SIGTERM)
    wait_for(lambda: not background.alive(), "the daemon's end")
    assert not background.pidfile.exists()


def test_every_error_reaches_the_terminal(background: Background, config: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, out, errors = background.start("--port", str(port))
    assert (status, out) == (1, "")
    assert errors.startswith(f"msgd: cannot listen on 127.0.0.1:{port}: Address already in use")
    assert errors.count("\n") == 1
    # The command may end a moment before the process that it has started.
    wait_for(lambda: not background.pidfile.exists(), "the pid file's removal")


def test_a_second_daemon_is_refused_by_the_pid_file(background: Background, tmp_path: Path) -> None:
    assert background.start()[0] == 0
    pid = background.pid
    assert call(
        "-c", background.config, "-d", tmp_path / "other", "--pidfile", background.pidfile
    ) == (1, "", f"msgd: pid file {background.pidfile}: msgd is already running, pid {pid}\n")
    assert background.pid == pid


def test_a_second_daemon_is_refused_by_the_archive(background: Background) -> None:
    assert background.start()[0] == 0
    status, _, errors = call("-c", background.config)
    assert status == 1
    assert f"another msgd (pid {background.pid})" in errors


@pytest.mark.parametrize("left", ["", "4194304", "of this process"])
def test_a_stale_pid_file_is_replaced(background: Background, left: str) -> None:
    """Even one with the number of a process that lives now, and is not msgd."""
    background.pidfile.write_text(left.replace("of this process", f"{os.getpid()}\n"))
    assert background.start() == (0, "", "")
    assert background.pid != os.getpid()
    assert background.alive()


def test_a_killed_daemon_leaves_a_pid_file_that_is_replaced(background: Background) -> None:
    assert background.start()[0] == 0
    killed = background.pid
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: not background.alive(), "the daemon's end")
    assert background.pid == killed
    assert background.start() == (0, "", "")
    assert background.pid != killed


def test_a_file_that_holds_no_pid_is_left_alone(background: Background) -> None:
    background.pidfile.write_text("root:x:0:0\n")
    assert background.start() == (
        1,
        "",
        f"msgd: pid file {background.pidfile}: what is in this file is not a pid\n",
    )
    assert background.pidfile.read_text() == "root:x:0:0\n"


def test_a_pid_file_that_cannot_be_made(background: Background, tmp_path: Path) -> None:
    path = tmp_path / "none" / "pid"
    assert call("-c", background.config, "--daemonize", "--pidfile", path) == (
        1,
        "",
        f"msgd: pid file {path}: No such file or directory\n",
    )


def test_a_daemon_that_ends_before_it_serves(background: Background) -> None:
    """Nothing may be written to any file, so the pid file cannot be filled."""
    wrapper = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"]
    status, out, errors = background.start(wrapper=wrapper)
    assert (status, out) == (1, "")
    assert errors.endswith("msgd: could not become a daemon; the system's log says why\n")
    wait_for(lambda: not background.pidfile.exists(), "the pid file's removal")


def test_a_pid_file_that_is_removed_behind_our_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last holder ends between our open(2) and our flock(2): we must not hold its file."""
    path = tmp_path / "pid"
    open_file = os.open

    def open_late(*arguments: Any) -> int:
        fd = open_file(*arguments)
        path.unlink()
        monkeypatch.setattr(os, "open", open_file)
        return fd

    monkeypatch.setattr(os, "open", open_late)
    with PidFile(str(path)) as pidfile:
        pidfile.write()
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_the_pid_file_of_somebody_else_is_not_removed(background: Background) -> None:
    assert background.start()[0] == 0
    background.pidfile.unlink()
    background.pidfile.write_text("1\n")
    background.stop()
    assert background.pidfile.read_text() == "1\n"


def test_a_pid_file_in_the_foreground(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    daemon = start("", "--pidfile", str(path))
    assert path.read_text() == f"{daemon.pid}\n"
    with path.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert daemon.stop() == 0
    assert not path.exists()


# Its log -----------------------------------------------------------------------------------


@pytest.fixture
def syslog(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.bind(str(tmp_path / "log"))
        yield sock


def _can_unshare() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


# A /dev of its own, with nothing but what msgd needs and a log socket.
_DEV_LOG = (
    "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && "
    'ln -s "$1" /dev/log && shift && exec "$@"'
)


@pytest.mark.skipif(not _can_unshare(), reason="needs root for a mount namespace")
def test_the_daemon_logs_to_syslog(background: Background, syslog: socket.socket) -> None:
    wrapper = ["unshare", "--mount", "sh", "-c", _DEV_LOG, "sh", syslog.getsockname()]
    assert background.start(wrapper=wrapper) == (0, "", "")
    name = f"<30>msgd[{background.pid}]: "
    assert syslog.recv(1000).decode() == f"{name}listening on 127.0.0.1:{background.port()}"
    background.stop()
    assert syslog.recv(1000).decode() == f"{name}stopping: SIGTERM"


def test_syslog_gets_one_datagram_a_line(syslog: socket.socket) -> None:
    logger = logging.getLogger("msgd")
    try:
        log.to_syslog(syslog.getsockname())
        logger.info("listening on %s", "127.0.0.1:6743")
        assert syslog.recv(1000) == b"<30>msgd[%d]: listening on 127.0.0.1:6743" % os.getpid()
        logger.warning("a\nb\x1b")
        assert syslog.recv(1000) == b"<28>msgd[%d]: a\\nb\\x1b" % os.getpid()
        logger.error("bad")
        assert syslog.recv(1000).startswith(b"<27>msgd[")
    finally:
        _reset(logger)


def test_without_syslog_lines_are_lost_and_come_again_later(tmp_path: Path) -> None:
    logger = logging.getLogger("msgd")
    path = str(tmp_path / "log")
    try:
        log.to_syslog(path)
        logger.info("nobody reads this")
        logger.info("nor this")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(SECONDS)
            sock.bind(path)
            logger.info("now somebody does")
            dropped = b": lines of this log that were dropped, as nobody read it: 2"
            assert sock.recv(1000).endswith(dropped)
            assert sock.recv(1000).endswith(b": now somebody does")
    finally:
        _reset(logger)


def _reset(logger: logging.Logger) -> None:
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
    logging.raiseExceptions = True


def test_a_traceback_only_when_verbose(config: Path, tmp_path: Path) -> None:
    """For an error that nobody has foreseen, which only a broken server can show."""
    (tmp_path / "sitecustomize.py").write_text(
        "import msgd.server.loop\n"
        "def broken(*_): raise KeyError('why')\n"
        "msgd.server.loop.Server = broken\n"
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert call("-c", config, env=env) == (1, "", "msgd: KeyError: 'why'\n")
    status, _out, errors = call("-c", config, "-v", env=env)
    assert status == 1
    assert errors.startswith("msgd: KeyError: 'why'\nmsgd: Traceback ")
    assert all(line.startswith("msgd: ") for line in errors.splitlines())
