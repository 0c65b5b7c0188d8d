"""The service under its hardened unit, doing all of its work."""

from __future__ import annotations

import re
from pathlib import Path

import pexpect
import pytest

from .machine import wait_for
from .server import PEER, UNIT, Server


def test_start_returns_when_it_listens_and_not_before(server: Server) -> None:
    for number in range(5):
        server.machine.run("systemctl", "restart", UNIT)
        assert server.send(f"{number}") == f"{number}"


def test_the_unit_is_hardened(server: Server) -> None:
    """1.2; README.Debian says what is left of what, and how it can be 0.4."""
    server.machine.run("systemd-analyze", "security", "--threshold=12", UNIT)


def test_messages_from_another_network_namespace(server: Server) -> None:
    server.machine.shell(PEER)
    server.configure("listen: 10.9.9.1\n")
    server.restart()
    peer = ["ip", "netns", "exec", "peer", "msgctl", "--host", "10.9.9.1", "send"]
    assert server.machine.run(*peer, "from afar").stdout == "from afar\n"
    assert " 10.9.9.2:" in server.machine.shell("cat /var/log/msgd/current.log")


def test_public_addresses_are_dropped_by_the_unit(server: Server) -> None:
    server.machine.shell(PEER.replace("10.9.9.", "203.0.113."))
    server.configure("listen: 203.0.113.1\n")
    server.restart()
    command = [
        "ip",
        "netns",
        "exec",
        "peer",
        "msgctl",
        "--host",
        "203.0.113.1",
        "--timeout",
        "1",
        "send",
        "dropped",
    ]
    assert server.machine.run(*command, check=False).returncode == 69
    server.drop_in("[Service]\nIPAddressAllow=203.0.113.0/24\n")
    server.restart()
    assert server.machine.run(*command).stdout == "dropped\n"


def test_terminate_at_a_prompt_keeps_it_down(server: Server) -> None:
    server.configure(f"password_hash: {server.hash('open sesame')}\n")
    server.restart()
    server.send("before")
    command, *arguments = server.machine.command("msgctl", "terminate")
    with pexpect.spawn(command, arguments, timeout=30, encoding="utf-8") as terminal:
        terminal.expect("assword")
        terminal.sendline("wrong")
        terminal.expect("assword")
        terminal.expect("assword")
        terminal.sendline("open sesame")
        terminal.expect(pexpect.EOF)
        assert "sesame" not in terminal.before
        terminal.wait()
        assert terminal.exitstatus == 0
    wait_for(lambda: server.show("ActiveState") == "inactive", why="down")
    assert server.show("Result") == "success"
    assert server.show("NRestarts") == "0"
    assert server.show("Job") == ""
    server.machine.run("systemctl", "start", UNIT)
    server.send("after")
    assert server.texts() == ["before", "after"]


def terminate(server: Server, password: str) -> int:
    command = ("msgctl", "terminate", "--password-stdin")
    return server.machine.run(*command, input=f"{password}\n", check=False).returncode


def test_reload_takes_a_changed_password(server: Server) -> None:
    server.configure(f"password_hash: {server.hash('old')}\n")
    server.restart()
    pid = server.pid
    server.configure(f"password_hash: {server.hash('new')}\n")
    server.machine.run("systemctl", "reload", UNIT)
    assert server.pid == pid
    assert terminate(server, "old") == 77
    assert terminate(server, "new") == 0


def connects(server: Server) -> bool:
    ping = "msgctl", "-H", "127.0.0.1", "ping", "-c", "1"  # `allow` is not for the local socket
    return server.machine.run(*ping, check=False).returncode == 0


def test_reload_changes_who_may_connect(server: Server) -> None:
    assert connects(server)
    server.configure("allow: [192.0.2.0/24]\n")
    server.machine.run("systemctl", "reload", UNIT)
    wait_for(lambda: not connects(server), why="the new list in force")
    server.configure("allow: []\n")
    server.machine.run("systemctl", "reload", UNIT)
    wait_for(lambda: connects(server), why="the list gone again")


