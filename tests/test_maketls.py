"""`msgd make-tls`, by the real openssl: what it makes works, and what it prints can be pasted."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from msgd.config import maketls
from msgd.errors import Fatal
from tests.conftest import Start
from tests.lab.certificates import openssl
from tests.lab.waiting import SECONDS
from tests.test_daemon import call

HOSTS = ("127.0.0.1", "localhost", "::1", "log.example.org")
FILES = {"ca.pem", "ca.key", "server.pem", "server.key"}


def make(*arguments: str | Path, **more: object) -> str:
    """What it prints; it must succeed."""
    status, out, errors = call("make-tls", *arguments, **more)  # type: ignore[arg-type]
    assert (status, errors) == (0, "")
    return out


def refused(*arguments: str | Path, **more: object) -> str:
    status, out, errors = call("make-tls", *arguments, **more)  # type: ignore[arg-type]
    assert (status, out) == (1, "")
    assert errors.count("\n") == 1
    return errors.removeprefix("msgd: ").rstrip("\n")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_authority_and_a_server(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    out = make(folder, *HOSTS)
    assert set(contents(folder)) == FILES
    for path in folder.iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o600 if path.suffix == ".key" else 0o644)
    server = str(folder / "server.pem")
    said = openssl("verify", "-CAfile", str(folder / "ca.pem"), "-purpose", "sslserver", server)
    assert said == f"{server}: OK\n"
    text = openssl("x509", "-noout", "-text", "-in", server)
    assert "ASN1 OID: prime256v1" in text
    names = re.search(r"Subject Alternative Name: *\n *(.*)", text)
    assert names
    assert names[1].split(", ") == [
        "IP Address:127.0.0.1",
        "DNS:localhost",
        "IP Address:0:0:0:0:0:0:0:1",
        "DNS:log.example.org",
    ]
    assert "PRIVATE" not in out
    # As Python 3.13 and newer verify by default: by the letter of RFC 5280.
    strict = "verify", "-x509_strict", "-CAfile", str(folder / "ca.pem")
    assert openssl(*strict, "-verify_hostname", "log.example.org", server) == f"{server}: OK\n"
    for name in ("ca.pem", "server.pem"):
        end = str(folder / name), "-checkend"
        assert (
            openssl("x509", "-noout", "-in", *end, str(800 * 86400))
            == "Certificate will not expire\n"
        )
        done = subprocess.run(
            ["openssl", "x509", "-noout", "-in", *end, str(825 * 86400 + 60)], capture_output=True
        )
        assert done.returncode == 1


@pytest.mark.thorough
def test_what_it_prints_works_when_pasted(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "a folder: with 'odd' characters"
    out = make(folder, "127.0.0.1", "localhost")
    settings = [line for line in out.splitlines() if line.startswith("tls.")]
    more = make("--client", "web-1", folder)
    sample = (Path(__file__).parent.parent / "etc" / "msgd.yaml").read_text()
    daemon = start(sample + "\n".join(settings) + "\nlisten: 127.0.0.1\n")
    assert "may not be complete" not in daemon.log

    def run(lines: str, port: int) -> int:
        commands = [line for line in lines.splitlines() if line.startswith("msgctl ")]
        for line in commands:
            words = shlex.split(line.replace("HOST", "127.0.0.1"))[1:]
            done = subprocess.run(
                [sys.executable, "-m", "msgd.ctl", *words],
                env={**os.environ, "MSGCTL_PORT": str(port)},
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
            assert done.returncode == 0, (line, done.stderr)
        return len(commands)

    assert run(out, daemon.port) == 3
    settings += [line for line in more.splitlines() if line.startswith("tls.")]
    strict = start("\n".join(settings) + "\nlisten: 127.0.0.1\n", "--verbose")
    assert run(more, strict.port) == 1
    strict.wait_log("@web-1")


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    make(tmp_path, "localhost")
    before = contents(tmp_path)
    assert refused(tmp_path, "localhost") == (
        f"{tmp_path}/server.pem: is there already, and stays as it is"
    )
    make("--client", "web-1", tmp_path)
    assert "client-web-1.pem: is there already" in refused("--client", "web-1", tmp_path)
    assert {name: data for name, data in contents(tmp_path).items() if name in before} == before


@pytest.mark.parametrize("name", ["ca.key", "ca.pem", "server.key"])
def test_a_link_in_its_place_is_not_followed(tmp_path: Path, name: str) -> None:
    folder, target = tmp_path / "tls", tmp_path / "target"
    folder.mkdir()
    (folder / name).symlink_to(target)
    refused(folder, "localhost")
    assert not target.exists()
    assert set(contents_of_links(folder)) == {name}


def contents_of_links(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_certificate_is_renewed_by_the_same_authority(tmp_path: Path) -> None:
    make(tmp_path, "localhost")
    authority = (tmp_path / "ca.pem").read_bytes()
    for name in ("server.pem", "server.key"):
        (tmp_path / name).rename(tmp_path / f"old-{name}")
    make(tmp_path, "localhost")
    assert (tmp_path / "ca.pem").read_bytes() == authority
    openssl("verify", "-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "server.pem"))
    assert (tmp_path / "server.pem").read_bytes() != (tmp_path / "old-server.pem").read_bytes()


def test_a_client(tmp_path: Path) -> None:
    make(tmp_path, "localhost")
    make("--client", "web_1.example", tmp_path)
    made = str(tmp_path / "client-web_1.example.pem")
    strict = "verify", "-x509_strict", "-CAfile", str(tmp_path / "ca.pem")
    openssl(*strict, "-purpose", "sslclient", made)
    assert "DNS:web_1.example" in openssl("x509", "-noout", "-text", "-in", made)
    assert stat.S_IMODE((tmp_path / "client-web_1.example.key").stat().st_mode) == 0o600


def test_no_certificate_outlives_its_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maketls, "DAYS", 30)
    maketls.make_server(str(tmp_path), ["localhost"])
    monkeypatch.setattr(maketls, "DAYS", 825)
    maketls.make_client(str(tmp_path), "web-1")
    ends = [
        openssl("x509", "-noout", "-enddate", "-in", str(tmp_path / name))
        for name in ("ca.pem", "client-web-1.pem")
    ]
    when = [time.strptime(end.strip(), "notAfter=%b %d %H:%M:%S %Y GMT") for end in ends]
    assert when[1] <= when[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_the_files_belong_to_the_directory_s_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    make(tmp_path, "localhost")
    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {12345}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_the_package_s_user_can_read_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a new directory at once; of one that root has made, when the hint is followed."""
    user = pwd.struct_passwd(("msgd", "x", 4242, 4242, "", "/", "/bin/false"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: user)
    out = maketls.make_server(str(tmp_path / "new"), ["localhost"])
    assert (tmp_path / "new" / "server.key").stat().st_uid == 4242
    assert "chown" not in out
    (tmp_path / "old").mkdir()
    out = maketls.make_server(str(tmp_path / "old"), ["localhost"])
    assert f"\nchown msgd {tmp_path}/old/server.key\n" in out


def test_without_openssl(tmp_path: Path) -> None:
    env = {**os.environ, "PATH": str(tmp_path)}
    words = "the program openssl is not there; it comes with the package of that name"
    assert refused(tmp_path / "tls", "localhost", env=env) == words
    assert list((tmp_path / "tls").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bad host"], "bad host: is neither a host's name nor an address"),
        (["localhost,DNS:x"], "localhost,DNS:x: is neither a host's name nor an address"),
        (["1.2.3"], "1.2.3: is neither a host's name nor an address"),
        (["ä.example"], "ä.example: is neither a host's name nor an address"),
        (["x" * 64], f"{'x' * 64}: is neither a host's name nor an address"),
        (["a\nb"], "a\nb: is neither a host's name nor an address"),
    ],
)
def test_what_is_no_host(tmp_path: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(Fatal, match=re.escape(words)):
        maketls.make_server(str(tmp_path / "tls"), arguments)
    assert not (tmp_path / "tls").exists()


def test_an_error_is_one_line(tmp_path: Path) -> None:
    words = "is neither a host's name nor an address"
    assert refused(tmp_path / "tls", "a\nb") == f"a\\nb: {words}"


@pytest.mark.parametrize("name", ["", "a b", "../x", "ä", "x" * 65])
def test_what_is_no_name_of_a_client(tmp_path: Path, name: str) -> None:
    with pytest.raises(Fatal, match="the name of a client has 1 to 64 letters, digits, and"):
        maketls.make_client(str(tmp_path), name)


def test_a_client_without_an_authority(tmp_path: Path) -> None:
    assert "has no authority: msgd make-tls DIR HOST makes it" in refused(
        "--client", "web-1", tmp_path
    )


def test_an_authority_whose_key_is_elsewhere(tmp_path: Path) -> None:
    make(tmp_path, "localhost")
    for name in ("ca.key", "server.pem", "server.key"):
        (tmp_path / name).unlink()
    assert refused(tmp_path, "localhost") == (
        f"{tmp_path}/ca.key: is not there, so nothing more can be signed"
    )


@pytest.mark.parametrize("arguments", [[], ["DIR"], ["--client", "x", "DIR", "localhost"]])
def test_bad_usage(arguments: list[str]) -> None:
    status, out, errors = call("make-tls", *arguments)
    assert (status, out) == (2, "")
    assert errors.count("\n") == 1


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    assert refused(tmp_path / "none" / "tls", "localhost") == (
        f"{tmp_path}/none/tls: No such file or directory"
    )
