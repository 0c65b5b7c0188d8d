"""msgd-relay's command and configuration: what they take, and that their pages say so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from msgd.config import values as kinds
from msgd.process.command import BAD_CONFIG, FAILED, OK, USAGE
from msgd.relay import command
from msgd.relay.options import OPTIONS, ConfigError, dump, load
from tests.test_docs import flags, items, page, part

ROOT = Path(__file__).parent.parent
UNITS = sorted((ROOT / "packaging" / "systemd").glob("msgd-relay-*.service"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "msgd.relay.command", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("node: web1\nuser: me\npassword: secret\narchive: /tmp/x\n")
    for order in (["ship", "--check", "-c"], ["--check", "-c", str(path), "collect", "-c"]):
        done = run(*order, str(path))
        assert (done.returncode, done.stderr) == (0, "")
        assert "node: web1\narchive: /tmp/x\n" in done.stdout
        assert "secret" not in done.stdout
        again = tmp_path / "again.yaml"
        again.write_text(done.stdout)
        assert run("ship", "--check", "-c", str(again)).returncode == 0
    assert re.fullmatch(r"msgd-relay \d\S*\n", run("--version").stdout)
    for wrong in ((), ("send",), ("ship", "--no"), ("ship", "more")):
        done = run(*wrong)
        assert done.returncode == 2
        assert re.fullmatch(r"msgd-relay.*: .*; see msgd-relay.* --help\n", done.stderr)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sever: x\n", "c.yaml:1: sever: unknown key; did you mean servers?"),
        ("\nnode: a.b\n", "c.yaml:2: node: must be 1 to 64 of A-Z a-z 0-9 _ -, not a.b"),
        ("servers: http://x\n", "c.yaml:1: servers: must be a URL such as"),
        ("servers: nats://a:b@x:1\n", "c.yaml:1: servers: must have no password in it"),
        ("servers: []\n", "c.yaml:1: servers: must have at least one value"),
        ("servers: nats://x:99999\n", "c.yaml:1: servers: must be a URL"),
        ("collect:\n  replicas: 6\n", "c.yaml:2: collect.replicas: must be a whole number"),
        ("archive: here\n", "c.yaml:1: archive: must be an absolute path"),
        ("user: a\ntoken: b\n", "c.yaml: token: user is given too"),
        ("password: b\n", "c.yaml: password: needs user too"),
        ("tls:\n  key: /x\n", "c.yaml: tls.key: needs tls.certificate too"),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(words)):
        load(str(path))


def test_a_wrong_configuration_is_one_line(tmp_path: Path) -> None:
    done = run("ship", "-c", str(tmp_path / "none.yaml"))
    assert done.returncode == 78
    assert done.stderr == f"msgd-relay: {tmp_path}/none.yaml: cannot be read: " + (
        "No such file or directory\n"
    )


def test_secrets_of_the_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("user: me\n")
    (tmp_path / "password").write_text("secret\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load(str(path)).password == "secret"
    path.write_text("user: me\npassword: x\n")
    with pytest.raises(ConfigError, match="is also given as a systemd credential"):
        load(str(path))


def test_the_sample_has_each_key_at_its_default() -> None:
    sample = ROOT / "etc" / "msgd-relay.yaml"
    assert dump(load(str(sample))) == dump(load(None))
    text = sample.read_text()
    for option in OPTIONS:
        assert re.search(rf"^ *{option.name.rpartition('.')[2]}:", text, re.MULTILINE), option.name


def test_every_key_with_its_default() -> None:
    keys = re.split(r"^\.It Ic (.*)$", page("msgd-relay.yaml.5"), flags=re.MULTILINE)[1:]
    described = dict(zip(keys[::2], keys[1::2], strict=True))
    assert list(described) == [option.name for option in OPTIONS]
    for option in OPTIONS:
        text = described[option.name]
        if option.default is None:
            assert re.search(r"^There is no (fixed )?default[:.]", text, re.MULTILINE), option.name
        else:
            assert f"The default is\n.Ql {kinds.show(option.default)} " in text, option.name


def test_the_page() -> None:
    text = page("msgd-relay.8")
    known = {flag for action in command._parser()._actions for flag in action.option_strings}
    assert flags(text) == known
    statuses = {OK, FAILED, USAGE, BAD_CONFIG}
    assert set(map(int, items(part(text, ".Sh EXIT STATUS")))) == statuses
    permissions = part(text, ".Sh PERMISSIONS")
    granted = (ROOT / "packaging" / "nats" / "msgd.conf").read_text()
    for subject in re.findall(r"\$JS\.API\.\S+", granted):
        assert subject.strip('",]') in permissions


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_units_exposure(unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    line = ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(unit)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


def test_the_unit_knows_where_the_archive_is() -> None:
    """As a user without a home, which has no other default."""
    (unit,) = [unit for unit in UNITS if "ship" in unit.name]
    found = re.search(r"^Environment=(.*)=(.*)$", unit.read_text(), re.MULTILINE)
    assert found
    line = [sys.executable, "-m", "msgd.relay.command", "ship", "--check"]
    env = {**os.environ, found[1]: found[2]}
    done = subprocess.run(line, env=env, capture_output=True, text=True, check=True)
    assert "\narchive: /var/log/msgd\n" in done.stdout
