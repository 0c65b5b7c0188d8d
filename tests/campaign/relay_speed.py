"""How fast the relay is, beside raw publishing by the same library: four figures, one server.

    python -m tests.campaign.relay_speed

`ship` is held against nats-py alone, which publishes blocks of the same size one at a time with the
expected sequence, in turn (A B B A). The others are the time from an echo to the collected file,
memory at full speed, and memory while the server is away and the archive grows.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import tempfile
import time
from pathlib import Path

from msgd.archive.final import final_line
from msgd.relay.answers import ApiError
from msgd.relay.blocks import BLOCK, headers, source
from msgd.relay.engine import Engine
from msgd.relay.options import load
from msgd.relay.program import keep_memory
from tests.lab.daemon import Daemon
from tests.lab.nats import NatsServer, free_ports
from tests.lab.proc import cpu_seconds
from tests.lab.relay import Relay

MIB = 1 << 20
DAY = "2026-11-20"
_LINE = b"%bT02:51:07.123456+00:00 127.0.0.1:40312 %b\n" % (DAY.encode(), b"x" * 100)
_ECHOES = 300


def _engine(url: str) -> Engine:
    return Engine(load(None)._replace(servers=(url,)), "_INBOX.speed")


def _ask(url: str, verb: str, body: object = None) -> dict[str, object]:
    async def run() -> dict[str, object]:
        engine = _engine(url)
        await engine.connect()
        try:
            return await engine.api(verb, body)  # type: ignore[arg-type]
        except ApiError as error:
            return {"error": str(error)}
        finally:
            await engine.close()

    return asyncio.run(run())


def new_stream(url: str) -> None:
    _ask(url, "STREAM.DELETE.MSGD")
    _ask(url, "STREAM.CREATE.MSGD", {"name": "MSGD", "subjects": ["msgd.>"]})


def publish_raw(url: str, data: bytes) -> float:
    """Megabytes a second of the same blocks with the same headers, from memory, by nothing but the
    library; this process keeps memory as msgd-relay does.
    """
    keep_memory()
    asyncio.run(_publish_raw(url, data))
    return _rate(url)


async def _publish_raw(url: str, data: bytes) -> None:
    import nats

    client = await nats.connect(url)
    us, sequence = source("machine", "archive"), 0
    for at in range(0, len(data), BLOCK):
        reply = await client.request(
            f"msgd.web1.{DAY}.1",
            data[at : at + BLOCK],
            timeout=5,
            headers=headers(at, us, sequence),
        )
        sequence = json.loads(reply.data)["seq"]
    await client.close()


def ship_all(folder: Path, url: str, size: int) -> float:
    """Megabytes a second of msgd-relay ship."""
    ship = Relay(folder, "ship", f"servers: {url}\nnode: web1\narchive: {folder}/archive\n")
    try:
        asyncio.run(_until_there(url, size))
    finally:
        ship.kill()
    return _rate(url)


async def _until_there(url: str, size: int) -> None:
    """Over one connection and seldom, as what this costs is not ship's."""
    engine = _engine(url)
    await engine.connect()
    while (await engine.api("STREAM.INFO.MSGD"))["state"]["bytes"] < size:
        await asyncio.sleep(0.2)
    await engine.close()


def _rate(url: str) -> float:
    """From the first block to the last, by the times that the stream noted: MB/s."""
    blocks = f"msgd.web1.{DAY}.1"
    first = _message(url, {"seq": 1, "next_by_subj": blocks})
    last = _message(url, {"last_by_subj": blocks})
    size = int(last["seq"]) - int(first["seq"])
    return size * BLOCK / (_time(last["time"]) - _time(first["time"])) / 1e6


def _message(url: str, which: object) -> dict[str, str]:
    message = _ask(url, "STREAM.MSG.GET.MSGD", which)["message"]
    assert isinstance(message, dict)
    return message


def _time(text: str) -> float:
    found = re.match(r"\d+-\d+-\d+T(\d+):(\d+):([\d.]+)", text)
    assert found
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])


