"""msgd on a booted machine, as its administrator sees it."""

from __future__ import annotations

import json
import re

from .machine import Machine, wait_for

UNIT = "msgd.service"

# A second machine, as far as the network goes: a network namespace "peer" at the end of a cable.
PEER = """
ip netns add peer
ip link add toward-peer type veth peer name toward-msgd netns peer
ip address add 10.9.9.1/24 dev toward-peer
ip link set toward-peer up
ip -n peer address add 10.9.9.2/24 dev toward-msgd
ip -n peer link set toward-msgd up
"""

RECORD = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d) "
    r"(?P<origin>(?:unix|\S+):\d+(?:@[\w.-]+)?(?:/[\w.-]+:\d+(?:\+\d+)?)?) (?P<text>.*)"
)


class Server:
    """The service, its configuration, its archive and its journal."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def show(self, name: str, unit: str = UNIT) -> str:
        """A property of a unit, as `systemctl show` gives it."""
        return self.machine.shell(f"systemctl show --property={name} --value {unit}")

    @property
    def pid(self) -> int:
        """The main process; 0 where there is none."""
        return int(self.show("MainPID"))

    def is_active(self, unit: str = UNIT) -> bool:
        return self.show("ActiveState", unit) == "active"

    def send(self, text: str) -> str:
        """Send one message; returns its echo."""
        return self.machine.run("msgctl", "send", text).stdout.rstrip("\n")

    def texts(self, torn: int = 0) -> list[str]:
        """The texts of all records in the archive, oldest day first.

        Fails on a line that is neither a record nor the continuation of one; but for so many,
        which kills in the middle of a write may have left and the next start has ended.
        """
        archive = self.machine.shell("cd /var/log/msgd; cat [0-9]*.log 2>/dev/null || true")
        texts: list[str] = []
        for line in archive.split("\n") if archive else []:
            if line.startswith("\t"):
                texts[-1] += "\n" + line[1:]
            else:
                match = RECORD.fullmatch(line)
                torn -= not match
                assert torn >= 0, f"no record: {line!r}"
                if match:
                    texts.append(match["text"])
        return texts

    def configure(self, text: str) -> None:
        """Replace the configuration; owner and mode stay."""
        self.machine.path("/etc/msgd.yaml").write_text(text)

    def drop_in(self, text: str, unit: str = UNIT) -> None:
        """What `systemctl edit` does, with the text of the drop-in."""
        folder = self.machine.path(f"/etc/systemd/system/{unit}.d")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.conf").write_text(text)
        self.machine.run("systemctl", "daemon-reload")

    def restart(self) -> None:
        self.machine.run("systemctl", "restart", UNIT)

    def hash(self, password: str) -> str:
        return self.machine.run("msgd", "hash-password", input=f"{password}\n").stdout.strip()

    def journal(self, level: str = "debug") -> list[dict[str, str]]:
        """The entries that the daemon itself wrote, of this level and above."""
        self.machine.run("journalctl", "--sync")
        lines = self.machine.shell(
            f"journalctl --unit={UNIT} --output=json --priority={level} _COMM=msgd || true"
        )
        return [json.loads(line) for line in lines.splitlines()]

    def wait_for_journal(self, words: str) -> dict[str, str]:
        """The newest entry that contains `words`, waited for."""

        def newest() -> dict[str, str] | None:
            found = [entry for entry in self.journal() if words in entry["MESSAGE"]]
            return found[-1] if found else None

        return wait_for(newest, why=f"{words!r} in the journal")

    def wait_for_restart(self, old_pid: int) -> int:
        """The new main process, once systemd has started it and it is ready."""
        wait_for(lambda: self.is_active() and self.pid not in (0, old_pid), why="restarted")
        return self.pid
