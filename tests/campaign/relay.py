"""Everything between a client and a collected file is killed and stopped at random, under load.

Two nodes with session clients that never give up; a msgd and a `ship` each; one server, or three as
a cluster; one `collect`. At the end everything runs again, and the collected files must be the
nodes' own, byte by byte, with each message of each session once and in order.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from msgd.archive.reader import read_days
from tests.lab.cable import Cable, Cabling, can_cable
from tests.lab.cut import Network
from tests.lab.daemon import Daemon
from tests.lab.nats import HERE, NatsServer, Place, cluster, free_ports
from tests.lab.relay import Relay

CONFIG = "listen: 127.0.0.1\n"
SECONDS = 90.0  # for everything to come to rest: a lost leader takes seconds


class Writer(threading.Thread):
    """One session, which goes on over whatever breaks; message k is ``name k``."""

    def __init__(self, name: str, port: int, window: int) -> None:
        super().__init__(name=name, daemon=True)
        self.confirmed = 0
        self.problem = ""
        self._port, self._window = port, window
        self._halt = threading.Event()

    def stop(self) -> None:
        self._halt.set()

    def run(self) -> None:
        while not self._halt.is_set():
            with suppress(OSError, EOFError):
                self._talk()
            self._halt.wait(0.05)

    def _talk(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), 5) as connection:
            file = connection.makefile("rb")
            connection.sendall(b"PING\nSESS %b\n" % self.name.encode())
            self._expect(file.readline(), b"PONG\n")
            answer = file.readline()
            if not answer.startswith(b"SESS "):
                raise EOFError
            told = int(answer[5:])
            if told < self.confirmed:
                self.problem = f"{self.name}: {self.confirmed} confirmed, {told} told"
                self._halt.set()
            self.confirmed = told
            while not self._halt.is_set():
                texts = [self._text(self.confirmed + k) for k in range(1, self._window + 1)]
                connection.sendall(b"".join(texts))
                for text in texts:
                    self._expect(file.readline(), text)
                    self.confirmed += 1

    def _text(self, number: int) -> bytes:
        return b"MESG %b %d\n" % (self.name.encode(), number)

    def _expect(self, found: bytes, wanted: bytes) -> None:
        if not found.endswith(b"\n"):
            raise EOFError
        if found != wanted:
            self.problem = f"{self.name}: {found!r} instead of {wanted!r}"
            self._halt.set()
            raise EOFError


class Node:
    """A msgd on a port of its own, and its relay."""

    def __init__(
        self,
        folder: Path,
        name: str,
        servers: str,
        port: int,
        window: int,
        inside: tuple[str, ...],
    ) -> None:
        self.name, self._folder, self._port = name, folder, port
        folder.mkdir(parents=True)
        self.msgd = self._start()
        self.archive = self.msgd.log_directory
        self.config = f"servers: [{servers}]\nnode: {name}\narchive: {self.archive}\n"
        self.ship = Relay(folder, "ship", self.config, inside=inside)
        self.writers = [Writer(f"{name}-{number}", port, window) for number in range(2)]
        for writer in self.writers:
            writer.start()

    def _start(self) -> Daemon:
        return Daemon(self._folder, CONFIG, "--port", str(self._port))

    def kill_msgd(self) -> None:
        self.msgd.kill()
        self.msgd = self._start()

    def end(self) -> None:
        for writer in self.writers:
            writer.stop()
        self.msgd.kill()
        self.ship.kill()

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.archive.glob("????-??-??.log")}


class Forwarders:
    """Servers on loopback, each behind a forwarder."""

    inside: tuple[str, ...] = ()  # what a relay's command begins with

    def __init__(self, folder: Path, number: int, chance: random.Random) -> None:
        self.servers = cluster(folder, [HERE] * number)
        self.networks = [Network(server.port, chance) for server in self.servers]
        self.urls = ", ".join(f"nats://127.0.0.1:{network.port}" for network in self.networks)

    def close(self) -> None:
        for network in self.networks:
            network.stop()


class Cables:
    """Servers in network namespaces, each at the end of a cable."""

    def __init__(self, folder: Path, number: int, chance: random.Random) -> None:
        self._cabling = Cabling(number, chance)
        self.inside, self.networks = self._cabling.switch.inside, self._cabling.cables
        self.servers = cluster(folder, [Place(at.host, at.inside) for at in self.networks])
        self.urls = ", ".join(server.url for server in self.servers)

    def close(self) -> None:
        self._cabling.close()


class World:
    """All of them, and what can happen to them."""

    def __init__(
        self, folder: Path, servers: int, chance: random.Random, window: int, cables: bool
    ) -> None:
        self.chance = chance
        self._ends = ExitStack()
        self._folder = folder
        self.collected = folder / "collected"
        self.happened = 0
        kind: type[Cables | Forwarders] = Cables if cables else Forwarders
        self._wires = kind(folder / "nats", servers, chance)
        self._ends.callback(self._wires.close)
        self.servers = self._wires.servers
        try:
            self._start(window)
        except BaseException:
            self.end()
            raise

    def _start(self, window: int) -> None:
        folder, urls = self._folder, self._wires.urls
        for server in self.servers:
            self._ends.callback(server.kill)
            server.start(wait=False)
        for server in self.servers:
            server.wait()
        self._collect_config = (
            f"servers: [{urls}]\ncollect:\n  directory: {self.collected}\n"
            f"  replicas: {len(self.servers)}\n  max_bytes: {4 << 30}\n"
        )
        self.collect = self._relay(folder / "collect", "collect", self._collect_config)
        self._more: list[Relay] = []
        self.nodes: list[Node] = []
        inside = self._wires.inside
        for name, port in zip(("web1", "web2"), free_ports(2), strict=True):
            self.nodes.append(Node(folder / name, name, urls, port, window, inside))
            self._ends.callback(self.nodes[-1].end)

    def _relay(self, folder: Path, verb: str, config: str) -> Relay:
        relay = Relay(folder, verb, config, inside=self._wires.inside)
        self._ends.callback(relay.kill)
        return relay

    def happen(self) -> None:
        """One thing, at random."""
        node = self.chance.choice(self.nodes)
        what: list[Callable[[], None]] = [
            node.kill_msgd,
            lambda: _again(node.ship),
            lambda: _again(self.collect),
            lambda: self._kill_servers([self.chance.choice(self.servers)]),
            lambda: self._kill_servers(self.servers),
            lambda: self._freeze(node),
            self._cut,
            lambda: self._second(node),
        ]
        self.chance.choice(what)()
        self.happened += 1

    def _kill_servers(self, servers: list[NatsServer]) -> None:
        for server in servers:
            server.kill()
        time.sleep(self.chance.uniform(0, 1))  # how long they are away is what is random
        for server in servers:
            server.start(wait=False)

    def _freeze(self, node: Node) -> None:
        processes = [node.ship.process, self.collect.process, node.msgd.process]
        processes += [server.process for server in self.servers]
        process = self.chance.choice(processes)
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        time.sleep(self.chance.uniform(0.1, 8 if process is node.ship.process else 2))
        process.send_signal(signal.SIGCONT)

    def _cut(self) -> None:
        """The network between the relays and their servers is away, or some of it."""
        networks: list[Network | Cable] = [*self._wires.networks]
        cut = self.chance.sample(networks, self.chance.randint(1, len(networks)))
        for network in cut:
            network.cut()
        time.sleep(self.chance.choice([0.1, 1, 8]))
        for network in cut:
            network.heal()

    def _second(self, node: Node) -> None:
        """A relay that was thought dead, and a collector that must stay out."""
        folder = self._folder / f"second{len(self._more)}"
        self._more.append(self._relay(folder, "ship", node.config))
        time.sleep(self.chance.uniform(0.1, 1))
        if len(self._more) > 2:
            self._more[-3].kill()
        other = self._relay(folder / "collect", "collect", self._collect_config)
        assert other.wait() == 1, other.log

    def check(self) -> str:
        """Let everything come to rest, and compare."""
        for node in self.nodes:
            for writer in node.writers:
                writer.stop()
            for writer in node.writers:
                writer.join()
                assert not writer.problem, writer.problem
            assert node.msgd.stop() == 0, node.msgd.log
            node.msgd.kill()
            node.msgd = node._start()  # so that what a kill has left is marked, and final
        messages = size = 0
        for node in self.nodes:
            self._wait(node)
            size += sum(map(len, node.files().values()))
            messages += _verify(self.collected / node.name, node.writers)
        for relay in (self.collect, *(node.ship for node in self.nodes), *self._more):
            assert "Traceback" not in relay.log, relay.log
            assert "is not what" not in relay.log, relay.log
            assert "no longer in the stream" not in relay.log, relay.log
        return (
            f"{self.happened} things happened; {messages} messages in {size} bytes were collected, "
            "each once, and the files are the same"
        )

    def _wait(self, node: Node) -> None:
        end = time.monotonic() + SECONDS
        folder = self.collected / node.name
        while True:
            found = {path.name: path.read_bytes() for path in folder.glob("*.log")}
            if found == node.files():
                return
            sizes = [
                {name: len(data) for name, data in files.items()} for files in (found, node.files())
            ]
            assert time.monotonic() < end, (
                f"{node.name}: {sizes[0]} collected of {sizes[1]}\n"
                f"{node.ship.log[-2000:]}\n{self.collect.log[-2000:]}"
            )
            time.sleep(0.1)

    def end(self) -> None:
        """Whatever has been started."""
        self._ends.close()


def _again(relay: Relay) -> None:
    relay.kill()
    relay.start()


def _verify(folder: Path, writers: list[Writer]) -> int:
    """Each session's messages are there once, in order, up to what was confirmed at least."""
    last = {writer.name.encode(): 0 for writer in writers}
    for record in read_days(os.fspath(folder), strict=True):
        assert record.number == last[record.session] + 1, record
        assert record.text == b"%b %d" % (record.session, record.number), record
        last[record.session] = record.number
    for writer in writers:
        assert last[writer.name.encode()] >= writer.confirmed, writer.name
    return sum(last.values())


def campaign(
    folder: Path,
    again: Callable[[int], bool],
    seed: int,
    servers: int = 1,
    pause: float = 1.0,
    window: int = 200,
    cables: bool | None = None,
) -> str:
    """Let things happen as long as ``again`` says, with up to ``pause`` seconds between them.

    ``window`` is how many messages a client has without an answer: how much load there is.
    ``cables`` are taken where that is possible, unless said otherwise.
    """
    cables = can_cable() if cables is None else cables
    world = World(folder, servers, random.Random(seed), window, cables)
    try:
        while again(world.happened):
            time.sleep(world.chance.uniform(0, pause))  # the moment is what is random here
            world.happen()
        return world.check()
    finally:
        world.end()