def test_reload_of_a_broken_file_keeps_the_old_settings(server: Server) -> None:
    server.configure(f"password_hash: {server.hash('old')}\n")
    server.restart()
    server.configure("prot: 1\n")
    server.machine.run("systemctl", "reload", UNIT, check=False)
    entry = server.wait_for_journal("/etc/msgd.yaml:1: prot:")
    assert int(entry["PRIORITY"]) <= 4
    server.send("still here")
    assert terminate(server, "old") == 0


def test_a_broken_file_at_start_is_not_tried_again(server: Server) -> None:
    server.configure("port: high\n")
    server.machine.run("systemctl", "restart", UNIT, check=False)
    wait_for(lambda: server.show("ActiveState") == "failed", why="failed")
    assert server.show("ExecMainStatus") == "78"
    assert server.show("NRestarts") == "0"
    server.wait_for_journal("/etc/msgd.yaml:1: port:")


def test_the_password_may_be_a_credential(server: Server) -> None:
    hashed = server.hash("by credential")
    store = server.machine.path("/etc/credstore")
    store.mkdir(mode=0o700, exist_ok=True)
    credential = store / "msgd.password_hash"
    credential.write_text(hashed)
    credential.chmod(0o600)
    server.restart()
    assert terminate(server, "wrong") == 77
    assert terminate(server, "by credential") == 0


@pytest.mark.parametrize("end", ["kill", "hang"])
def test_nothing_echoed_is_lost_when_it_dies(server: Server, end: str) -> None:
    """Under load it is killed, or hangs until the watchdog ends it; systemd starts it again."""
    server.drop_in("[Service]\nWatchdogSec=1\nTimeoutAbortSec=1\n")
    server.restart()
    pid = server.pid
    send = "(seq 1 3000000 | msgctl send - >/root/echoes || echo $? >/root/status)"
    server.machine.shell(f"{send} </dev/null >/dev/null 2>&1 &")
    wait_for(lambda: server.machine.shell("wc -l </root/echoes || echo 0") > "1", why="echoes")
    server.machine.shell(f"kill -{'KILL' if end == 'kill' else 'STOP'} {pid}")
    server.wait_for_restart(pid)
    wait_for(server.machine.path("/root/status").exists, why="the client's end")
    assert server.machine.path("/root/status").read_text() == "69\n"
    echoes = server.machine.path("/root/echoes").read_text().split("\n")[:-1]
    assert echoes
    assert server.send("the last") == "the last"
    texts = server.texts(torn=1)
    assert texts[: len(echoes)] == echoes
    assert texts[-1] == "the last"
    assert len(set(texts)) >= len(texts) - 1  # a torn "1234" may read as an earlier "123"
    result = "watchdog" if end == "hang" else "killed"
    assert result in server.machine.shell(f"journalctl --unit={UNIT} --output=cat _PID=1")


def test_full_disk(server: Server) -> None:
    """What does not fit is refused, what is echoed is there, and it goes on by itself."""
    mount = "mount -t tmpfs -o size=256k tmpfs /var/log/msgd"
    server.machine.shell(f"systemctl stop {UNIT}; {mount}; systemctl start {UNIT}")
    done = server.machine.run("msgctl", "send", "-", input=("x" * 1000 + "\n") * 400, check=False)
    assert done.returncode == 1
    echoed = done.stdout.count("x" * 1000)
    assert 100 < echoed < 300
    assert len(server.texts()) == echoed
    # In the journal: the status forgets it where the last messages found room again.
    server.wait_for_journal("less than limits.keep_free is free")
    refused = f"{400 - echoed} refused"
    wait_for(lambda: refused in server.show("StatusText"), why=refused)
    server.machine.run("mount", "-o", "remount,size=16m", "/var/log/msgd")
    assert wait_for(lambda: server.machine.run("msgctl", "send", "again", check=False).stdout)
    assert server.texts()[echoed:] == ["again"]
    assert server.show("NRestarts") == "0"


def fake_clock(server: Server, start: str) -> Path:
    """Give the service a clock of its own; the file that is returned holds its time."""
    library = server.machine.shell("ls /usr/lib/*/faketime/libfaketime.so.1")
    clock = server.machine.path("/etc/msgd-clock")
    clock.write_text(f"{start}\n")
    settings = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": "/etc/msgd-clock",
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    lines = [f"Environment={name}={value}" for name, value in settings.items()]
    server.drop_in("\n".join(["[Service]", *lines, ""]))
    return clock


