"""The recipes for reading the archive, taken from the README and run on real archives."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import SECONDS, Daemon, Start, wait_for

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def recipe(beginning: str) -> str:
    """The command in the README that begins so; indented lines belong to it."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    commands = re.findall(r"^\S.*(?:\n +.*)*", "".join(blocks), re.MULTILINE)
    return next(str(command) for command in commands if command.startswith(beginning))


def run(msgd: Daemon, command: str, **env: str) -> str:
    """Run a recipe in the archive, with its day and its origin in place of the README's."""
    [today] = msgd.files()
    command = command.replace("2026-11-23", today.stem).replace(r"10\.1\.2\.3", r"127\.0\.0\.2")
    return subprocess.run(
        ["sh", "-c", command],
        cwd=msgd.log_directory,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    ).stdout


@pytest.fixture
def archive(msgd: Daemon) -> Daemon:
    """An archive from two origins; one of them also writes as if it were the other."""
    for source, message in (
        ("127.0.0.1", b"MESG from one\n"),
        ("127.0.0.2", b"MORE from two\nMORE Error in line 2\nMESG and a third\n"),
        ("127.0.0.1", b"MORE from one\nMESG 2026-11-23T00:00:00.000000+00:00 127.0.0.2:1 no\n"),
        ("127.0.0.2", b"MESG no mistake\n"),
    ):
        with msgd.connect(b"PING\n", source=source) as client:
            client.send(message)
            client.expect(message)
    return msgd


def texts(output: str) -> list[str]:
    """The lines without stamp and origin."""
    return [re.sub(r"^\d{4}\S+ \S+ ", "", line) for line in output.splitlines()]


def test_grep_finds_a_day_and_an_origin(archive: Daemon) -> None:
    assert texts(run(archive, recipe("grep"))) == ["from two", "no mistake"]


def test_zgrep_looks_into_compressed_days_too(archive: Daemon) -> None:
    [today] = archive.files()
    shutil.copy(today, today.with_name("2026-01-01.log"))
    subprocess.run(["gzip", today.with_name("2026-01-01.log")], check=True)
    found = texts(run(archive, recipe("zgrep")))
    assert found == ["from two", "no mistake"] * 2


def test_awk_keeps_all_lines_of_an_origin(archive: Daemon) -> None:
    assert texts(run(archive, recipe("awk '!/^\\t/ { keep"))) == [
        "from two",
        "\tError in line 2",
        "\tand a third",
        "no mistake",
    ]


def test_awk_finds_whole_messages_by_a_word(archive: Daemon) -> None:
    assert texts(run(archive, recipe("awk '!/^\\t/ { if (hit)"))) == [
        "from two",
        "\tError in line 2",
        "\tand a third",
    ]


WHEN = "2026-11-23T02:51:07.123456+00:00"


