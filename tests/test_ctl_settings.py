"""Where msgctl finds the server: command line, environment, the user's file, the system's."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from msgd.ctl.hosts import Place, places
from tests.conftest import Daemon
from tests.ctl import fails, msgctl

Done = subprocess.CompletedProcess[str]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("log.example.org", [Place("log.example.org")]),
        ("log:7000", [Place("log", 7000)]),
        ("192.0.2.1:7000", [Place("192.0.2.1", 7000)]),
        ("::1", [Place("::1")]),
        ("[::1]", [Place("::1")]),
        ("[fe80::1%eth0]:7000", [Place("fe80::1%eth0", 7000)]),
        ("/run/msgd/msgd.sock", [Place("/run/msgd/msgd.sock")]),
        ("/run/a:1", [Place("/run/a:1")]),
        ("a, [::1]:1,/b", [Place("a"), Place("::1", 1), Place("/b")]),
    ],
)
def test_the_forms_of_a_host(text: str, found: list[Place]) -> None:
    assert places(text) == tuple(found)


@pytest.mark.parametrize("text", ["", "a,", "a:", "a:0", "a:65536", "a:b", "[::1", "[]", "a b"])
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ValueError, match="must "):
        places(text)
    if text:
        fails(msgctl("ping", "-H", text), 2, "host must ")


def test_a_port_stands_with_its_host(msgd: Daemon) -> None:
    at = f"127.0.0.1:{msgd.port}"
    assert msgctl("send", "-H", at, "a").stdout == "a\n"
    assert msgctl("send", "-H", at, "b", MSGCTL_PORT="1").stdout == "b\n"
    assert msgctl("send", "-p", msgd.port, "c", MSGCTL_HOST="127.0.0.1:1").stdout == "c\n"
    fails(msgctl("send", "-H", at, "-p", 1, "d"), 2, "two ports for 127.0.0.1")


def test_several_hosts_are_tried_in_turn(msgd: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = f"127.0.0.1:{free.getsockname()[1]}"
    assert msgctl("send", "-H", f"{dead},127.0.0.1:{msgd.port}", "a").stdout == "a\n"
    done = msgctl("send", "-H", f"{dead},{dead}", "a")
    fails(done, 69, f"nobody listens at {dead}.*; nobody listens at {dead}")


def test_the_order(msgd: Daemon, tmp_path: Path) -> None:
    system, user = tmp_path / "system.yaml", tmp_path / "msgctl.yaml"
    system.write_text(f"host: 127.0.0.1\nport: {msgd.port}\ntimeout: 5\n")
    user.write_text("port: 1\n")

    def send(*words: object, port: str = "", xdg: Path | str = tmp_path) -> Done:
        return msgctl(
            "send", *words, system=system,
            XDG_CONFIG_HOME=str(xdg), HOME=str(tmp_path), MSGCTL_PORT=port,
        )  # fmt: skip

    assert send("a", xdg="/nonexistent").stdout == "a\n"
    fails(send("b"), 69, "127.0.0.1:1")
    assert send("c", port=str(msgd.port)).stdout == "c\n"
    assert send("d", "-p", msgd.port, port="nonsense").stdout == "d\n"
    fails(send("e", port="nonsense"), 2, "MSGCTL_PORT: must be a whole number")
    (tmp_path / ".config").mkdir()
    user.rename(tmp_path / ".config" / "msgctl.yaml")
    fails(send("f", xdg=""), 69, "127.0.0.1:1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot: 1\n", "1: prot: unknown key; did you mean port"),
        ("\nport: 0\n", "2: port: must be a whole number from 1 to 65535"),
        ("timeout: .inf\n", "1: timeout: must be a number"),
        ("tls: perhaps\n", "1: tls: must be yes or no"),
        ("host: 'a:'\n", "1: host: must be a name"),
        ("ca: here.pem\n", "1: ca: must be an absolute path"),
        ("- a\n", "1: must be keys"),
        ("{", "is not YAML"),
    ],
)
def test_errors_in_a_file_have_their_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "msgctl.yaml").write_text(text)
    done = msgctl("send", "a", XDG_CONFIG_HOME=str(tmp_path))
    fails(done, 2, f"{tmp_path}/msgctl.yaml:{words}" if words[0] in "12" else words)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "msgctl.yaml").mkdir()
    done = msgctl("send", "a", XDG_CONFIG_HOME=str(tmp_path))
    fails(done, 2, "msgctl.yaml: cannot be read")
