"""msgctl send in a session: each message is archived once, whatever breaks."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from msgd.archive.reader import read_days
from tests.campaign import sessions
from tests.conftest import SECONDS, Daemon, Start
from tests.ctl import Terminal, ends, fails, msgctl, start_send, terminal_fixture  # noqa: F401
from tests.scripted import Part, greet, receive, scripted


def session(
    last: int, *exchange: tuple[bytes, bytes], name: bytes = rb"\S+", stays: bool = False
) -> Part:
    """Greets, tells this number, then takes and says as written, and closes, or waits for it."""

    def part(connection: socket.socket) -> None:
        greet(connection)
        opened = b""
        while not opened.endswith(b"\n"):
            opened += receive(connection, 1)
        assert re.fullmatch(rb"SESS %b\n" % name, opened), opened
        connection.sendall(b"SESS %d\n" % last)
        for expected, answer in exchange:
            assert receive(connection, len(expected)) == expected
            connection.sendall(answer)
        if stays:
            assert connection.recv(1) == b""

    return part


def test_retry_goes_on_behind_the_last_number_of_the_archive() -> None:
    """Message b was archived, and its echo lost: the number tells so, and its text is known."""
    lines = b"a\nb\x07\nc\n"
    wire = b"MESG a\nMESG b\x07\nMESG c\n"
    first = session(0, (wire, b"MESG a\n"))
    second = session(2, (b"MESG c\n", b"MESG c\n"))
    with scripted(first, second) as port:
        done = msgctl("send", "--retry", "20", "-p", port, stdin=lines)
    assert (done.returncode, done.stdout) == (0, "a\nb\\x07\nc\n")
    assert "; trying again for 20 seconds" in done.stderr
    assert "twice" not in done.stderr
    assert done.stderr.endswith("msgctl: 3 confirmed, 0 refused, 0 not known\n")


def test_the_session_of_a_run_keeps_its_name_and_no_two_runs_have_the_same() -> None:
    names = []

    def part(connection: socket.socket) -> None:
        greet(connection)
        names.append(receive(connection, 22))
        connection.sendall(b"SESS %d\n" % (len(names) == 2))
        assert receive(connection, 7) == (b"MESG a\n" if len(names) != 2 else b"")
        if len(names) == 3:
            connection.sendall(b"MESG a\n")

    with scripted(part, part, lambda connection: part(connection)) as port:
        for _ in range(2):
            assert msgctl("send", "--retry", "20", "-p", port, "a").stdout == "a\n"
    assert all(re.fullmatch(rb"SESS [0-9a-f]{16}\n", name) for name in names)
    assert names[0] == names[1] != names[2]


def test_run_again_it_skips_what_is_there() -> None:
    done = {}
    for options in ([], ["--json"], ["-q"]):
        with scripted(session(2, (b"MESG c\n", b"MESG c\n"), name=b"nightly")) as port:
            arguments = ["send", "--session", "nightly", *options, "-p", port]
            done[" ".join(options)] = msgctl(*arguments, stdin=b"a\nb\nc\n")
    assert {run.returncode for run in done.values()} == {0}
    assert done[""].stdout == "c\n"
    assert done[""].stderr.splitlines() == [
        "msgctl: session nightly: 2 were there already",
        "msgctl: 3 confirmed, 0 refused, 0 not known",
    ]
    assert [json.loads(line) for line in done["--json"].stdout.splitlines()] == [
        {"line": 1, "status": "confirmed", "text": "a", "already": True},
        {"line": 2, "status": "confirmed", "text": "b", "already": True},
        {"line": 3, "status": "confirmed", "text": "c"},
        {"confirmed": 3, "refused": 0, "unknown": 0, "already": 2},
    ]
    assert (done["-q"].stdout, done["-q"].stderr) == ("", "")


def test_what_this_run_has_sent_was_not_there_already() -> None:
    first = session(0, (b"MESG a\nMESG b\n", b""))
    with scripted(first, session(2, stays=True)) as port:
        done = msgctl("send", "--session", "x", "--retry", "20", "-p", port, stdin=b"a\nb\n")
    assert (done.returncode, done.stdout) == (0, "a\nb\n")
    assert "already" not in done.stderr


def test_a_session_that_holds_more_than_the_input() -> None:
    with scripted(session(2, stays=True)) as port:
        done = msgctl("send", "--session", "x", "-p", port, stdin=b"a\n")
    assert done.returncode == 1
    assert "holds 2 messages" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (session(0, stays=True), "has lost the session"),
        (session(3, stays=True), "somebody else writes"),
    ],
)
def test_what_no_retry_mends(second: Part, words: str) -> None:
    first = session(0, (b"MESG a\nMESG b\n", b"MESG a\n"))
    with scripted(first, second) as port:
        done = msgctl("send", "--retry", "20", "-p", port, stdin=b"a\nb\n")
    assert done.returncode == 1
    assert words in done.stderr.splitlines()[-1]
    assert done.stderr.endswith("1 confirmed, 0 refused, 1 not known; "
                                "first without confirmation: line 2\n")  # fmt: skip


def old(*exchange: tuple[bytes, bytes]) -> Part:
    def part(connection: socket.socket) -> None:
        greet(connection)
        for expected, answer in exchange:
            assert receive(connection, len(expected)) == expected
            connection.sendall(answer)

    return part


def knows_none(connection: socket.socket) -> None:
    greet(connection)
    assert receive(connection, 5) == b"SESS "
    connection.sendall(b"FAIL unknown header\n")


def test_an_old_server_gets_messages_without_a_session() -> None:
    first = old((b"MESG a\nMESG b\n", b"MESG a\n"))
    second = old((b"MESG b\n", b"MESG b\n"))
    with scripted(knows_none, first, second) as port:
        done = msgctl("send", "--retry", "20", "-p", port, stdin=b"a\nb\n")
    assert (done.returncode, done.stdout) == (0, "a\nb\n")
    assert "line 2 sent once more" in done.stderr
    assert "perhaps twice in the archive" in done.stderr


def test_an_old_server_cannot_have_a_named_session() -> None:
    with scripted(knows_none) as port:
        done = msgctl("send", "--session", "x", "-p", port, stdin=b"a\n")
    fails(done, 1, "has no sessions")


@pytest.mark.parametrize("name", ["", "-x", "a/b", "é", "x" * 65])
def test_what_is_no_name_of_a_session(name: str) -> None:
    fails(msgctl("send", f"--session={name}", "a"), 2, "no session is called")


def test_a_text_and_files_in_a_session(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("a\nb\n")
    second.write_text("c\nd")
    files = ["-f", first, "-f", second]
    with scripted(session(3, (b"MESG d\n", b"MESG d\n"))) as port:
        assert msgctl("send", "--session", "x", *files, "-p", port).stdout == "d\n"
    whole = session(1, (b"MORE c\nMESG d\n", b"MORE c\nMESG d\n"))
    with scripted(whole) as port:
        assert msgctl("send", "--session", "x", "--whole", *files, "-p", port).stdout == "c\nd\n"
    with scripted(session(1, stays=True)) as port:
        done = msgctl("send", "--session", "x", "-p", port, "hello")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "msgctl: session x: 1 was there already\n"


@pytest.mark.parametrize("breaks", [2, pytest.param(6, marks=pytest.mark.thorough)])
def test_run_again_until_it_succeeds_under_kills_of_both_ends(
    start: Start, tmp_path: Path, breaks: int
) -> None:
    """The long form is in the campaign."""
    folder = tmp_path / "killed"
    outcome = sessions.campaign(
        start,
        folder,
        lambda so_far: so_far.breaks < breaks,
        seed=7,
        lines=2500 * breaks,
        longest=0.03,
    )
    assert outcome.lines > 0


def sent(msgd: Daemon) -> list[tuple[str, int, str]]:
    """Session, number and text of each record."""
    return [
        (record.session.decode(), record.number, record.text.decode())
        for record in read_days(msgd.log_directory)
    ]


def test_a_file_that_grows(msgd: Daemon, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_text("a\nb\x07\n")
    command = ["send", "--session", "nightly", "-p", msgd.port]
    assert msgctl(*command, "-f", lines).stdout == "a\nb\\x07\n"
    again = msgctl(*command, stdin=lines.read_bytes())
    assert (again.returncode, again.stdout) == (0, "")
    assert "session nightly: 2 were there already" in again.stderr
    with lines.open("a") as file:
        file.write("c\nd")
    assert msgctl(*command, "-q", "-f", lines).returncode == 0
    assert sent(msgd) == [
        ("nightly", 1, "a"), ("nightly", 2, "b\\x07"), ("nightly", 3, "c"), ("nightly", 4, "d")
    ]  # fmt: skip
    lines.write_text("a\n")
    fails(msgctl(*command, "-q", "-f", lines), 1, "holds 4 messages, and there are only 1 here")


def test_a_refused_message_keeps_its_number(msgd: Daemon) -> None:
    command = ["send", "--session", "x", "-p", msgd.port]
    lines = b"a\n%b\nc\n" % (b"x" * 100_000)
    done = msgctl(*command, stdin=lines)
    assert (done.returncode, done.stdout) == (1, "a\nc\n")
    assert "line 2: refused: message too long" in done.stderr
    done = msgctl(*command, stdin=lines + b"d\n")
    assert (done.returncode, done.stdout) == (0, "d\n")
    assert sent(msgd) == [("x", 1, "a"), ("x", 3, "c"), ("x", 4, "d")]


def test_whole_files_in_a_session(msgd: Daemon, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("a\nb\n")
    second.write_text("c\n")
    command = ["send", "--session", "x", "--whole", "-p", msgd.port]
    assert msgctl(*command, "-f", first).returncode == 0
    done = msgctl(*command, "--json", "-f", first, "-f", second)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"file": str(first), "status": "confirmed", "text": "a\nb", "already": True},
        {"file": str(second), "status": "confirmed", "text": "c"},
        {"confirmed": 2, "refused": 0, "unknown": 0, "already": 1},
    ]
    assert sent(msgd) == [("x", 1, "a\nb"), ("x", 2, "c")]


def test_a_session_that_is_taken_over(msgd: Daemon) -> None:
    process, stdin, stdout = start_send("--session", "x", "--retry", "60", "-p", msgd.port)
    stdin.write(b"a\n")
    stdin.flush()
    assert stdout.readline() == b"a\n"
    assert msgctl("send", "--session", "x", "-p", msgd.port, stdin=b"a\nb\n").stdout == "b\n"
    out, errors = process.communicate(b"b\n", timeout=SECONDS)
    assert (process.returncode, out) == (1, b"")
    assert b"taken over by another client" in errors
    assert msgd.texts() == ["a", "b"]


def test_the_bar_begins_where_the_work_begins(
    msgd: Daemon, terminal: Terminal, tmp_path: Path
) -> None:
    lines = tmp_path / "lines"
    half = b"".join(b"%010d\n" % number for number in range(50_000))
    lines.write_bytes(half)
    command = ["send", "-q", "--session", "x", "-p", msgd.port, "-f", lines]
    assert msgctl(*command).returncode == 0
    lines.write_bytes(half * 2)
    status, said = ends(terminal(*command))
    assert status == 0
    assert int(re.findall(r"(\d+)%", said)[0]) >= 50


def test_a_session_stays_with_its_server() -> None:
    """Of two places only that one can say what it has."""
    first = session(0, (b"MESG a\nMESG b\n", b"MESG a\n"))
    second = session(1, (b"MESG b\n", b"MESG b\n"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = listener.getsockname()[1]
        with scripted(first, second) as port:
            at = f"127.0.0.1:{port},127.0.0.1:{here}"
            done = msgctl("send", "--retry", "20", "-H", at, stdin=b"a\nb\n")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert (done.returncode, done.stdout) == (0, "a\nb\n")


def test_another_server_goes_on_and_the_doubt_is_said(start: Start) -> None:
    """The first server goes away for good, with a message of which nobody knows what became."""
    other = start("listen: 127.0.0.1\n")
    gone = session(0, (b"MESG a\nMESG b\nMESG c\n", b"MESG a\n"))
    with scripted(gone) as port:
        at = f"127.0.0.1:{port},127.0.0.1:{other.port}"
        done = msgctl("send", "--retry", "20", "-H", at, stdin=b"a\nb\nc\n")
    assert (done.returncode, done.stdout) == (0, "a\nb\nc\n")
    assert "line 2 to line 3 sent once more" in done.stderr
    assert "perhaps in both archives" in done.stderr
    assert other.texts() == ["b", "c"]
