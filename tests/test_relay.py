"""msgd-relay beside a real nats-server: what is shipped is collected, byte by byte."""

from __future__ import annotations

import asyncio
import gzip
import random
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from msgd.archive import retention
from msgd.archive.final import final_line
from msgd.relay.engine import Engine
from msgd.relay.errors import Denied
from msgd.relay.options import load
from tests.campaign import relay as chaos
from tests.lab import creds, mounts, show_relay
from tests.lab.cable import can_cable
from tests.lab.certificates import Authority
from tests.lab.manager import Manager
from tests.lab.nats import NatsServer, find_server, free_ports
from tests.lab.relay import Relay
from tests.lab.waiting import wait_for

pytest.importorskip("nats")
pytestmark = pytest.mark.skipif(find_server() is None, reason="nats-server is not installed")

ROOT = Path(__file__).parent.parent
LINE = b"2026-11-%02dT02:51:07.123456+00:00 127.0.0.1:40312 a line, number %d\n"


class Bench:
    """A server, an archive that the test writes, and the programs between them."""

    def __init__(self, folder: Path, server: NatsServer, inside: tuple[str, ...] = ()) -> None:
        self.folder, self.server, self._inside = folder, server, inside
        self.archive = folder / "archive"
        self.archive.mkdir()
        self.collected = folder / "collected"
        self.relays: list[Relay] = []

    def run(
        self,
        verb: str,
        more: str = "",
        collect: str = "",
        name: str = "",
        archive: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> Relay:
        config = f"node: web1\narchive: {archive or self.archive}\n{more}\n"
        if "servers:" not in more:
            config += f"servers: {self.server.url}\n"
        config += f"collect:\n  directory: {self.collected}\n"
        if "max_bytes" not in collect:
            config += "  max_bytes: 1073741824\n"
        config += f"  {collect}\n"
        self.relays.append(Relay(self.folder / (name or verb), verb, config, env, self._inside))
        return self.relays[-1]

    def end(self) -> None:
        for relay in self.relays:
            relay.kill()
            assert "Traceback" not in relay.log
            assert "never retrieved" not in relay.log

    def write(self, day: str, data: bytes, *, final: bool = True) -> Path:
        """Add to a day's file, as msgd does."""
        path = self.archive / f"{day}.log"
        with path.open("ab") as file:
            file.write(data)
        if final:
            line = final_line(day, path.stat().st_size)
            (self.archive / ".msgd.final").write_bytes(line)
        return path

    def path(self, name: str) -> Path:
        return self.collected / "web1" / name

    def copy(self, name: str) -> bytes:
        return self.path(name).read_bytes() if self.path(name).exists() else b""

    def wait_copy(self, name: str, data: bytes) -> None:
        wait_for(lambda: self.copy(name) == data, f"{name} with {len(data)} bytes")

    def ask(self, verb: str, body: Any = None) -> dict[str, Any]:
        """What JetStream answers to an administrator."""

        async def run() -> dict[str, Any]:
            config = load(None)._replace(servers=(self.server.url,))
            engine = Engine(config, "_INBOX.test")
            await engine.connect()
            try:
                return await engine.api(verb, body)
            finally:
                await engine.close()

        return asyncio.run(run())


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., NatsServer]]:
    servers: list[NatsServer] = []

    def make(more: str = "") -> NatsServer:
        servers.append(NatsServer(tmp_path / f"nats{len(servers)}", free_ports(1)[0], more))
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
def make_bench(tmp_path: Path, serve: Callable[..., NatsServer]) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(more: str = "") -> Bench:
        made.append(Bench(tmp_path, serve(more)))
        return made[-1]

    yield make
    for bench in made:
        bench.end()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()


def lines(day: int, count: int, since: int = 0) -> bytes:
    return b"".join(LINE % (day, number) for number in range(since, since + count))