def test_midnight_compression_and_retention(server: Server) -> None:
    """A new day under full hardening: a new file, the old one compressed, the oldest deleted."""
    clock = fake_clock(server, "@2030-05-01 23:59:00")
    old = server.machine.path("/var/log/msgd/2030-04-01.log")
    old.write_text("2030-04-01T10:00:00.000000+00:00 127.0.0.1:1 old\n")
    server.machine.shell("chown msgd: /var/log/msgd/*.log")
    server.configure("time_zone: utc\nkeep_days: 7\ncompress: gzip\n")
    server.restart()
    server.send("the first day")
    clock.write_text("@2030-05-02 00:00:05\n")
    server.send("the second day")
    folder = server.machine.path("/var/log/msgd")
    compressed = folder / "2030-05-01.log.gz"
    wait_for(lambda: compressed.exists() and not (folder / "2030-05-01.log").exists(), why=".gz")
    wait_for(lambda: not old.exists(), why="retention")
    assert " the first day" in server.machine.shell(f"zcat /var/log/msgd/{compressed.name}")
    assert server.texts() == ["the second day"]
    assert server.machine.shell("readlink /var/log/msgd/current.log") == "2030-05-02.log"
    modes = server.machine.shell("stat --format='%a %U' /var/log/msgd/2030-05-0?.*")
    assert set(modes.splitlines()) == {"640 msgd"}
    assert "user:group" not in modes
    listed = server.machine.shell(f"getfacl --absolute-names /var/log/msgd/{compressed.name}")
    assert "group:adm:r" in listed


def test_the_journal_holds_one_plain_line_an_event(server: Server) -> None:
    for _ in range(3):
        server.send("hello")
    server.restart()
    server.configure("prot: 1\n")
    server.machine.run("systemctl", "reload", UNIT, check=False)
    server.wait_for_journal("prot")
    entries = server.journal()
    messages = [entry["MESSAGE"] for entry in entries]
    assert any("listening on 127.0.0.1:6743" in message for message in messages)
    for entry in entries:
        assert not re.match(r"<\d>", entry["MESSAGE"])
        assert not re.search(r"\d\d:\d\d:\d\d", entry["MESSAGE"])
        assert "hello" not in entry["MESSAGE"]
        assert entry["SYSLOG_IDENTIFIER"] == "msgd"
    assert {entry["PRIORITY"] for entry in entries} >= {"6"}
    assert {entry["MESSAGE"] for entry in server.journal("warning")} == {
        message for message in messages if "prot" in message
    }
    # Connects and disconnects are debug messages: six came and went unnoticed.
    assert not [
        entry
        for entry in server.journal("info")
        if "127.0.0.1:" in entry["MESSAGE"].replace("127.0.0.1:6743", "")
    ]


def test_status_shows_what_it_does(server: Server) -> None:
    server.send("one")
    server.machine.shell("seq 2 10 | msgctl send - >/dev/null")
    wait_for(lambda: re.search(r"\b10\b", server.show("StatusText")), why="10 archived")
    status = server.machine.shell(f"systemctl status {UNIT}")
    for words in ("Active: active (running)", "Status: ", "Docs: man:msgd(8)", "archived"):
        assert words in status
    assert "client" in status


def test_the_classic_way_without_systemd(server: Server) -> None:
    """--daemonize leaves a pid file, logs to syslog, and stops on SIGTERM."""
    machine = server.machine
    machine.run("systemctl", "disable", "--now", UNIT)
    machine.run("msgd", "--daemonize", "--pidfile", "/run/msgd.pid")
    wait_for(machine.path("/run/msgd.pid").exists, why="the pid file")
    wait_for(lambda: machine.run("msgctl", "ping", "-c", "1", check=False).returncode == 0)
    assert server.send("classic") == "classic"
    pid = machine.path("/run/msgd.pid").read_text().strip()
    assert machine.path(f"/proc/{pid}/comm").read_text() == "msgd\n"
    machine.shell(f"kill {pid}")
    wait_for(lambda: not machine.path(f"/proc/{pid}").exists(), why="the end")
    assert server.texts() == ["classic"]
    assert "listening on" in machine.shell("journalctl --identifier=msgd --output=cat")
