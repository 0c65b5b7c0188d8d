"""TLS between two machines, as far as the network goes, and a certificate's renewal."""

from __future__ import annotations

import pytest

from .machine import wait_for
from .server import PEER, UNIT, Server

HERE = "10.9.9.1"
FOLDER = "/etc/msgd-tls"
MINE = f"--host={HERE} --tls --ca={FOLDER}/ca.pem".split()
CONFIG = f"listen: [127.0.0.1, {HERE}]\ntls: {{certificate: {FOLDER}/server.pem, %s}}\n"

# A line every few milliseconds, for as long as the file is there.
LOAD = """
import pathlib, time
number = 0
while pathlib.Path("/root/go-on").exists():
    print(number, flush=True)
    number += 1
    time.sleep(0.005)
"""


@pytest.fixture
def tls(server: Server) -> Server:
    """msgd with a certificate for HERE, whose key only root can read in the file system."""
    server.machine.shell(PEER)
    server.machine.run("msgd", "make-tls", FOLDER, HERE)
    server.machine.shell(
        f"mkdir -p /etc/credstore; mv {FOLDER}/server.key /etc/credstore/msgd.tls_key"
    )
    server.configure(CONFIG % "required: remote")
    server.restart()
    return server


def from_afar(server: Server, *arguments: str) -> tuple[int, str, str]:
    """Run msgctl on the other machine."""
    command = ("ip", "netns", "exec", "peer", "msgctl", "--timeout", "5", *arguments)
    done = server.machine.run(*command, check=False)
    return done.returncode, done.stdout, done.stderr


def test_from_another_network_namespace(tls: Server) -> None:
    assert from_afar(tls, *MINE, "send", "from afar") == (0, "from afar\n", "")
    assert tls.send("from here, in the clear") == "from here, in the clear"
    status, _, said = from_afar(tls, "--host", HERE, "send", "in the clear")
    assert status != 0
    assert "tls" in said.lower()
    assert tls.texts() == ["from afar", "from here, in the clear"]
    assert " 10.9.9.2:" in tls.machine.shell("cat /var/log/msgd/current.log")


def test_names_that_certificates_prove(tls: Server) -> None:
    tls.machine.run("msgd", "make-tls", "--client", "web1", FOLDER)
    tls.configure(CONFIG % f"client_ca: {FOLDER}/ca.pem")
    tls.restart()
    proved = [f"--cert={FOLDER}/client-web1.pem", f"--key={FOLDER}/client-web1.key"]
    assert from_afar(tls, *MINE, *proved, "send", "by web1") == (0, "by web1\n", "")
    assert "@web1 by web1" in tls.machine.shell("cat /var/log/msgd/current.log")
    status, _, said = from_afar(tls, *MINE, "send", "by nobody")
    assert status == 69, said
    assert tls.texts() == ["by web1"]


def test_a_renewal_under_load_breaks_no_connection(server: Server) -> None:
    """While a client sends, another certificate of another authority takes the old one's place."""
    machine = server.machine
    machine.shell(PEER)
    for folder in (FOLDER, "/etc/renewed"):
        machine.run("msgd", "make-tls", folder, HERE)
        machine.shell(f"chgrp msgd {folder}/server.key; chmod 640 {folder}/server.key")
    server.configure(CONFIG % f"key: {FOLDER}/server.key")
    server.restart()
    machine.path("/root/load.py").write_text(LOAD)
    machine.path("/root/go-on").touch()
    send = (
        f"python3 /root/load.py | ip netns exec peer msgctl {' '.join(MINE)} send - >/root/echoes"
    )
    machine.shell(f"({send}; echo $? >/root/status) </dev/null >/dev/null 2>&1 &")
    echoes = machine.path("/root/echoes")
    wait_for(lambda: echoes.exists() and echoes.stat().st_size, why="echoes")
    machine.shell(f"cp -p /etc/renewed/server.* {FOLDER}/; systemctl reload {UNIT}")
    renewed = [f"--host={HERE}", "--tls", "--ca=/etc/renewed/ca.pem"]
    wait_for(lambda: from_afar(server, *renewed, "send", "renewed")[0] == 0, why="the renewal")
    size = echoes.stat().st_size
    wait_for(lambda: echoes.stat().st_size > size, why="echoes on the old connection")
    status, _, said = from_afar(server, *MINE, "send", "by the old authority")
    assert status == 69, said
    machine.path("/root/go-on").unlink()
    wait_for(machine.path("/root/status").exists, why="the client's end")
    assert machine.path("/root/status").read_text() == "0\n"
    texts = [text for text in server.texts() if text != "renewed"]
    assert texts == echoes.read_text().split() == [str(number) for number in range(len(texts))]


def test_an_unusable_renewal_is_reported_and_the_old_one_stays(tls: Server) -> None:
    tls.machine.path(f"{FOLDER}/server.pem").write_text("not a certificate\n")
    tls.machine.run("systemctl", "reload", UNIT, check=False)
    entry = tls.wait_for_journal(f"{FOLDER}/server.pem")
    assert int(entry["PRIORITY"]) <= 4
    assert from_afar(tls, *MINE, "send", "as before") == (0, "as before\n", "")