def test_today_and_the_days_before(bench: Bench) -> None:
    old, packed, today = lines(20, 9000), lines(21, 5000), lines(22, 3)
    bench.write("2026-11-20", old)
    (bench.archive / "2026-11-21.log.gz").write_bytes(gzip.compress(packed))
    bench.write("2026-11-22", today)
    collect = bench.run("collect")
    ship = bench.run("ship")
    bench.wait_copy("2026-11-20.log", old)
    bench.wait_copy("2026-11-21.log", packed)
    bench.wait_copy("2026-11-22.log", today)
    collect.wait_log(r"2026-11-20\.log: is what web1 has")
    collect.wait_log(r"2026-11-21\.log: is what web1 has")
    for number in range(20):
        today += (more := lines(22, 1, number))
        bench.write("2026-11-22", more)
        bench.wait_copy("2026-11-22.log", today)
    # Only what is final goes out.
    bench.write("2026-11-22", b"not final", final=False)
    bench.write("2026-11-23", new := lines(23, 2))
    bench.wait_copy("2026-11-23.log", new)
    bench.wait_copy("2026-11-22.log", today + b"not final")  # its day is over: as it is
    assert ship.stop() == 0
    assert collect.stop() == 0


@pytest.mark.thorough
def test_a_relay_that_was_down_for_days(bench: Bench) -> None:
    """Meanwhile retention has compressed what was shipped in part; one day it was killed at it."""
    bench.write("2026-11-20", lines(20, 9000))
    collect, ship = bench.run("collect"), bench.run("ship")
    bench.wait_copy("2026-11-20.log", lines(20, 9000))
    ship.kill()
    bench.write("2026-11-20", lines(20, 9000, 9000))
    bench.write("2026-11-21", lines(21, 500))
    whole = gzip.compress((bench.archive / "2026-11-21.log").read_bytes())
    retention.main(str(bench.archive), "2026-11-21", 0, "gzip")
    (bench.archive / "2026-11-21.log.gz").write_bytes(whole)  # and its plain file is still there
    bench.write("2026-11-22", lines(22, 5))
    assert not (bench.archive / "2026-11-20.log").exists()
    ship.start()
    bench.wait_copy("2026-11-20.log", lines(20, 18_000))
    bench.wait_copy("2026-11-21.log", lines(21, 500))
    bench.wait_copy("2026-11-22.log", lines(22, 5))
    wait_for(lambda: collect.log.count("is what web1 has") == 2)
    # The clock is set back to a day that is compressed, and later goes on.
    bench.write("2026-11-20", lines(20, 5, 18_000))
    bench.wait_copy("2026-11-20.log", lines(20, 18_005))
    bench.write("2026-11-22", lines(22, 5, 5))
    bench.wait_copy("2026-11-22.log", lines(22, 10))
    wait_for(lambda: collect.log.count("2026-11-20.log: is what web1 has") == 2)
    assert "is not what" not in ship.log + collect.log


def test_nothing_of_today_without_final(bench: Bench) -> None:
    bench.write("2026-11-20", lines(20, 3), final=False)
    bench.write("2026-11-21", lines(21, 3), final=False)
    bench.run("collect")
    ship = bench.run("ship")
    bench.wait_copy("2026-11-20.log", lines(20, 3))
    ship.wait_log(r"\.msgd\.final: is not there: nothing of today's is shipped")
    assert bench.copy("2026-11-21.log") == b""
    bench.write("2026-11-21", b"")
    bench.wait_copy("2026-11-21.log", lines(21, 3))


@pytest.mark.thorough
def test_all_are_killed_and_go_on(bench: Bench) -> None:
    """In any order, any time: nothing is missing, and nothing there twice."""
    collect, ship = bench.run("collect"), bench.run("ship")
    written = b""
    for number in range(6):
        written += (more := lines(22, 500, number * 500))
        bench.write("2026-11-22", more)
        half = len(written) // 2
        wait_for(lambda: len(bench.copy("2026-11-22.log")) >= half)  # noqa: B023 (waits here)
        victim = (ship, collect, bench.server)[number % 3]
        victim.kill()
        victim.start()
    bench.wait_copy("2026-11-22.log", written)


