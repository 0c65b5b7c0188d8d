"""The package over its life: install, upgrade, remove, purge, all without a network."""

from __future__ import annotations

from pathlib import Path

from .conftest import output
from .machine import Machine
from .server import UNIT, Server

RELAY = ("msgd-relay-ship.service", "msgd-relay-collect.service")


def older(package: Path, folder: Path) -> Path:
    """The same package as an older version, whose configuration file differed."""
    root = folder / "root"
    output("dpkg-deb", "--raw-extract", package, root)
    control = root / "DEBIAN/control"
    control.write_text(control.read_text().replace("Version: ", "Version: 0.9~"))
    configuration = root / "etc/msgd.yaml"
    configuration.write_text("# The configuration of an older msgd.\n")
    output("dpkg-deb", "--build", root, folder / "older.deb")
    return folder / "older.deb"


def install(machine: Machine, package: Path, *options: str) -> None:
    machine.push(package, "/root/msgd.deb")
    machine.run("apt-get", "install", "--yes", *options, "/root/msgd.deb", seconds=120)


def test_installed_it_runs_and_archives(server: Server) -> None:
    assert server.is_active()
    assert server.send("first") == "first"
    assert server.texts() == ["first"]


def test_the_service_is_enabled_and_the_socket_is_not(server: Server) -> None:
    enabled = server.machine.run("systemctl", "is-enabled", UNIT, "msgd.socket", check=False)
    assert enabled.stdout.split() == ["enabled", "disabled"]
    assert not server.is_active("msgd.socket")


def test_the_relay_is_there_and_disabled(server: Server) -> None:
    for unit in RELAY:
        assert server.machine.run("systemctl", "is-enabled", unit, check=False).stdout == (
            "disabled\n"
        )
        assert not server.is_active(unit)
        server.machine.run("systemd-analyze", "security", "--threshold=15", unit)


def test_an_upgrade_restarts_the_relay_where_it_runs(
    machine: Machine, package: Path, tmp_path: Path
) -> None:
    """The unit counts here, not the program, whose library is not in this machine."""
    install(machine, older(package, tmp_path))
    server, (runs, rests) = Server(machine), RELAY
    program = "Type=simple\nWatchdogSec=0\nExecStart=\nExecStart=/usr/bin/sleep infinity\n"
    server.drop_in(f"[Service]\n{program}", runs)
    machine.run("systemctl", "start", runs)
    before = server.show("MainPID", runs)
    install(machine, package)
    assert server.is_active(runs)
    assert server.show("MainPID", runs) not in ("0", before)
    assert not server.is_active(rests)


def test_owners_and_modes(server: Server) -> None:
    server.send("first")
    wanted = {
        "/etc/msgd.yaml": "640 root:msgd",
        "/etc/msgd-relay.yaml": "640 root:msgd-relay",
        "/var/log/msgd": "750 msgd:msgd",
        "/var/log/msgd/current.log": "640 msgd:msgd",
    }
    for path, mode in wanted.items():
        assert server.machine.shell(f"stat --dereference --format='%a %U:%G' {path}") == mode


def test_group_adm_reads_the_archive_and_others_do_not(server: Server) -> None:
    server.machine.shell("useradd reader; useradd stranger; usermod --append --groups adm reader")
    server.send("first")
    read = "cat /var/log/msgd/current.log"
    assert server.machine.shell(f"runuser -u reader -- {read}").endswith(" first")
    refused = server.machine.run("runuser", "-u", "stranger", "--", *read.split(), check=False)
    assert "Permission denied" in refused.stderr
    write = server.machine.run(
        "runuser", "-u", "reader", "--", "sh", "-c", "echo >>/var/log/msgd/current.log", check=False
    )
    assert "Permission denied" in write.stderr


def test_the_service_is_not_in_group_adm(server: Server) -> None:
    status = server.machine.path(f"/proc/{server.pid}/status").read_text()
    groups = {
        word
        for line in status.splitlines()
        if line[:3] in ("Gid", "Gro")
        for word in line.split()[1:]
    }
    assert groups == {server.machine.shell("id --group msgd")}


def test_upgrade_keeps_an_edited_configuration_and_restarts(
    machine: Machine, package: Path, tmp_path: Path
) -> None:
    install(machine, older(package, tmp_path))
    server = Server(machine)
    server.configure("# mine\nport: 7000\n")
    server.restart()
    machine.run("msgctl", "--port", "7000", "send", "before")
    pid = server.pid
    install(machine, package, "--option=Dpkg::Options::=--force-confold")
    assert machine.path("/etc/msgd.yaml").read_text() == "# mine\nport: 7000\n"
    assert machine.shell("stat --format='%a %U:%G' /etc/msgd.yaml") == "640 root:msgd"
    assert server.pid not in (0, pid)
    machine.run("msgctl", "--port", "7000", "send", "after")
    assert server.texts() == ["before", "after"]


def test_upgrade_leaves_an_active_socket_open(
    machine: Machine, package: Path, tmp_path: Path
) -> None:
    """The same socket listens before and after: its inode number is the same."""
    install(machine, older(package, tmp_path))
    server = Server(machine)
    machine.shell(f"systemctl stop {UNIT}; systemctl enable --now msgd.socket")
    server.send("before")
    listening = "ss --listening --tcp --extended --no-header sport = 6743 | grep -o 'ino:[0-9]*'"
    before, pid = machine.shell(listening), server.pid
    install(machine, package)
    assert server.is_active("msgd.socket")
    assert machine.shell(listening) == before
    assert server.send("after") == "after"
    assert server.pid not in (0, pid)
    assert server.texts() == ["before", "after"]


def test_upgrade_replaces_an_untouched_configuration(
    machine: Machine, package: Path, tmp_path: Path
) -> None:
    install(machine, older(package, tmp_path))
    install(machine, package)
    assert "an older msgd" not in machine.path("/etc/msgd.yaml").read_text()
    assert Server(machine).send("after") == "after"


def test_remove_stops_it_and_keeps_configuration_and_archive(server: Server) -> None:
    server.send("kept")
    server.machine.shell(f"systemctl stop {UNIT}; systemctl enable --now msgd.socket")
    server.machine.run("apt-get", "remove", "--yes", "msgd")
    assert not server.is_active()
    assert not server.is_active("msgd.socket")
    assert server.machine.shell("pgrep --list-full msgd || true") == ""
    assert server.machine.path("/etc/msgd.yaml").exists()
    assert server.texts() == ["kept"]


def test_purge_removes_the_configuration_and_leaves_the_archive(server: Server) -> None:
    server.send("kept")
    server.machine.run("apt-get", "purge", "--yes", "msgd")
    assert not server.machine.path("/etc/msgd.yaml").exists()
    left = server.machine.shell(
        "find /etc /usr /lib -xdev -name '*msgd*' -not -path '/usr/share/doc/*'"
    )
    assert left == ""
    assert server.texts() == ["kept"]
    assert server.machine.shell("stat --format=%U /var/log/msgd") == "msgd"


def test_purged_and_installed_again_it_goes_on(server: Server) -> None:
    server.send("kept")
    server.machine.run("apt-get", "purge", "--yes", "msgd")
    server.machine.run("apt-get", "install", "--yes", "/root/msgd.deb", seconds=120)
    server.send("and more")
    assert server.texts() == ["kept", "and more"]
