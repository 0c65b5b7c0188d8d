"""Where msgctl finds the server: command line, environment, the user's file, the system's."""

from __future__ import annotations

import getpass
import re
import socket
import subprocess
from pathlib import Path

import pytest

from msgd.client.servers import LONGEST
from msgd.ctl.options import LONGEST as LONGEST_OPTION
from msgd.ctl.settings import Place, places
from tests.conftest import PASSWORD_HASH, Daemon, Start
from tests.ctl import command, environment, fails, msgctl
from tests.lab.certificates import Authority


@pytest.fixture
def msgd(shared_msgd: Daemon) -> Daemon:
    return shared_msgd


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
    with pytest.raises(ValueError, match=r"there is no port|no host is called"):
        places(text)
    if text in ("a:", "[]"):  # here and there that is an error of usage
        fails(msgctl("ping", "-H", text), 2, "host: (there is no port|no host is called) ")


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
        ("host: 'a:'\n", "1: host: no host is called"),
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


def test_the_socket_of_this_machine(start: Start, tmp_path: Path) -> None:
    sock = tmp_path / "msgd.sock"
    daemon = start(f"listen: [127.0.0.1, {sock}]\n")
    assert msgctl("send", "a", sock=sock).stdout == "a\n"
    assert msgctl("send", "-H", sock, "b").stdout == "b\n"
    assert msgctl("send", "-p", daemon.port, "c", sock=sock).stdout == "c\n"
    system = tmp_path / "system.yaml"
    system.write_text(f"host: 127.0.0.1:{daemon.port}\n")
    assert msgctl("send", "d", sock=sock, system=system).stdout == "d\n"
    lines = daemon.archive().decode().splitlines()
    assert [" unix:" in line for line in lines] == [True, True, False, False]


def tls_daemon(start: Start, tmp_path: Path, more: str = "") -> tuple[Daemon, Authority, str]:
    """With TLS, its authority, and the pin of its certificate."""
    authority = Authority(tmp_path)
    own = authority.issue("localhost", "127.0.0.1")
    daemon = start(
        f"listen: 127.0.0.1\npassword_hash: {PASSWORD_HASH}\n"
        f"tls: {{certificate: {own.certificate}, key: {own.key}{more}}}\n"
    )
    return daemon, authority, own.pin


def test_tls(start: Start, tmp_path: Path) -> None:
    daemon, authority, pin = tls_daemon(start, tmp_path, ", required: yes")
    at, ca = ["send", "-p", daemon.port], ["--ca", authority.certificate]
    assert msgctl(*at, "--tls", *ca, "a").stdout == "a\n"
    assert msgctl(*at, *ca, "b").stdout == "b\n"
    assert msgctl(*at, "--pin", pin, "c").stdout == "c\n"
    env = {"MSGCTL_TLS": "1", "MSGCTL_CA": str(authority.certificate), "MSGCTL_PIN": ""}
    assert run(*at, "d", env=env).stdout == "d\n"
    assert run(*at, "e", env={"MSGCTL_PIN": pin}).stdout == "e\n"
    (tmp_path / "msgctl.yaml").write_text(f"tls: yes\nca: {authority.certificate}\n")
    assert run(*at, "f", env={"XDG_CONFIG_HOME": str(tmp_path)}).stdout == "f\n"
    other = {"XDG_CONFIG_HOME": str(tmp_path), "MSGCTL_PIN": pin}
    assert run(*at, "g", env=other).stdout == "g\n"
    fails(msgctl(*at, "h"), 69, "wants TLS")
    fails(run(*at, "h", env={**other, "MSGCTL_TLS": "no", "MSGCTL_PIN": ""}), 69, "wants TLS")
    fails(msgctl(*at, "--tls", "h"), 69, "certificate")
    fails(msgctl(*at, "-H", "127.0.0.2", *ca, "h"), 69, "127.0.0.2")
    fails(msgctl(*at, "--pin", "sha256:" + "0" * 64, "h"), 69, "pinned")
    assert daemon.texts() == list("abcdefg")


def run(*arguments: object, env: dict[str, str]) -> Done:
    words = command(*arguments)
    return subprocess.run(words, capture_output=True, text=True, env=environment(**env))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pin", "sha256:12"], "a pin is sha256:"),
        (["--pin", "sha256:" + "0" * 64, "--ca", "/x"], "give one of them"),
        (["--key", "/x"], "a key needs its certificate"),
    ],
)
def test_tls_that_cannot_be_meant(options: list[str], words: str) -> None:
    fails(msgctl("ping", *options), 2, words)


def test_files_of_tls_that_are_not_there(start: Start, tmp_path: Path) -> None:
    daemon, authority, _ = tls_daemon(start, tmp_path)
    at = ["ping", "-c1", "-p", daemon.port]
    for options in (["--ca", "/none.pem"], ["--ca", authority.certificate, "--cert", "/none.pem"]):
        done = msgctl(*at, *options)
        assert done.returncode in (1, 2, 69)
        assert re.fullmatch(r"msgctl: .*/none\.pem.*\n", done.stderr)


def test_a_certificate_of_ones_own(start: Start, tmp_path: Path) -> None:
    clients = Authority(tmp_path, "Clients")
    daemon, authority, _ = tls_daemon(start, tmp_path, f", client_ca: {clients.certificate}")
    own = clients.issue("web-1", client=True)
    at = ["send", "-p", daemon.port, "--ca", authority.certificate]
    done = msgctl(*at, "--cert", own.certificate, "--key", own.key, "a")
    assert (done.stdout, done.stderr) == ("a\n", "")
    assert msgctl(*at, "b").returncode == 69
    assert b"@web-1 a\n" in daemon.archive()


def test_terminate_says_who_has_proved_the_server(start: Start, tmp_path: Path) -> None:
    sock = tmp_path / "msgd.sock"
    config = f"listen: [127.0.0.1, {sock}]\npassword_hash: {PASSWORD_HASH}\n"
    daemon = start(config)
    terminate = ["terminate", "--password-stdin"]
    plain = msgctl(*terminate, "-p", daemon.port, stdin=b"wrong\n")
    assert f"Nothing proves that 127.0.0.1:{daemon.port} is msgd" in plain.stdout
    local = msgctl(*terminate, "-H", sock, stdin=b"wrong\n")
    assert f"is proved by its local socket {sock}, which is {getpass.getuser()}'s" in local.stdout
    daemon, authority, pin = tls_daemon(start, tmp_path)
    for options in (["--ca", authority.certificate], ["--pin", pin]):
        done = msgctl(*terminate, *options, "-p", daemon.port, stdin=b"wrong\n")
        assert "is proved by TLS" in done.stdout
        assert ("pinned" in done.stdout) == (options[0] == "--pin")


def test_msgctl_and_the_library_take_the_same_times() -> None:
    assert LONGEST_OPTION == LONGEST
