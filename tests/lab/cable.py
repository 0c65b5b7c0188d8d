"""A network of one's own that can be cut: network namespaces, cables of the kernel, a switch.

Needs root and iproute2. Nothing of it is in the host's network, and all of it is gone when the
process that made it has ended.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from contextlib import ExitStack

from tests.lab.waiting import wait_for

_NETWORK = "10.9.0"
_SWITCH = 254  # the last part of its address


def can_cable() -> bool:
    """Whether this machine lets us."""
    if os.geteuid() or not all(map(shutil.which, ("ip", "nsenter", "unshare"))):
        return False
    trial = ["unshare", "--net", "ip", "link", "add", "br0", "type", "bridge"]
    return not subprocess.run(trial, stderr=subprocess.DEVNULL, check=False).returncode


class Namespace:
    """A network namespace, which lives as long as this process does."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        self.pid = self._holder.pid
        ours = os.readlink("/proc/self/ns/net")
        wait_for(lambda: os.readlink(f"/proc/{self.pid}/ns/net") != ours, "a namespace")
        self.ip("link", "set", "lo", "up")

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command begins with that is to run there."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net")

    def ip(self, *arguments: str) -> None:
        subprocess.run([*self.inside, "ip", *arguments], check=True)

    def close(self) -> None:
        self._holder.communicate()


class Switch:
    """Where the relays are, and to which all cables lead."""

    def __init__(self) -> None:
        self._namespace = Namespace()
        self.inside = self._namespace.inside
        self.ip = self._namespace.ip
        self.ip("link", "add", "br0", "type", "bridge")
        self.ip("address", "add", f"{_NETWORK}.{_SWITCH}/24", "dev", "br0")
        self.ip("link", "set", "br0", "up")

    def close(self) -> None:
        self._namespace.close()


class Cable:
    """A machine of its own, as far as the network goes, at the end of a cable."""

    def __init__(self, switch: Switch, number: int, chance: random.Random) -> None:
        self.host = f"{_NETWORK}.{number}"
        self._port, self._chance = f"port{number}", chance
        self._switch, self._namespace = switch, Namespace()
        self.inside = self._namespace.inside
        end = f"{self._namespace.pid}"
        kind = ["type", "veth", "peer", "name", "eth0", "netns", end]
        switch.ip("link", "add", self._port, "mtu", "1500", *kind)
        switch.ip("link", "set", self._port, "master", "br0", "up")
        self._namespace.ip("address", "add", f"{self.host}/24", "dev", "eth0")
        self._namespace.ip("link", "set", "eth0", "up")

    def cut(self) -> None:
        """Pull it, at one end or the other: packets get lost, connections stay."""
        if self._chance.random() < 0.5:
            self._switch.ip("link", "set", self._port, "down")
        else:
            self._namespace.ip("link", "set", "eth0", "down")

    def heal(self) -> None:
        self._switch.ip("link", "set", self._port, "up")
        self._namespace.ip("link", "set", "eth0", "up")

    def close(self) -> None:
        self._namespace.close()


class Cabling:
    """A switch with a cable to each of so many machines."""

    def __init__(self, number: int, chance: random.Random) -> None:
        with ExitStack() as stack:
            self.switch = Switch()
            stack.callback(self.switch.close)
            self.cables = []
            for at in range(1, number + 1):
                self.cables.append(Cable(self.switch, at, chance))
                stack.callback(self.cables[-1].close)
            self._ends = stack.pop_all()

    def close(self) -> None:
        self._ends.close()
