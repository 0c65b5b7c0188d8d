"""msgd-relay's units, as README.Debian and msgd-relay(8) say to set them up: TLS, permissions, and
nats-py by pip. One machine is node, server and collector.
"""

from __future__ import annotations

import json
import re

import pytest

from . import image
from .conftest import SOURCE
from .machine import Machine, wait_for
from .server import UNIT, Server

SHIP, COLLECT = "msgd-relay-ship.service", "msgd-relay-collect.service"
RELAY = (SHIP, COLLECT)
NATS = "nats-server.service"
BAD_CONFIG = "78"
WARNING = "4"
KEYS = "/etc/nats"

CONFIG = """
servers: tls://127.0.0.1:4222
user: %s
node: web1
tls:
  ca: /etc/nats/ca.pem
  certificate: /etc/nats/client-%s.pem
  key: /etc/nats/client-%s.key
collect:
  max_bytes: 100000000
"""

# Both programs are on this one machine, so the second has a configuration of its own.
COLLECT_DROP_IN = """
[Service]
ExecStart=
ExecStart=/usr/bin/msgd-relay collect --config /etc/msgd-relay-collect.yaml
LoadCredential=
LoadCredential=password:msgd-relay-collect.password
"""


def install_nats_py(machine: Machine) -> None:
    """By the command of README.Debian."""
    for wheel in image.wheels().glob("*.whl"):
        machine.push(wheel, f"/root/wheels/{wheel.name}")
    text = (SOURCE / "packaging/debian/README.Debian").read_text()
    found = re.search(r"pip (install .*)", text)
    assert found
    machine.shell(
        f"pip --quiet {found[1]} --no-index --find-links=/root/wheels --root-user-action=ignore"
    )


def start_nats(server: Server) -> None:
    """With the configuration that the package brings, but for TLS and what Debian 12's server
    does not know.
    """
    machine = server.machine
    machine.run("msgd", "make-tls", KEYS, "127.0.0.1")
    for name in ("web1", "collect"):
        machine.run("msgd", "make-tls", "--client", name, KEYS)
    machine.shell(
        f"chgrp nats {KEYS}/server.key; chgrp msgd-relay {KEYS}/client-*.key;"
        f"chmod 640 {KEYS}/*.key; install -d -o nats -g nats /var/lib/nats"
    )
    config = machine.path("/usr/share/doc/msgd/nats/msgd.conf").read_text()
    config = config.replace("# listen: 0.0.0.0", "listen: 127.0.0.1").replace("# tls {", "tls {")
    if not can_sync(machine):
        config = config.replace("sync_interval: always", "")
    machine.path("/etc/nats-server.conf").write_text(config)
    machine.run("systemctl", "start", NATS)


def can_sync(machine: Machine) -> bool:
    return "v2.9." not in machine.shell("nats-server --version")


@pytest.fixture
def relay(server: Server) -> Server:
    """A machine on which both units run."""
    machine = server.machine
    install_nats_py(machine)
    start_nats(server)
    for user, name in (("web1", "msgd-relay"), ("collect", "msgd-relay-collect")):
        machine.path(f"/etc/{name}.yaml").write_text(CONFIG % ((user,) * 3))
        machine.shell(
            f"chown root:msgd-relay /etc/{name}.yaml; chmod 640 /etc/{name}.yaml; umask 077;"
            f"mkdir -p /etc/credstore; echo {user}-password >/etc/credstore/{name}.password"
        )
    server.drop_in(COLLECT_DROP_IN, COLLECT)
    machine.run("systemctl", "start", COLLECT)
    wait_for(lambda: "made the stream" in said(server, COLLECT), why="the stream")
    machine.run("systemctl", "start", SHIP)
    return server


def said(server: Server, unit: str) -> str:
    """Its journal."""
    return server.machine.shell(f"journalctl --sync; journalctl --unit={unit} --output=cat")


def equal(server: Server) -> bool:
    """Whether the copies are what the archive is."""
    compare = (
        "cd /var/log/msgd; for day in [0-9]*.log; do cmp $day /var/lib/msgd-collect/web1/$day; done"
    )
    return server.machine.run("bash", "-ec", compare, check=False).returncode == 0


def warnings(server: Server) -> list[str]:
    """What the journal has from the relay's units and of them."""
    server.machine.run("journalctl", "--sync")
    units = " ".join(f"--unit={unit}" for unit in RELAY)
    lines = server.machine.shell(f"journalctl {units} --output=json --priority={WARNING} || true")
    return [json.loads(line)["MESSAGE"] for line in lines.splitlines()]


def test_an_echo_comes_to_the_copy_over_restarts(relay: Server) -> None:
    assert relay.send("the first") == "the first"
    wait_for(lambda: equal(relay), why="the copy")
    for unit in (*RELAY, UNIT):
        relay.machine.run("systemctl", "restart", unit)
        assert relay.send(f"after {unit}") == f"after {unit}"
        wait_for(lambda: equal(relay), why=f"the copy, after a restart of {unit}")
    found = warnings(relay)
    if not can_sync(relay.machine):
        found = [words for words in found if "sync_interval" not in words]
    assert found == []
    assert "0 bytes" in relay.show("StatusText", SHIP)

    relay.machine.run("systemctl", "stop", NATS)
    assert relay.send("while the server is away") == "while the server is away"
    relay.machine.run("systemctl", "start", NATS)
    wait_for(lambda: equal(relay), why="the copy, after a restart of the server")
    assert all(relay.is_active(unit) for unit in RELAY)
    for unit in RELAY:
        relay.machine.run("systemctl", "stop", unit)
        assert relay.show("Result", unit) == "success"
    assert relay.texts()[0] == "the first"


@pytest.mark.parametrize("unit", RELAY)
def test_the_units_are_hardened(server: Server, unit: str) -> None:
    server.machine.run("systemd-analyze", "security", "--threshold=15", unit)


@pytest.mark.parametrize("unit", RELAY)
def test_without_nats_py_they_say_so_and_stay_down(server: Server, unit: str) -> None:
    server.machine.run("systemctl", "start", unit, check=False)
    wait_for(lambda: server.show("ActiveState", unit) == "failed", why="its end")
    assert server.show("ExecMainStatus", unit) == BAD_CONFIG
    assert server.show("NRestarts", unit) == "0"
    words = said(server, unit)
    assert "nats-py is not installed" in words
    assert "Traceback" not in words