def verified(folder: Path, *records: str) -> list[str]:
    """What the recipe says of an archive of these records."""
    lines = [f"{WHEN} 127.0.0.1:40312{record}\n" for record in records]
    (folder / "2026-11-23.log").write_text("".join(lines))
    (folder / "2026-11-22.log").write_text("")
    done = subprocess.run(
        ["sh", "-c", recipe("zcat -f")],
        cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return sorted(done.stdout.splitlines())


def test_awk_verifies_sessions_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    said = verified(
        tmp_path,
        "/nightly:009 a",
        " of no session: 1",
        "/nightly:010+2 two\n\tfurther\n\tlines",
        "@web1/nightly:001 of somebody else",
        "/nightly:011 http://one/two:3",
    )
    assert said == ["nightly: 9 to 11", "nightly@web1: 1 to 1"]


def test_awk_finds_what_is_missing_and_what_is_there_twice(tmp_path: Path) -> None:
    said = verified(tmp_path, "/a:001 x", "/a:003 x", "/a:003 x", "/b:001 x", "/b:002 x")
    assert said == ["a: 1 to 3", "a: 3 follows 1", "a: 3 follows 3", "b: 1 to 2"]


@pytest.mark.parametrize(
    "left",
    [
        "/a:002 hal\x18",
        "/a:002 never echoed\0\0\n\x18",
        "/a:002+2 two\n\tlines\n\x18",
        f"/a:002+2 two\n\tlines\n{WHEN} 127.0.0.1:40312/a:003 behind it\n\x18",
        f"/b:001\0\0\n{WHEN} 127.0.0.1:40312/a:002 behind it\n\x18",
    ],
)
def test_awk_counts_nothing_of_what_a_crash_has_left(tmp_path: Path, left: str) -> None:
    said = verified(tmp_path, "/a:001 x", left, "/a:002+1 two\n\tlines")
    assert said == ["a: 1 to 2"]


@contextmanager
def running(*command: str | Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)


@pytest.mark.skipif(not FAKETIME.exists(), reason="libfaketime is not installed")
def test_tail_follows_over_midnight(start: Start, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("2026-11-23 23:59:59\n")
    msgd = start(
        "time_zone: utc\nlisten: 127.0.0.1\n",
        env={
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "TZ": "UTC",
        },
    )
    seen = tmp_path / "seen"
    with (
        msgd.line_client() as client,
        seen.open("wb") as output,
        running(*recipe("tail").split(), "--sleep-interval=0.1", cwd=msgd.log_directory,
                stdout=output, stderr=subprocess.DEVNULL),
    ):  # fmt: skip
        client.ask(b"MESG before midnight\n")
        wait_for(lambda: texts(seen.read_text()) == ["before midnight"], "the first line")
        clock.write_text("2026-11-24 00:00:01\n")
        client.ask(b"MESG after midnight\n")
        wait_for(lambda: len(seen.read_text().splitlines()) == 2, "the second line")
    assert texts(seen.read_text()) == ["before midnight", "after midnight"]
    assert [path.name for path in msgd.files()] == ["2026-11-23.log", "2026-11-24.log"]


needs_lnav = pytest.mark.skipif(shutil.which("lnav") is None, reason="lnav is not installed")


@pytest.fixture
def lnav_home(tmp_path: Path) -> Path:
    """A home in which lnav knows the format, by the README's command."""
    home = tmp_path / "lnav"
    home.mkdir()
    command = re.search(r"`(lnav -i \S+)`", README)
    assert command
    subprocess.run(
        command[1].split(), cwd=ROOT, env=lnav_env(home), check=True, capture_output=True
    )
    return home


def lnav_env(home: Path) -> dict[str, str]:
    """Where lnav keeps its formats and settings; HOME alone is not enough on all machines."""
    return {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}


@needs_lnav
def test_lnav_accepts_the_format(lnav_home: Path) -> None:
    done = subprocess.run(
        ["lnav", "-C"], env=lnav_env(lnav_home), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_lnav
def test_lnav_counts_messages_by_address(archive: Daemon, lnav_home: Path) -> None:
    command = recipe("lnav") + " -c ':write-csv-to -'"
    env = {name: lnav_env(lnav_home)[name] for name in ("HOME", "XDG_CONFIG_HOME")}
    assert run(archive, command, **env).splitlines() == [
        "address,messages",
        "127.0.0.1,2",
        "127.0.0.2,2",
    ]


@needs_lnav
def test_lnav_takes_further_lines_for_the_same_message(archive: Daemon, lnav_home: Path) -> None:
    query = ";SELECT log_body FROM msgd_log WHERE log_body LIKE '%Error%'"
    command = f"""lnav -n -c "{query}" -c ':write-raw-to -' 2026-11-23.log"""
    env = {name: lnav_env(lnav_home)[name] for name in ("HOME", "XDG_CONFIG_HOME")}
    assert run(archive, command, **env) == "from two\n\tError in line 2\n\tand a third\n"


def frames(stream: bytes) -> list[str]:
    """The octet-counted frames (RFC 6587, section 3.4.1) that are there in full."""
    found = []
    while (size := stream.partition(b" ")[0]) and len(stream) > len(size) + int(size):
        end = len(size) + 1 + int(size)
        found.append(stream[len(size) + 1 : end].decode())
        stream = stream[end:]
    return found


@pytest.mark.skipif(shutil.which("rsyslogd") is None, reason="rsyslog is not installed")
def test_rsyslog_ships_whole_messages(archive: Daemon, tmp_path: Path) -> None:
    found = re.search(r"^```rsyslog\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = found[1].replace("/var/log/msgd", str(archive.log_directory))
        text = text.replace("log.example.org", "127.0.0.1").replace('"6514"', f'"{port}"')
        config = tmp_path / "rsyslog.conf"
        config.write_text(f'global(workDirectory="{tmp_path}")\n{text}')
        with running("rsyslogd", "-n", "-f", config, "-i", tmp_path / "rsyslog.pid"):
            server.settimeout(SECONDS)
            peer, _ = server.accept()
            peer.settimeout(SECONDS)
            stream = b""
            with peer:
                while len(frames(stream)) < 4:
                    data = peer.recv(1 << 16)
                    assert data, frames(stream)
                    stream += data
    records = archive.archive().decode()
    assert "".join(f"{frame}\n" for frame in frames(stream)) == records
