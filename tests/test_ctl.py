"""msgctl as its users meet it: real processes, real terminals, the real daemon."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from msgd.ctl.sources import LONGEST_TEXT
from tests.conftest import PASSWORD, SECONDS, Daemon, Start
from tests.ctl import (  # noqa: F401
    Terminal,
    command,
    ends,
    environment,
    fails,
    free_port_fixture,
    msgctl,
    start_send,
    terminal_fixture,
)
from tests.scripted import Part, dead, echo, greet, receive, says, scripted, silent


@pytest.fixture
def msgd(shared_msgd: Daemon) -> Daemon:
    return shared_msgd


LIMIT = 65536


# Options


@pytest.mark.parametrize(
    ("option", "seconds"),
    [
        *((["--timeout"], seconds) for seconds in ("nan", "inf", "1e400", "1000001", "-1")),
        *((["ping", "-i"], seconds) for seconds in ("nan", "-1")),
        *((["send", "--retry"], seconds) for seconds in ("inf", "1000001")),
    ],
)
def test_seconds_that_are_none(option: list[str], seconds: str) -> None:
    fails(msgctl(*option, seconds), 2, "Invalid value")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_standard_streams_that_are_closed(msgd: Daemon, closed: str) -> None:
    shell = f'exec "$@" {closed}'
    words = ["sh", "-c", shell, "sh", *command("send", "-p", msgd.port, "from a daemon")]
    done = subprocess.run(words, capture_output=True, timeout=SECONDS, env=environment())
    assert (done.returncode, done.stderr) == (0, b"")
    assert msgd.texts() == ["from a daemon"]


def test_ping_to_nobody(msgd: Daemon) -> None:
    process = subprocess.Popen(
        command("ping", "-p", msgd.port, "-i", "0.01"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(PYTHONUNBUFFERED="1"),
    )
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline().startswith(b"PING ")
    process.stdout.close()
    assert process.stderr.read() == b"msgctl: standard output was closed\n"
    process.stderr.close()
    assert process.wait(SECONDS) == 141


def test_an_error_that_cannot_be_said_keeps_its_status() -> None:
    for arguments, status in (["ping", "-c1", "-p", "1"], 69), (["pong"], 2):
        shell = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh", *command(*arguments)]
        assert subprocess.run(shell, env=environment()).returncode == status


def test_version_and_help() -> None:
    assert re.fullmatch(r"msgctl \d+\.\d+\.\d+\n", msgctl("--version").stdout)
    assert "terminate" in msgctl("--help").stdout
    assert "--password-stdin" in msgctl("terminate", "-h").stdout


def test_ctrl_c_while_it_starts(tmp_path: Path) -> None:
    """Most of the start is the import of click; here that is when Ctrl-C is pressed."""
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    code = "import msgd.ctl; msgd.ctl.main()"
    env = environment(PYTHONPATH=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    fails(done, 130, "interrupted")


def test_only_what_is_needed_is_imported() -> None:
    code = "import sys, msgd.ctl.commands; print(*sys.modules)"
    # Coverage, where the tests run under it, would follow the process and load much itself.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    loaded = set(done.stdout.split())
    assert "click" in loaded
    assert not {"yaml", "msgd.client", "msgd.config", "logging", "readline", "json"} & loaded


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing command"),
        (["pong"], "No such command"),
        (["ping", "--loud"], "No such option"),
        (["ping", "-p", "65536"], "65536 is not in the range"),
        (["--timeout", "0", "ping"], "0.0 is not in the range"),
        (["send", "text", "--file", "/dev/null"], "either TEXT or --file"),
        (["send", "--file", "/nonexistent"], "does not exist"),
        (["send", "--file", "/tmp"], "is a directory"),
    ],
)
def test_bad_usage(arguments: list[str], words: str) -> None:
    fails(msgctl(*arguments), 2, words)


def test_common_options_stand_anywhere_and_the_last_word_counts(msgd: Daemon) -> None:
    right, wrong = ("-p", msgd.port), ("-p", 1)
    assert msgctl(*right, "send", "a").returncode == 0
    assert msgctl("send", *right, "b").returncode == 0
    assert msgctl(*wrong, "send", *right, "c").returncode == 0
    assert msgctl("send", "d", MSGCTL_PORT=str(msgd.port), MSGCTL_HOST="localhost").returncode == 0
    assert msgctl("send", *right, "e", MSGCTL_PORT="1").returncode == 0
    assert msgctl(*right, "send", "f", MSGCTL_PORT="1").returncode == 0
    assert msgd.texts() == list("abcdef")


def test_the_port_comes_from_the_configuration_of_this_machine(
    msgd: Daemon, tmp_path: Path
) -> None:
    config = tmp_path / "etc.yaml"
    config.write_text(f"port: {msgd.port}\n")
    assert msgctl("send", "a", config=str(config)).stdout == "a\n"
    fails(msgctl("send", "b", "-p", "1", config=str(config)), 69, "127.0.0.1:1")
    config.write_text("prot: 1\n")
    done = msgctl("ping", "-c1", "-H", "nowhere.invalid", config=str(config))
    assert "prot" in done.stderr


# Ping


def test_ping_prints_as_ping_does(msgd: Daemon) -> None:
    done = msgctl("ping", "-c", 3, "-i", 0, "-p", msgd.port)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"PING 127.0.0.1:{msgd.port}"
    for sequence in (1, 2, 3):
        pattern = rf"PONG from 127.0.0.1:{msgd.port}: seq={sequence} time=\d+\.\d{{3}} ms"
        assert re.fullmatch(pattern, lines[sequence])
    assert re.fullmatch(r"3 packets transmitted, 3 received, 0% packet loss, time \d+ms", lines[-2])
    assert re.fullmatch(r"rtt min/avg/max/mdev = (\d+\.\d{3}/){3}\d+\.\d{3} ms", lines[-1])


def test_ping_in_json(msgd: Daemon) -> None:
    lines = msgctl("ping", "-c2", "-i0", "--json", "-p", msgd.port).stdout.splitlines()
    first, second, last = map(json.loads, lines)
    assert (first["seq"], second["seq"]) == (1, 2)
    assert first["time_ms"] > 0
    assert (last["transmitted"], last["received"]) == (2, 2)
    assert last["min_ms"] <= last["avg_ms"] <= last["max_ms"]


def test_ping_is_ended_with_its_summary_by_an_interrupt(msgd: Daemon) -> None:
    terminal = pexpect.spawn(
        command("ping", "-p", msgd.port)[0],
        command("ping", "-p", msgd.port)[1:],
        encoding="utf-8",
        timeout=SECONDS,
    )
    terminal.expect("seq=1")
    terminal.sendintr()
    terminal.expect(r"1 packets transmitted, 1 received, 0% packet loss")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_ping_to_nobody_at_all(free_port: int) -> None:
    fails(msgctl("ping", "-p", free_port), 69, "nobody listens")
    done = msgctl("ping", "-c1", "--retry", "0.3", "-p", free_port)
    assert done.returncode == 69
    assert "trying again for 0.3 seconds" in done.stderr


def test_ping_goes_on_after_a_loss() -> None:
    with scripted(says(b"PONG\n", b""), says(b"PONG\n")) as port:
        done = msgctl("ping", "-i0", "-c3", "-p", port)
    assert done.returncode == 69
    assert re.fullmatch("msgctl: seq=2: (the server closed|the connection broke).*\n", done.stderr)
    assert "3 packets transmitted, 2 received, 33.33% packet loss" in done.stdout
    with scripted(says(b"PONG\n", b"")) as port:
        done = msgctl("ping", "-i0", "-c3", "--json", "-p", port)
    lost = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("seq") for line in lost] == [1, 2, 3, None]
    assert "nobody listens" in lost[2]["error"]
    assert (lost[-1]["transmitted"], lost[-1]["received"]) == (3, 1)


def test_ping_takes_no_closing_of_an_idle_connection_for_a_loss(start: Start) -> None:
    daemon = start("limits: {idle_seconds: 0.05}\nlisten: 127.0.0.1\n")
    done = msgctl("ping", "-i0.3", "-c3", "-p", daemon.port)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 packets transmitted, 3 received, 0% packet loss" in done.stdout


def slow(connection: socket.socket) -> None:
    """A server far away."""
    greet(connection)
    while receive(connection, 5):
        time.sleep(0.2)
        connection.sendall(b"PONG\n")


def test_ping_has_a_deadline(msgd: Daemon) -> None:
    done = msgctl("ping", "-i1", "-w1.5", "-p", msgd.port)  # half a second for the last answer
    assert (done.returncode, done.stderr) == (0, "")
    with scripted(silent) as port:
        done = msgctl("ping", "-w0.3", "-p", port)
    assert done.returncode == 69
    assert "1 packets transmitted, 0 received, 100% packet loss" in done.stdout
    with scripted(slow) as port:  # nothing is asked whose answer would come too late
        done = msgctl("ping", "-i0", "-w1", "-p", port)
    assert (done.returncode, done.stderr) == (0, "")
    with dead() as port:
        fails(msgctl("ping", "-w0.3", "-p", port), 69, r".*: no answer for 0\.3 seconds")
        done = msgctl("ping", "-w0.3", "--retry", "60", "-p", port)
    fails(done, 69, "no answer for 0.3 seconds")  # and no time is left to try again


# Send


def test_words_are_one_message(msgd: Daemon) -> None:
    done = msgctl("send", "-p", msgd.port, "good", "mörning", "\x1b[1m")
    assert (done.returncode, done.stdout, done.stderr) == (0, "good mörning \\x1b[1m\n", "")
    assert msgctl("send", "-p", msgd.port, "two\nlines\n").stdout == "two\nlines\n"
    assert msgctl("send", "-p", msgd.port, "").stdout == "\n"
    assert msgctl("send", "-qp", msgd.port, "quiet").stdout == ""
    assert msgctl("send", "-p", msgd.port, os.fsdecode(b"bad \xff")).stdout == "bad \\xff\n"
    assert msgd.texts() == ["good mörning \\x1b[1m", "two\nlines", "", "quiet", "bad \\xff"]


def test_each_line_of_the_input_is_a_message(msgd: Daemon) -> None:
    lines = b"one\r\n\ntw\0o\n\xff\rx\nlast"
    for dash in ([], ["-"]):
        done = msgctl("send", "-p", msgd.port, *dash, stdin=lines)
        assert done.stdout == "one\n\ntw\\x00o\n\\xff\\x0dx\nlast\n"
        assert done.stderr == "msgctl: 5 confirmed, 0 refused, 0 not known\n"
    assert msgd.texts() == ["one", "", "tw\\x00o", "\\xff\\x0dx", "last"] * 2


def test_whole_input_is_one_message(msgd: Daemon) -> None:
    done = msgctl("send", "-p", msgd.port, "--whole", stdin=b"one\r\ntwo\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\ntwo\n", "")
    assert msgd.texts() == ["one\ntwo"]


def test_files_one_after_the_other(msgd: Daemon, tmp_path: Path) -> None:
    first, empty, second = (tmp_path / name for name in ("first", "empty", "second"))
    first.write_text("a\nb")
    empty.touch()
    second.write_text("c\n")
    files = [word for path in (first, empty, second) for word in ("--file", path)]
    done = msgctl("send", "-p", msgd.port, *files, "-f", "-", stdin=b"d\n")
    assert done.stdout == "a\nb\nc\nd\n"
    assert msgctl("send", "--whole", "-p", msgd.port, *files).stdout == "a\nb\n\nc\n"
    assert msgd.texts() == ["a", "b", "c", "d", "a\nb", "", "c"]


def test_a_hundred_thousand_lines_from_a_pipe(msgd: Daemon) -> None:
    lines = b"".join(b"line %d of a hundred thousand\n" % n for n in range(100_000))
    done = msgctl("send", "-p", msgd.port, stdin=lines)
    assert done.stdout.encode() == lines
    assert done.stderr == "msgctl: 100000 confirmed, 0 refused, 0 not known\n"
    assert "\n".join(msgd.texts()).encode() + b"\n" == lines


def test_lines_over_the_limit_are_named_and_the_rest_goes_on(msgd: Daemon, tmp_path: Path) -> None:
    long = b"x" * (LIMIT + 1)
    lines = tmp_path / "lines"
    lines.write_bytes(b"a\n%b\nb\n%b\n%b\nc\n%b" % (long, long, long, b"y" * 10_000_000))
    done = msgctl("send", "-p", msgd.port, "-f", lines)
    assert (done.returncode, done.stdout) == (1, "a\nb\nc\n")
    last = done.stderr.splitlines()[-1]
    assert last == "msgctl: 3 confirmed, 4 refused, 0 not known"
    assert set(re.findall(r":(\d+)(?: to \S+:(\d+))?: refused: message too long", done.stderr)) in (
        {("2", ""), ("4", "5"), ("7", "")},
        {("2", ""), ("4", ""), ("5", ""), ("7", "")},
    )
    assert msgd.texts() == ["a", "b", "c"]


def test_a_line_too_long_for_any_memory_is_not_sent(start: Start) -> None:
    """Nor is it cut: this server would take the beginning of it."""
    daemon = start("limits: {message_bytes: 1048576}\nlisten: 127.0.0.1\n")
    long = b"x" * (LONGEST_TEXT + 100_000)
    done = msgctl("send", "-p", daemon.port, stdin=b"a\n%b\nb\n%b\r\nc\n%b" % (long, long, long))
    assert (done.returncode, done.stdout) == (1, "a\nb\nc\n")
    assert done.stderr.splitlines() == [
        *(f"msgctl: line {n}: not sent: longer than {LONGEST_TEXT} bytes" for n in (2, 4, 6)),
        "msgctl: 3 confirmed, 3 refused, 0 not known",
    ]
    reason = f"longer than {LONGEST_TEXT} bytes"
    objects = msgctl("send", "--json", "-p", daemon.port, stdin=b"%b\nb\n" % long).stdout
    assert [json.loads(line) for line in objects.splitlines()] == [
        {"line": 1, "status": "refused", "reason": reason},
        {"line": 2, "status": "confirmed", "text": "b"},
        {"confirmed": 1, "refused": 1, "unknown": 0},
    ]
    done = msgctl("send", "--whole", "-p", daemon.port, "-f", "/dev/zero")  # which never ends
    assert done.returncode == 1
    assert f"/dev/zero: not sent: longer than {LONGEST_TEXT} bytes" in done.stderr
    done = msgctl("send", "--whole", "-p", daemon.port, stdin=long)
    assert (done.returncode, done.stdout) == (1, "")
    assert daemon.texts() == ["a", "b", "c", "b"]


def test_a_refused_text(start: Start) -> None:
    daemon = start("limits: {message_bytes: 5}\nlisten: 127.0.0.1\n")
    done = msgctl("send", "-p", daemon.port, "too long")
    fails(done, 1, "the message: refused: message too long")


def test_json(msgd: Daemon, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b"a\n" + b"x" * (LIMIT + 1) + b"\n\x9b")
    done = msgctl("send", "--json", "-p", msgd.port, "-f", lines)
    where = {"file": str(lines)}
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {**where, "line": 1, "status": "confirmed", "text": "a"},
        {**where, "line": 2, "status": "refused", "reason": "message too long"},
        {**where, "line": 3, "status": "confirmed", "text": "\\x9b"},
        {"confirmed": 2, "refused": 1, "unknown": 0},
    ]
    assert done.returncode == 1
    only_the_end = msgctl("send", "--json", "-q", "-p", msgd.port, "a\nb").stdout
    assert json.loads(only_the_end) == {"confirmed": 1, "refused": 0, "unknown": 0}


def test_a_pipe_that_pauses_gets_its_echoes_at_once(msgd: Daemon) -> None:
    process, stdin, stdout = start_send("-p", msgd.port)
    for line in (b"first\n", b"second\n"):
        stdin.write(line)
        stdin.flush()
        assert stdout.readline() == line
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert errors == (
        b"msgctl: interrupted: 2 confirmed, 0 refused, 0 not known;"
        b" first without confirmation: line 3\n"
    )


def test_a_server_that_applies_backpressure_cannot_deadlock_it() -> None:
    """This one does not read while it cannot write; 20 MB are more than the buffers between."""
    lines = (b"x" * 99 + b"\n") * 200_000
    with scripted(echo) as port:
        done = msgctl("send", "-p", port, stdin=lines)
    assert done.stdout.encode() == lines
    assert done.stderr == "msgctl: 200000 confirmed, 0 refused, 0 not known\n"


def test_a_server_killed_in_the_middle(msgd: Daemon, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b"".join(b"line %d %080d\n" % (n, n) for n in range(1, 500_001)))
    process, stdin, stdout = start_send("-p", msgd.port, "-f", lines)
    stdin.close()
    echoed = stdout.readline()
    msgd.kill()
    echoed += stdout.read()
    assert process.stderr
    errors = process.stderr.read()
    assert process.wait(SECONDS) == 69
    found = re.fullmatch(
        rb"msgctl: [^:]*: (\d+) confirmed, 0 refused, (\d+) not known;"
        rb" first without confirmation: .*:(\d+)\n",
        errors,
    )
    assert found, errors
    confirmed, unknown, first = map(int, found.groups())
    assert echoed.count(b"\n") == confirmed == first - 1
    archived = msgd.archive().count(b"\n")
    assert confirmed <= archived <= confirmed + unknown
    stdout.close()
    process.stderr.close()


def test_retry_ends(free_port: int) -> None:
    with scripted(says(b"SESS 0\n", b"MESG a\n")) as port:
        done = msgctl("send", "--retry", "0.2", "-p", port, stdin=b"a\nb\n")
    assert done.returncode == 69
    assert "nobody listens" in done.stderr.splitlines()[-1]
    assert "1 confirmed, 0 refused, 1 not known" in done.stderr.splitlines()[-1]


def test_quiet_says_nothing_of_an_outage_that_passes() -> None:
    answers = says(b"SESS 0\n"), says(b"SESS 0\n", b"MESG a\n")
    with scripted(*answers) as port:
        done = msgctl("send", "-q", "--retry", "20", "-p", port, "a")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("stdin", [b"a\nb\n", b"line\n" * 2_000_000], ids=["little", "much"])
def test_a_server_that_stops_reading(stdin: bytes) -> None:
    with scripted(silent) as port:
        done = msgctl("send", "--timeout", "0.2", "-p", port, stdin=stdin)
    fails(done, 69, "no answer for 0.2 seconds: 0 confirmed, .* confirmation: line 1")


def test_a_text_without_an_answer() -> None:
    with scripted(says(b"")) as port:
        fails(msgctl("send", "-p", port, "a"), 69, "the message is not confirmed")


@pytest.mark.parametrize("verb", [["send", "a"], ["ping"], ["terminate", "--password-stdin"]])
def test_no_connection(verb: list[str], free_port: int) -> None:
    fails(msgctl(*verb, "-p", free_port), 69, "nobody listens")
    fails(msgctl(*verb, "-H", "nowhere.invalid"), 69, "no host called 'nowhere.invalid'")

    def part(connection: socket.socket) -> None:
        connection.sendall(b"220 mail.example ESMTP \x1b[2J\r\n")
        receive(connection, 100)

    with scripted(part) as port:
        fails(msgctl(*verb, "-p", port), 69, "is not msgd")


def test_a_closed_standard_output_stops_the_sending(msgd: Daemon) -> None:
    process, stdin, stdout = start_send("-p", msgd.port)
    stdin.write(b"first\n")
    stdin.flush()
    assert stdout.readline() == b"first\n"
    stdout.close()
    stdin.write(b"second\n")
    stdin.flush()
    assert process.stderr
    errors = process.stderr.read()
    assert process.wait(SECONDS) == 141
    assert errors.startswith(b"msgctl: standard output was closed: 2 confirmed, 0 refused")
    assert msgd.texts() == ["first", "second"]
    for stream in (stdin, process.stderr):
        stream.close()


def test_a_full_standard_output(msgd: Daemon) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("send", "-p", msgd.port, "a"), stdout=full, stderr=subprocess.PIPE, text=True
        )
    fails(done, 1, "standard output cannot be written .*: the message is confirmed")


# Terminate


def test_terminate_with_a_password_from_a_pipe(msgd: Daemon) -> None:
    wrong = msgctl("terminate", "--password-stdin", "-p", msgd.port, stdin=b"wrong\n")
    fails(wrong, 77, "wrong password")
    fails(
        msgctl("terminate", "--password-stdin", "-p", msgd.port, stdin=b"\x07\n"), 77, "no server"
    )
    right = msgctl("terminate", "--password-stdin", "-p", msgd.port, stdin=f"{PASSWORD}\n".encode())
    assert (right.returncode, right.stderr) == (0, "")
    assert "the server stops" in right.stdout
    assert msgd.wait() == 0


# At a terminal


def test_terminate_asks_three_times(msgd: Daemon, terminal: Terminal) -> None:
    at = terminal("terminate", "-p", msgd.port)
    for wrong in ("wrong", "wronger", ""):
        at.expect("Password: ")
        at.sendline(wrong)
    status, said = ends(at)
    assert status == 77
    assert "wrong" not in said.replace("wrong password", "")
    at = terminal("terminate", "-p", msgd.port)
    at.expect("Password: ")
    at.sendline(PASSWORD)
    assert ends(at)[0] == 0
    assert msgd.wait() == 0


def test_terminate_is_left(msgd: Daemon, terminal: Terminal) -> None:
    for leave in ("\x03", "\x04"):
        at = terminal("terminate", "-p", msgd.port)
        at.expect("Password: ")
        at.send(leave)
        status, said = ends(at)
        assert status == 130
        assert "msgctl: interrupted" in said


def test_terminate_without_a_terminal(msgd: Daemon) -> None:
    done = subprocess.run(
        command("terminate", "-p", msgd.port),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True,
    )  # fmt: skip
    fails(done, 2, "use --password-stdin")


def test_a_conversation(msgd: Daemon, terminal: Terminal, tmp_path: Path) -> None:
    at = terminal("send", "-p", msgd.port, NO_COLOR="1")
    at.expect("msgd> ")
    at.sendline("hello")
    at.expect("hello\r\n.*hello\r\n")
    at.expect("msgd> ")
    at.send("\x1b[A again\r")  # the arrow up brings the line back
    at.expect("hello again\r\n.*hello again\r\n")
    at.sendline("bell \x16\x07")  # Ctrl-V takes the next key as it is
    at.expect(r"bell \\x07\r\n")
    at.sendline("terminate")
    at.expect("Password: ")
    at.sendline("wrong")
    at.expect("wrong password")
    at.expect("msgd> ")
    at.sendline("terminate")
    at.expect("Password: ")
    at.sendline(PASSWORD)
    status, said = ends(at)
    assert status == 0
    assert "the server stops" in said
    assert msgd.wait() == 0
    assert msgd.texts() == ["hello", "hello again", "bell \\x07"]
    history = tmp_path / "msgctl" / "history"
    assert history.read_text().splitlines()[:2] == ["hello", "hello again"]
    assert history.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("leave", ["\x03", "\x04"])
def test_a_conversation_is_left_and_the_server_goes_on(
    msgd: Daemon, terminal: Terminal, leave: str
) -> None:
    at = terminal("send", "-p", msgd.port, NO_COLOR="")
    at.expect("\x1b\\[1;36mmsgd> \x1b\\[0m")
    at.sendline("in colour")
    at.expect("\x1b\\[32min colour")
    at.expect("msgd> ")
    at.send(leave)
    assert ends(at)[0] == 0
    assert msgctl("ping", "-c1", "-p", msgd.port).returncode == 0


def test_a_conversation_with_a_server_that_goes(terminal: Terminal) -> None:
    with scripted(says(b"MESG a\n", b"FAIL no\n", b"")) as port:
        at = terminal("send", "-p", port, NO_COLOR="1")
        for line, answer in (("a", "a\r\n"), ("b", "msgctl: refused: no"), ("c", "msgctl: ")):
            at.expect("msgd> ")
            at.sendline(line)
            at.expect(answer)
        at.expect(": the last line is not confirmed\r\n")
        at.expect("msgd> ")
        at.sendcontrol("d")
        assert ends(at)[0] == 69


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"},
        {"XDG_STATE_HOME": "", "HOME": "nowhere"},
    ],
    ids=["C", "ascii", "homeless"],
)
def test_a_conversation_in_a_poor_environment(
    msgd: Daemon, terminal: Terminal, env: dict[str, str]
) -> None:
    at = terminal("send", "-p", msgd.port, NO_COLOR="1", **env)
    for text in ("€ and 😀", "日本", "é"):
        at.expect("msgd> ")
        at.sendline(text)
    at.expect("msgd> ")
    at.sendcontrol("d")
    assert ends(at)[0] == 0
    assert msgd.texts() == ["€ and 😀", "日本", "é"]


def test_a_quiet_conversation_shows_no_echo(msgd: Daemon, terminal: Terminal) -> None:
    at = terminal("send", "-q", "-p", msgd.port, NO_COLOR="1")
    at.expect("msgd> ")
    at.sendline("hello")
    at.expect("hello\r\n")
    at.expect("msgd> ")
    assert "hello" not in (at.before or "")
    assert msgd.texts() == ["hello"]
    refused = terminal("send", "--json", "-p", msgd.port)
    assert "--json is not for a conversation" in ends(refused)[1]


def test_ctrl_c_while_an_echo_is_awaited(terminal: Terminal) -> None:
    with scripted(silent) as port:
        at = terminal("send", "-p", port, NO_COLOR="1")
        at.expect("msgd> ")
        at.sendline("two")
        at.expect("two\r\n")
        at.sendintr()
        at.expect("interrupted: the last line is not confirmed")
        assert ends(at)[0] == 130


def test_nobody_reads_what_a_conversation_says(msgd: Daemon) -> None:
    shell = f"exec 3> >(:); wait $!; exec {shlex.join(command('send', '-p', msgd.port))} >&3"
    at = pexpect.spawn("bash", ["-c", shell], timeout=SECONDS, env=environment())
    at.expect("msgctl: standard output was closed")
    at.expect(pexpect.EOF)
    at.close()
    assert at.exitstatus == 141


def test_nobody_reads_that_the_password_was_accepted(msgd: Daemon) -> None:
    shell = f"{shlex.join(command('terminate', '--password-stdin', '-p', msgd.port))} | true"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell], input=PASSWORD, env=environment(), text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert done.stderr.splitlines() == [
        "msgctl: password accepted: the server stops",
        "msgctl: standard output was closed",
    ]
    assert done.returncode == 141
    assert msgd.wait() == 0


def test_a_conversation_waits_for_its_server(terminal: Terminal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    at = terminal("send", "--retry", "60", "-p", port)
    at.expect("trying again for 60 seconds")
    with scripted(says(), port=port):
        at.expect("msgd> ")
        at.sendcontrol("d")
        assert ends(at)[0] == 0


def test_a_conversation_goes_on_where_no_password_can_be_verified(terminal: Terminal) -> None:
    with scripted(says(b"FAIL not now\n", b"MESG a\n")) as port:
        at = terminal("send", "-p", port, NO_COLOR="1")
        for line, answer in (
            ("terminate", "Password: "),
            ("secret", "refused: not now"),
            ("a", "a\r\na\r\n"),
        ):
            at.sendline(line)
            at.expect(answer)
        at.sendcontrol("d")
        assert ends(at)[0] == 1


def test_bytes_at_the_prompt_that_are_no_text(msgd: Daemon, terminal: Terminal) -> None:
    at = terminal("terminate", "-p", msgd.port, LC_ALL="C.UTF-8")
    for _ in range(3):
        at.expect("Password: ")
        os.write(at.child_fd, b"\xff\n")
        at.expect("no server has such a password")
    assert ends(at)[0] == 77


def test_a_password_that_cannot_be_verified() -> None:
    with scripted(says(b"FAIL not now\n")) as port:
        done = msgctl("terminate", "--password-stdin", "-p", port, stdin=b"secret\n")
    fails(done, 1, "the server refused it: not now")


def test_a_file_that_goes_while_another_is_sent(msgd: Daemon, tmp_path: Path) -> None:
    """What was read before is sent and confirmed all the same."""
    first, second = tmp_path / "first", tmp_path / "second"
    os.mkfifo(first)
    second.touch()
    arguments = "send", "-p", msgd.port, "-f", first, "-f", second
    process = subprocess.Popen(
        command(*arguments), env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with first.open("w") as lines:
        second.unlink()
        lines.write("a\nb\n")
    out, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (1, "a\nb\n")
    assert errors == (
        f"msgctl: {second}: No such file or directory\n"
        "msgctl: 2 confirmed, 0 refused, 0 not known\n"
    )


def test_progress_is_shown_on_a_terminal_only(
    msgd: Daemon, terminal: Terminal, tmp_path: Path
) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b"x" * 99 + b"\n" + b"y\n" * 100_000)
    at = terminal("send", "-q", "-p", msgd.port, "-f", lines)
    at.expect(r"\[#* *\] +\d+%  [\d,]+ messages  [\d,]+/s  \d+:\d\d left")
    status, said = ends(at)
    assert status == 0
    assert said.endswith("\r\x1b[K")
    at = terminal("send", "-p", msgd.port, "-f", lines)
    at.expect(" messages ")
    assert ends(at)[1].endswith("msgctl: 100001 confirmed, 0 refused, 0 not known\r\n")
    assert "left" not in msgctl("send", "-p", msgd.port, "-f", lines).stderr


def test_nothing_from_the_network_steers_the_terminal(terminal: Terminal) -> None:
    """What listens there is not msgd: its replies hold what they please."""
    with scripted(says(b"FAIL \x1b[2Jx\xc2\x9b\n")) as port:
        status, said = ends(terminal("send", "-p", port, "a"))
    assert status == 1
    assert "\x1b" not in said
    parts: list[Part] = [echo]
    with scripted(*parts) as port:
        status, said = ends(terminal("send", "-p", port, "\x1b[2Jx"))
    assert status == 69
    assert "\x1b" not in said