@pytest.mark.thorough
def test_another_source_is_an_error_of_the_second(bench: Bench, tmp_path: Path) -> None:
    bench.write("2026-11-22", lines(22, 3))
    bench.run("collect")
    bench.run("ship")
    bench.wait_copy("2026-11-22.log", lines(22, 3))
    other = tmp_path / "other"
    other.mkdir()
    second = bench.run("ship", name="second", archive=other)
    assert second.wait() == 78
    assert "node web1 is shipped already by another machine, or from another dir" in second.log
    same = bench.run("ship", name="same")  # harmless
    same.wait_log("shipping")
    bench.write("2026-11-22", lines(22, 500, 3))
    bench.wait_copy("2026-11-22.log", lines(22, 503))
    assert same.stop() == 0


@pytest.mark.thorough
def test_a_file_that_was_edited_is_shipped_again(bench: Bench) -> None:
    bench.write("2026-11-20", lines(20, 9000))
    bench.write("2026-11-22", lines(22, 3))
    collect, ship = bench.run("collect"), bench.run("ship")
    collect.wait_log("2026-11-20.log: is what web1 has")
    bench.wait_copy("2026-11-22.log", lines(22, 3))
    ship.kill()
    edited = lines(20, 9000).replace(b"number 17\n", b"number 71\n")
    (bench.archive / "2026-11-20.log").write_bytes(edited)
    (bench.archive / "2026-11-22.log").write_bytes(lines(22, 2))
    bench.write("2026-11-22", b"")
    ship.start()
    bench.wait_copy("2026-11-20.2.log", edited)
    bench.wait_copy("2026-11-22.2.log", lines(22, 2))
    ship.wait_log(r"2026-11-20\.log: is not what was shipped \(its SHA-256 is another\).*")
    ship.wait_log(r"2026-11-22\.log: is not what was shipped .*generation 2")
    collect.wait_log(r"2026-11-20\.2\.log: is what web1 has")
    assert bench.copy("2026-11-20.log") == lines(20, 9000)
    assert bench.copy("2026-11-22.log") == lines(22, 3)
    bench.write("2026-11-22", lines(22, 1, 7))
    bench.wait_copy("2026-11-22.2.log", lines(22, 2) + lines(22, 1, 7))


@pytest.mark.thorough
def test_collected_files_that_somebody_changed(bench: Bench) -> None:
    for day in (18, 19, 20, 22):
        bench.write(f"2026-11-{day}", lines(day, 9000))
    collect, ship = bench.run("collect"), bench.run("ship")
    for day in (18, 19, 20, 22):
        bench.wait_copy(f"2026-11-{day}.log", lines(day, 9000))
    wait_for(lambda: collect.log.count("is what web1 has") == 3)
    collect.kill()
    bench.path("2026-11-18.log").unlink()
    with bench.path("2026-11-19.log").open("r+b") as file:
        file.truncate(5000)
    with bench.path("2026-11-20.log").open("r+b") as file:
        file.truncate(600_000)
        file.write(b"X")
    changed = bench.copy("2026-11-20.log")
    with bench.path("2026-11-22.log").open("r+b") as file:
        file.write(b"Y")
        file.truncate(600_000)
    collect.start()
    bench.wait_copy("2026-11-18.log", lines(18, 9000))
    bench.wait_copy("2026-11-19.log", lines(19, 9000))
    collect.wait_log(r"2026-11-20\.log: from byte 0 on it is not what the stream has")
    collect.wait_log(r"2026-11-22\.log: from byte 0 on it is not what the stream has")
    bench.write("2026-11-22", lines(22, 500, 9000))
    bench.write("2026-11-23", lines(23, 1))
    bench.wait_copy("2026-11-23.log", lines(23, 1))
    assert bench.copy("2026-11-20.log") == changed
    assert len(bench.copy("2026-11-22.log")) == 600_000
    assert collect.log.count("2026-11-20.log: from byte") == 1
    assert ship.stop() == 0


