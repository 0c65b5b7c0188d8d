"""msgctl send in a session: each message is archived once, whatever breaks."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from tests.campaign import sessions
from tests.conftest import Start
from tests.ctl import fails, msgctl
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


def test_run_again_until_it_succeeds_under_kills_of_both_ends(start: Start, tmp_path: Path) -> None:
    """The long form is in the campaign."""
    folder = tmp_path / "killed"
    outcome = sessions.campaign(
        start, folder, lambda so_far: so_far.breaks < 6, seed=7, lines=15_000, longest=0.03
    )
    assert outcome.lines > 0
