"""What is measured against what, and what the ratio has to be.

The numbers of messages make a run last some tenths of a second: the work is the same in kind for
both sides, and a pair is over before the machine has changed much.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import programs
from .generator import Work
from .hellos import CLIENTS, Hellos
from .logs import Log
from .measures import Days, Idle, Push, Restart
from .pairs import Match, Target
from .peers import PEERS
from .programs import SendFile, SendOne
from .relayed import Shipped

MILLION = 1_000_000
MIB = 1 << 20

CONNECTIONS = (1, 16, 256, 1024, 4096, 10_000)
SIZES = (10, 100, 1_000, 10_000, 100_000, MIB)
DAYS = (1, 10, 100, 1_000, 3_650)
BEHIND = (1, 4, 16, 60, 250, 1_000)  # MiB
IDLE = 10_000
WITH_STATE = 64  # MiB: the state file is written anew when so much lies behind it

# Messages of a run: not synced and synced; None: it cannot sync.
COUNTS: dict[str, tuple[int, int | None]] = {
    "C limit": (4 * MILLION, MILLION),
    "prototype": (1_500_000, 700_000),
    "msgd": (1_500_000, 700_000),
    "msgd TLS": (900_000, 600_000),
    "msgd local": (1_500_000, 700_000),
    "rsyslog imptcp": (400_000, 250_000),
    "rsyslog imrelp": (60_000, 1_000),
    "rsyslog TLS": (150_000, None),
    "rsyslog TLS, OpenSSL": (150_000, None),
    "rsyslog imrelp TLS": (60_000, None),
    "syslog-ng": (250_000, 200_000),
    "syslog-ng TLS": (200_000, None),
    "redis XADD": (200_000, 80_000),
    "nats JetStream": (100_000, None),
    "journal-remote": (60_000, None),
    "multilog": (400_000, None),
}


def push(peer: str, connections: int = 1, *, synced: bool = False, session: bool = False) -> Push:
    """The usual work: 100-byte texts, as many as the peer takes in some tenths of a second."""
    count = COUNTS[peer][synced]
    assert count is not None
    return Push(peer, Work(count, connections, session=session), synced)


def _words(synced: bool) -> str:
    return "synced" if synced else "not synced"


def _clients(count: int) -> str:
    return f"{count} connection{'s' if count > 1 else ''}"


def _to_limits() -> Iterator[Match]:
    """The least that any server can do, in C and in Python."""
    c_limit = {(1, False): 0.33, (16, False): 0.3, (256, False): 0.4, (1, True): 0.65}
    for synced in (False, True):
        for count in (1, 16, 256):
            one = push("msgd", count, synced=synced)
            for peer in ("C limit", "prototype"):
                bound = 0.95 if peer == "prototype" else c_limit.get((count, synced))
                title = f"msgd : {peer}, {_clients(count)}, {_words(synced)}"
                other = push(peer, count, synced=synced)
                key = f"{peer}/{count}/{_words(synced)}"
                yield Match(key, one, other, (Target(title, bound),))


def _to_peers() -> Iterator[Match]:
    """Other ways to put messages into a file: one connection."""
    bounds = {
        ("rsyslog imptcp", False): 4,
        ("rsyslog imrelp", False): 30,
        ("redis XADD", True): 5,
        ("rsyslog imrelp", True): 500,
    }
    limits = ("C limit", "prototype")
    for peer, counts in COUNTS.items():
        for synced in (False, True):
            if peer in limits or peer.startswith("msgd") or counts[synced] is None:
                continue
            tls = PEERS[peer].tls
            one = push("msgd TLS" if tls else "msgd", synced=synced)
            title = f"msgd{' TLS' if tls else ''} : {peer}, {_words(synced)}"
            targets = [Target(title, 3 if tls else bounds.get((peer, synced)))]
            if tls:
                targets.append(Target(f"{title}, processor time", None, "ns", at_least=False))
            other = push(peer, synced=synced)
            yield Match(f"peers/{peer}/{_words(synced)}", one, other, tuple(targets), most=12)


def _to_plain() -> Iterator[Match]:
    """What sessions, TLS, the local socket and other texts cost, beside plain messages."""
    for synced in (False, True):
        for count in (1, 16):
            title = f"a session : plain, {_clients(count)}, {_words(synced)}"
            one, other = (
                push("msgd", count, synced=synced, session=session) for session in (True, False)
            )
            yield Match(f"session/{count}/{_words(synced)}", one, other, (Target(title, 0.75),))
        for kind, bound in (("TLS", 0.6 if synced else 0.5), ("local", None)):
            words = "a Unix-domain socket" if kind == "local" else "TLS 1.3"
            one, other = push(f"msgd {kind}", synced=synced), push("msgd", synced=synced)
            target = Target(f"{words} : TCP, plain, {_words(synced)}", bound)
            yield Match(f"{kind}/{_words(synced)}", one, other, (target,))
    kinds = {"utf8": ("non-ASCII text", 0.6), "escape": ("an escape in a hundred lines", 0.5)}
    for kind, (words, bound) in kinds.items():
        one = Push("msgd", Work(MILLION, kind=kind))
        yield Match(f"kinds/{kind}", one, push("msgd"), (Target(f"{words} : plain", bound),))
    target = Target("messages of ten lines : single lines, in lines", 0.25, "lines")
    one = Push("msgd", Work(60_000, kind="more"))
    yield Match("kinds/more", one, push("msgd"), (target,))


def _waits() -> Iterator[Match]:
    """One client that waits for each echo; the same beside fifteen that push all they can."""
    for synced in (False, True):
        count, most = (1_000, 1.2) if synced else (5_000, 1.3)
        alone = Work(count, window=1)
        title = f"of a waiting client, msgd : C limit, {_words(synced)}"
        one, other = Push("msgd", alone, synced), Push("C limit", alone, synced)
        targets = tuple(Target(f"{name} {title}", most, name, False) for name in WAITS)
        yield Match(f"wait/{_words(synced)}", one, other, targets)
        crowd = Push("msgd", Work(1 << 40, 16, waiters=1, waiter_messages=300), synced)
        words = f"p99 beside 15 that push : of an idle server, {_words(synced)}"
        yield Match(f"fair/{_words(synced)}", crowd, one, (Target(words, 20, "p99", False),), 12)
    alone = Work(5_000, window=1)
    target = Target("p50 of a waiting client, TLS : plain, not synced", 1.4, "p50", False)
    yield Match("wait/TLS", Push("msgd TLS", alone), Push("msgd", alone), (target,))


WAITS = ("p50", "p99")


def _hellos() -> Iterator[Match]:
    """One client that waits for each echo, while a thousand begin TLS at once."""
    for peer, key in (("msgd TLS", "P-256"), ("msgd RSA", "RSA-2048")):
        targets = []
        for figure in ("p99", "worst"):
            words = f"{figure} wait beside {CLIENTS:,} ClientHellos at once, {key}, ms"
            targets.append(Target(words, 20, figure, at_least=False))
            words = f"{words}, of the daemon's work"
            targets.append(Target(words, None, f"{figure} work", at_least=False))
        yield Match(f"hellos/{key}", Hellos(peer), None, tuple(targets), 4)


def _programs() -> Iterator[Match]:
    """Whole programs, and logging handlers."""
    file = SendFile("msgd", programs.msgctl_file, MILLION)
    targets = (
        Target("msgctl send --file : the generator", 0.5),
        Target("MiB of memory of msgctl for a million lines", 64, "MiB", False),
    )
    yield Match("file/generator", file, push("msgd"), targets[:1], 12)
    yield Match("file/memory", file, None, targets[1:], 4)
    others = {
        "logger -f": SendFile("rsyslog imptcp", programs.logger_file, 50_000),
        "nc, unchecked": SendFile("msgd", programs.nc_file, MILLION),
    }
    for name, other in others.items():
        target = Target(f"msgctl send --file : {name}")
        yield Match(f"file/{name}", file, other, (target,), 8)
    one = SendOne("msgd", programs.msgctl)
    ones = {
        "logger": SendOne("rsyslog imptcp", programs.logger),
        "redis-cli": SendOne("redis XADD", programs.redis_cli),
    }
    for name, side in ones.items():
        target = Target(f"msgctl send TEXT : {name}, whole process", None, "ms", False)
        yield Match(f"one/{name}", one, side, (target,), 8)
    for kind in ("SysLogHandler", "SocketHandler"):
        targets = (
            Target(f"MsgdHandler : {kind}, logged", None, "logged"),
            Target(f"MsgdHandler : {kind}, delivered"),
        )
        yield Match(f"logging/{kind}", Log("MsgdHandler"), Log(kind), targets, 8)
    target = Target("msgd-relay ship : publishing with nats-py", 0.8, "MB/s")
    yield Match("relay", Shipped(raw=False), Shipped(raw=True), (target,), 12)


def _rest() -> Iterator[Match]:
    words = f"{IDLE:,} idle connections"
    targets = (
        Target(f"KiB for each of {words}", 2, "KiB", False),
        Target(f"processor share beside {words}", 0.005, "processor", False),
        Target(f"p50 beside {words} : without", 1.1, "p50 of without", False),
    )
    yield Match("idle", Idle(IDLE), None, targets, 4)
    own = (
        Target("start to listening : importing yaml and click", 1.5, "of imports", False),
        Target("MiB of memory after start", 20, "MiB", False),
    )
    yield Match("start", programs.start, None, own, 12)


def _many(peer: str, connections: int, synced: bool) -> int:
    """Messages of all together: with very many connections each has some tens."""
    usual = COUNTS[peer][synced] or 0
    return usual if connections <= 256 else max(60 * connections, 200_000 if synced else 500_000)


def _growth() -> Iterator[Match]:
    """How cost grows: no targets, points of charts, two runs each."""
    for count in CONNECTIONS:
        for synced in (False, True):
            for peer in ("C limit", "msgd"):
                key = f"connections/{peer}/{_words(synced)}/{count}"
                yield Match(
                    key, Push(peer, Work(_many(peer, count, synced), count), synced), most=2
                )
            work = Work(_many("msgd", count, synced), count, session=True)
            yield Match(f"sessions/{_words(synced)}/{count}", Push("msgd", work, synced), most=2)
    for size in SIZES:
        work = Work(min(MILLION, max(150 * MIB // (size + 50), 20)), size=size)
        for peer in ("C limit", "msgd"):
            for synced in (False, True):
                key = f"sizes/{peer}/{_words(synced)}/{size}"
                yield Match(key, Push(peer, work, synced), most=2)
    for days in DAYS:
        yield Match(f"days/{days}", Days(days), most=2)
    for mib in BEHIND:
        if mib < WITH_STATE:
            yield Match(f"restart/state/{mib}", Restart(mib * MIB), most=2)
        yield Match(f"restart/lost/{mib}", Restart(mib * MIB, lost=True), most=2)


def interpreters(names: list[str]) -> Iterator[Match]:
    """The headline of other Pythons, beside the one that runs msgd otherwise."""
    for name in names:
        peer = f"msgd on {name}"
        for synced in (False, True):
            for count in (1, 256):
                one, other = push("msgd", count, synced=synced), push("msgd", count, synced=synced)
                title = f"Python {name} : the usual one, {_clients(count)}, {_words(synced)}"
                key = f"python/{name}/{count}/{_words(synced)}"
                yield Match(key, Push(peer, one.work, synced), other, (Target(title),), 8)


def all_matches() -> list[Match]:
    kinds = (_to_limits, _to_plain, _to_peers, _waits, _hellos, _programs, _rest, _growth)
    return [match for kind in kinds for match in kind()]