@pytest.mark.thorough
def test_what_the_stream_has_lost(bench: Bench) -> None:
    bench.write("2026-11-22", lines(22, 9000))
    collect = bench.run("collect")
    bench.run("ship")
    bench.wait_copy("2026-11-22.log", lines(22, 9000))
    collect.kill()
    bench.path("2026-11-22.log").unlink()
    bench.ask("STREAM.PURGE.MSGD", {"filter": "msgd.web1.2026-11-22.1", "keep": 1})
    collect.start()
    collect.wait_log(
        r"2026-11-22\.log: what comes behind byte 0 is no longer in the stream: .*copy"
    )
    collect.kill()
    bench.path("2026-11-22.log").write_bytes((bench.archive / "2026-11-22.log").read_bytes())
    bench.write("2026-11-22", lines(22, 1, 9000))
    collect.start()
    bench.wait_copy("2026-11-22.log", lines(22, 9001))


def test_records_longer_than_a_message_may_be(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("max_payload: 4096\n")
    data = lines(22, 3) + LINE[:-1] % (22, 4) + b"x" * 30_000 + b"\n\tmore\n" + lines(22, 200, 5)
    bench.write("2026-11-22", data)
    bench.run("collect").wait_log("made the stream")
    ship = bench.run("ship")
    bench.wait_copy("2026-11-22.log", data)
    assert "trying again" not in ship.log
    made = bench.ask("STREAM.INFO.MSGD")["state"]
    assert made["messages"] >= len(data) // 4096


def test_a_stream_for_which_there_is_no_room(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    collect = bench.run("collect", collect=f"max_bytes: {1 << 50}")
    collect.wait_log(rf"no room for a stream of {1 << 50} bytes \(.*\): lower collect.max_bytes")


def test_a_stream_that_is_full(bench: Bench) -> None:
    collect = bench.run("collect", collect="max_bytes: 1048576")
    ship = bench.run("ship")
    data = lines(22, 30_000)
    bench.write("2026-11-22", data)
    ship.wait_log(r"the stream MSGD takes no more \(.*\): nothing is lost")
    stream = bench.ask("STREAM.INFO.MSGD")["config"]
    bench.ask("STREAM.UPDATE.MSGD", stream | {"max_bytes": 1 << 30})
    bench.wait_copy("2026-11-22.log", data)
    ship.wait_log("works again")
    assert collect.stop() == 0


def test_a_stream_that_was_made_anew(bench: Bench) -> None:
    bench.write("2026-11-20", lines(20, 5))
    bench.write("2026-11-22", lines(22, 5))
    collect, ship = bench.run("collect"), bench.run("ship")
    collect.wait_log("2026-11-20.log: is what web1 has")
    bench.wait_copy("2026-11-22.log", lines(22, 5))
    bench.ask("STREAM.DELETE.MSGD")
    bench.write("2026-11-22", lines(22, 5, 5))
    bench.wait_copy("2026-11-22.log", lines(22, 10))
    assert ship.stop() == 0
    assert "not what" not in collect.log + ship.log


def test_a_server_that_is_away(bench: Bench) -> None:
    bench.server.kill()
    bench.write("2026-11-22", lines(22, 5))
    collect, ship = bench.run("collect"), bench.run("ship")
    for relay in (collect, ship):
        relay.wait_log(rf"{bench.server.url}: .*; trying again until it works")
    bench.server.start()
    bench.wait_copy("2026-11-22.log", lines(22, 5))
    ship.wait_log("works again")
    assert ship.log.count(bench.server.url) == 1


def test_a_wrong_password_ends_it(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("authorization { user: a, password: b }\n")
    wrong = ("ship", ""), ("ship", "user: a\npassword: c"), ("ship", "token: x"), ("collect", "")
    relays = [bench.run(*words, name=f"wrong{number}") for number, words in enumerate(wrong)]
    for relay in relays:
        assert relay.wait() == 78
        assert "does not accept user, password, token or credentials" in relay.log


def test_tls(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    ours, foreign = Authority(tmp_path), Authority(tmp_path / "b")
    server, client = ours.issue("127.0.0.1"), ours.issue("web1", client=True)
    bench = make_bench(
        f'tls {{ cert_file: "{server.certificate}", key_file: "{server.key}", '
        f'ca_file: "{ours.certificate}", verify: true }}\n'
    )
    bench.write("2026-11-22", lines(22, 5))
    url = f"servers: tls://127.0.0.1:{bench.server.port}\n"
    files = f"tls:\n  certificate: {client.certificate}\n  key: {client.key}\n"
    good = f"{url}{files}  ca: {ours.certificate}"
    relays = [bench.run("collect", good), bench.run("ship", good)]
    bench.wait_copy("2026-11-22.log", lines(22, 5))
    cases = [
        (f"{url}{files}  ca: {foreign.certificate}", "its certificate is not accepted"),
        (f"{url}{files}", "its certificate is not accepted"),
        (f"{url}{files}  ca: {tmp_path}/none.pem", r"tls\.ca: .*none.pem: No such file"),
        (f"{url}{files}  ca: {client.key}", "tls: .* cannot be used"),
        (f"{good}\n".replace(str(client.key), str(server.key)), "tls: .* cannot be used"),
        (f"{good}\n".replace("127.0.0.1", "localhost"), "its certificate is not accepted"),
    ]
    all_wrong = [
        bench.run("ship", more, name=f"wrong{number}") for number, (more, _) in enumerate(cases)
    ]
    for wrong, (_, words) in zip(all_wrong, cases, strict=True):
        assert wrong.wait() == 78, wrong.log
        assert re.search(words, wrong.log), wrong.log
    alone = bench.run("ship", f"{url}tls:\n  ca: {ours.certificate}", name="alone")
    alone.wait_log("trying again")  # the server wants our certificate, and only closes
    assert [relay.stop() for relay in relays] == [0, 0]
    assert "eof_received" not in alone.log + "".join(relay.log for relay in relays)


def test_credentials(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    pytest.importorskip("nkeys")
    config, good, foreign = creds.make()
    bench = make_bench(config)
    for name, text in ("good", good), ("foreign", foreign):
        (tmp_path / f"{name}.creds").write_text(text)
    bench.write("2026-11-22", lines(22, 5))
    more = f"credentials: {tmp_path}/good.creds"
    relays = [bench.run("collect", more), bench.run("ship", more)]
    bench.wait_copy("2026-11-22.log", lines(22, 5))
    assert [relay.stop() for relay in relays] == [0, 0]
    for name, words in (("foreign", "does not accept user"), ("none", "none.creds: No such file")):
        wrong = bench.run("ship", f"credentials: {tmp_path}/{name}.creds", name=name)
        assert wrong.wait() == 78
        assert words in wrong.log


async def publish(url: str, subject: str) -> None:
    """As the node web2, which knows what it does."""
    config = load(None)._replace(servers=(url,), user="web2", password="web2-password")
    engine = Engine(config, "_INBOX.web2")
    await engine.connect()
    try:
        await engine.publish(subject, b"forged\n", {})
    finally:
        await engine.close()


PERMISSIONS = (ROOT / "packaging" / "nats" / "msgd.conf").read_text()


def permissions() -> str:
    """The documented configuration, without what the test's own has already."""
    return re.sub(r"\njetstream \{.*?\n\}\n", "\n", PERMISSIONS, flags=re.DOTALL)


def test_with_no_more_than_the_documented_permissions(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(permissions())
    bench.write("2026-11-20", lines(20, 9000))
    bench.write("2026-11-22", lines(22, 5))
    collect = bench.run("collect", "user: collect\npassword: collect-password")
    ship = bench.run("ship", "user: web1\npassword: web1-password")
    collect.wait_log("2026-11-20.log: is what web1 has")
    bench.wait_copy("2026-11-22.log", lines(22, 5))
    bench.server.kill()
    bench.server.start()
    bench.write("2026-11-22", lines(22, 5, 5))
    bench.wait_copy("2026-11-22.log", lines(22, 10))
    # One node cannot write another's archive, and is told so.
    other = bench.run("ship", "user: web2\npassword: web2-password", name="other")
    assert other.wait() == 78
    assert "the server forbids this user: subscription to _inbox.web1." in other.log
    for subject in ("msgd.web1.2026-11-22.1", "msgd.web1.done"):
        with pytest.raises(Denied, match=f"forbids this user: publish to {subject}"):
            asyncio.run(publish(bench.server.url, subject))
    assert ship.stop() == collect.stop() == 0


def test_a_second_collector(bench: Bench) -> None:
    first = bench.run("collect")
    first.wait_log("made the stream")
    second = bench.run("collect", name="second")
    assert second.wait() == 1
    assert "another msgd-relay collects there" in second.log


def test_collected_days_are_kept_as_configured(bench: Bench) -> None:
    for day in ("2020-01-01", "2026-11-20"):
        bench.write(day, lines(20, 900))
    bench.write("2026-11-22", lines(22, 5))
    collect = bench.run("collect", collect="compress: gzip\n  keep_days: 1000")
    ship = bench.run("ship")
    packed = bench.path("2026-11-20.log.gz")
    collect.wait_log("2026-11-20.log: is what web1 has")
    collect.kill()
    collect.start()
    wait_for(packed.exists)
    assert gzip.decompress(packed.read_bytes()) == lines(20, 900)
    wait_for(lambda: not bench.path("2026-11-20.log").exists())
    # The clock was set back, and the day goes on behind what is compressed.
    bench.write("2026-11-20", lines(20, 7, 900))
    bench.wait_copy("2026-11-20.log", lines(20, 7, 900))
    assert not bench.path("2020-01-01.log").exists()
    assert ship.stop() == collect.stop() == 0


@pytest.mark.skipif(not mounts.IS_ROOT, reason="only root can mount file systems")
def test_the_collectors_disk_is_full(bench: Bench) -> None:
    data = lines(22, 20_000)
    with mounts.tmpfs(bench.collected, "512k"):
        collect, ship = bench.run("collect"), bench.run("ship")
        bench.write("2026-11-22", data)
        collect.wait_log("No space left on device: free some space")
        mounts.resize(bench.collected, "64m")
        bench.wait_copy("2026-11-22.log", data)
        assert collect.stop() == ship.stop() == 0
    said = [line for line in collect.log.splitlines() if "No space" in line]
    assert len(said) == len(set(said))  # once of each file: the day's, and how far it is


@pytest.mark.thorough
@pytest.mark.skipif(not mounts.can_mount_ext4(), reason="only root can mount a loop device")
def test_the_collectors_power_is_cut(bench: Bench, tmp_path: Path) -> None:
    """What had not reached its disk is read again; the node's file and the copy are the same."""
    image, written = tmp_path / "disk.img", b""
    with mounts.ext4(image, bench.collected):
        ship = bench.run("ship")
        for number in range(3):
            collect = bench.run("collect", name=f"collect{number}")
            for _ in range(5):
                written += (more := lines(22, 400, len(written)))
                bench.write("2026-11-22", more)
            wait_for(lambda: len(bench.copy("2026-11-22.log")) > 400)
            mounts.cut_power(bench.collected)
            collect.kill()
            mounts.mount_again(image, bench.collected)
        collect = bench.run("collect", name="last")
        bench.wait_copy("2026-11-22.log", written)
        assert collect.stop() == ship.stop() == 0
        assert "is not what" not in collect.log


def test_figures_and_the_manager(bench: Bench, tmp_path: Path) -> None:
    openmetrics = pytest.importorskip("prometheus_client.openmetrics.parser")
    bench.write("2026-11-20", lines(20, 9))
    bench.write("2026-11-22", lines(22, 5))
    collect = bench.run("collect", f"metrics_file: {tmp_path}/collect.prom")
    ship = bench.run("ship", f"metrics_file: {tmp_path}/ship.prom")
    collect.wait_log("2026-11-20.log: is what web1 has")
    bench.wait_copy("2026-11-22.log", lines(22, 5))
    assert ship.stop() == collect.stop() == 0
    found: dict[str, float] = {}
    for name in ("ship", "collect"):
        text = (tmp_path / f"{name}.prom").read_text()
        for family in openmetrics.text_string_to_metric_families(text):
            found |= {sample.name: sample.value for sample in family.samples}
    assert found["msgd_relay_published_blocks_total"] == 2
    assert found["msgd_relay_collected_bytes_total"] == len(lines(20, 9) + lines(22, 5))
    assert found["msgd_relay_unshipped_days"] == 0
    assert found["msgd_relay_behind_bytes"] == 0
    assert found["msgd_relay_bad_files"] == 0


@pytest.mark.thorough
@pytest.mark.parametrize("servers", [1, 3])
@pytest.mark.parametrize("cables", [True, False])
def test_chaos(tmp_path: Path, servers: int, cables: bool) -> None:
    """A short form of the campaign; msgd, relays and servers are killed and stopped under load."""
    if cables and not can_cable():
        pytest.skip("needs root and iproute2")
    seed = 7 + servers
    assert chaos.campaign(
        tmp_path, lambda happened: happened < 5, seed, servers, 0.5, 10, cables=cables
    )


@pytest.mark.thorough
def test_a_cable_that_is_pulled(tmp_path: Path) -> None:
    """The relays go on by themselves, and nothing is missing or there twice."""
    if not can_cable():
        pytest.skip("needs root and iproute2")
    with closing(chaos.Cables(tmp_path / "nats", 1, random.Random(1))) as wires:
        server = wires.servers[0]
        server.start()
        bench = Bench(tmp_path, server, wires.inside)
        try:
            collect, ship = bench.run("collect"), bench.run("ship")
            bench.write("2026-11-22", lines(22, 5))
            bench.wait_copy("2026-11-22.log", lines(22, 5))
            wires.networks[0].cut()
            bench.write("2026-11-22", lines(22, 5, 5))
            ship.wait_log("trying again")
            wires.networks[0].heal()
            bench.wait_copy("2026-11-22.log", lines(22, 10))
            ship.wait_log("works again")
            assert [relay.stop() for relay in (collect, ship)] == [0, 0]
        finally:
            server.kill()
            bench.end()


def test_what_make_relay_shows(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack:
        copy = show_relay.show(tmp_path, stack.callback)
        assert copy.read_text().endswith(" from one machine to many\n")
    said = capfd.readouterr().out
    assert said.endswith("equal\n")
    assert f"cmp {tmp_path}" in said


def test_without_the_library(tmp_path: Path) -> None:
    (tmp_path / "nats.py").write_text("raise ImportError('none here')\n")
    relay = Relay(tmp_path, "ship", "", env={"PYTHONPATH": str(tmp_path)})
    assert relay.wait() == 78
    assert "nats-py is not installed" in relay.log
    assert relay.log.count("\n") == 1


def test_what_the_manager_is_told(bench: Bench, tmp_path: Path) -> None:
    bench.write("2026-11-22", lines(22, 5))
    manager = Manager(tmp_path)
    ship = "STATUS=0 bytes and 0 s behind; 0 blocks a second"
    collect = "STATUS=0 blocks behind; 0 blocks a second"
    relays = [bench.run(verb, env=manager.env()) for verb in ("collect", "ship")]
    manager.wait_for("READY=1", "WATCHDOG=1", ship, collect)
    bench.wait_copy("2026-11-22.log", lines(22, 5))
    for relay in relays:
        manager.forget()
        assert relay.stop() == 0
        manager.wait_for("STOPPING=1")
    manager.close()
