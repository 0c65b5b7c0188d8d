"""What the design promises, as ratios that hold on any machine, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .results import Figure, Results, divide


@dataclass(frozen=True, slots=True)
class Target:
    title: str
    value: float | None  # None: not measured, or the peer is not installed
    bound: float
    at_least: bool

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def all_targets(results: Results) -> list[Target]:
    return [*_throughput(results), *_kinds(results), *_waits(results), *_rest(results)]


def _throughput(results: Results) -> Iterator[Target]:
    ratio = results.ratio
    for count, bound in ((1, 0.33), (16, 0.3), (256, 0.4)):
        key = f"connections/msgd/{count}"
        value = ratio(key, f"connections/C limit/{count}")
        yield Target(f"of the C limit, not synced, {count} connections", value, bound, True)
    plain, sync = "plain/msgd", "sync/msgd"
    yield Target("times rsyslog imptcp", ratio(plain, "plain/rsyslog imptcp"), 4, True)
    yield Target("times RELP", ratio(plain, "plain/rsyslog imrelp"), 30, True)
    yield Target("of the C limit, synced", ratio(sync, "sync/C limit"), 0.65, True)
    yield Target("times redis, both synced", ratio(sync, "sync/redis XADD"), 5, True)
    yield Target("times RELP, both synced", ratio(sync, "sync/rsyslog imrelp"), 500, True)


def _kinds(results: Results) -> Iterator[Target]:
    base = "kinds/ascii"
    yield Target("non-ASCII text, of ASCII", results.ratio("kinds/utf8", base), 0.6, True)
    value = results.ratio("kinds/escape", base)
    yield Target("an escape in a hundred lines, of none", value, 0.5, True)
    value = results.ratio("kinds/more", base)
    value = value * 10 if value else None
    yield Target("messages of ten lines, of single lines, in lines", value, 0.25, True)


_PERCENTILES: dict[str, Figure] = {"p50": lambda run: run.p50_us, "p99": lambda run: run.p99_us}


def _waits(results: Results) -> Iterator[Target]:
    for kind, words, bound in (("wait", "not synced", 1.3), ("wait sync", "synced", 1.2)):
        for name, figure in _PERCENTILES.items():
            value = results.ratio(f"{kind}/msgd", f"{kind}/C limit", figure)
            yield Target(
                f"{name} of one waiting client, of the C limit's, {words}", value, bound, False
            )
    for kind, words in (("", "not synced"), (" sync", "synced")):
        value = results.ratio(f"fair{kind}/msgd", f"wait{kind}/msgd", _PERCENTILES["p99"])
        yield Target(f"p99 beside 15 that push, of an idle server's, {words}", value, 20, False)


def _rest(results: Results) -> Iterator[Target]:
    for count in (5000, 10000):
        key = f"idle/{count}"
        size = results.value(f"{key}/bytes a connection")
        yield Target(f"KiB for each of {count:,} idle connections", divide(size, 1024), 2, False)
        value = results.value(f"{key}/processor share")
        yield Target(f"processor share beside {count:,} idle connections", value, 0.005, False)
        value = divide(results.value(f"{key}/p50_us"), results.value(f"{key}/p50_us without"))
        yield Target(f"p50 beside {count:,} idle connections, of without", value, 1.1, False)
    value = divide(results.value("msgctl/messages a second"), results.value("msgctl/generator"))
    yield Target("msgctl send --file, of the generator", value, 0.5, True)
    peak = divide(results.value("msgctl/peak bytes"), 1 << 20)
    yield Target("MiB of memory of msgctl for a million lines", peak, 64, False)
    value = divide(results.value("start/seconds"), results.value("start/imports"))
    yield Target("start to listening, of importing yaml and click", value, 1.5, False)
    resident = divide(results.value("start/resident bytes"), 1 << 20)
    yield Target("MiB of memory after start", resident, 20, False)