def grow(archive: Path, size: int) -> bytes:
    archive.mkdir(parents=True, exist_ok=True)
    data = _LINE * (size // len(_LINE))
    path = archive / f"{DAY}.log"
    path.write_bytes(data)
    (archive / ".msgd.final").write_bytes(final_line(DAY, len(data)))
    return data


def throughput(folder: Path, url: str, size: int = 128 * MIB) -> str:
    """A B B A, three times."""
    data = grow(folder / "archive", size)
    ratios, rates = [], []
    for _ in range(3):
        found = []
        for raw in (True, False, False, True):
            new_stream(url)
            found.append(publish_raw(url, data) if raw else ship_all(folder, url, len(data)))
        ratios.append((found[1] + found[2]) / (found[0] + found[3]))
        rates += found[1:3]
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return f"ship : raw publishing {shown}; {statistics.median(rates):.0f} MB/s of ship"


def delay(folder: Path, url: str) -> str:
    """From an echo that has come to the line in the collected file."""
    folder.mkdir()
    msgd = Daemon(folder, "listen: 127.0.0.1\n")
    to = folder / "to"
    relays = [
        Relay(folder / "c", "collect", f"servers: {url}\ncollect:\n  directory: {to}\n"),
        Relay(folder / "s", "ship", f"servers: {url}\nnode: w\narchive: {msgd.log_directory}\n"),
    ]
    times = []
    try:
        client = msgd.line_client()
        for number in range(_ECHOES):
            assert client.ask(b"MESG %d\n" % number)
            began, size = time.perf_counter(), msgd.files()[0].stat().st_size
            copy = to / "w" / msgd.files()[0].name
            while not copy.exists() or copy.stat().st_size < size:
                time.sleep(0.0002)
            times.append((time.perf_counter() - began) * 1000)
            time.sleep(0.01)
        busy = [cpu_seconds(relay.process.pid) for relay in relays if relay.process]
        time.sleep(5)
        idle = [cpu_seconds(relay.process.pid) for relay in relays if relay.process]
    finally:
        msgd.kill()
        for relay in relays:
            relay.kill()
    times.sort()
    return (
        f"from echo to collected file: p50 {times[len(times) // 2]:.1f} ms, "
        f"p99 {times[len(times) * 99 // 100]:.1f} ms; processor while idle: collect "
        f"{(idle[0] - busy[0]) / 5:.1%}, ship {(idle[1] - busy[1]) / 5:.1%}"
    )


def memory(folder: Path, server: NatsServer, size: int = 512 * MIB) -> str:
    """The highest resident size of both, at full speed; and of ship while the server is away."""
    grow(folder / "archive", size)
    new_stream(server.url)
    server.kill()
    ship = Relay(folder, "ship", f"servers: {server.url}\nnode: web1\narchive: {folder}/archive\n")
    time.sleep(10)
    away = _peak(ship)
    server.start()
    to = folder / "to"
    config = f"servers: {server.url}\ncollect:\n  directory: {to}\n"
    collect = Relay(folder / "c", "collect", config)
    copy = to / "web1" / f"{DAY}.log"
    began = time.perf_counter()
    while not copy.exists() or copy.stat().st_size < size // len(_LINE) * len(_LINE):
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    peaks = _peak(ship), _peak(collect)
    ship.kill()
    collect.kill()
    return (
        f"memory: ship {away} MiB while the server is away, {peaks[0]} at full speed, collect "
        f"{peaks[1]}; {size // MIB} MiB shipped and collected in {seconds:.1f} s"
    )


def _peak(relay: Relay) -> int:
    assert relay.process is not None
    status = Path(f"/proc/{relay.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) >> 10


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="msgd-relay-speed-") as name:
        folder = Path(name)
        server = NatsServer(folder / "nats", free_ports(1)[0])
        server.start()
        try:
            print(throughput(folder / "a", server.url), flush=True)
            new_stream(server.url)
            print(delay(folder / "b", server.url), flush=True)
            print(memory(folder / "c", server), flush=True)
        finally:
            server.kill()
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
