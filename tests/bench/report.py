"""The results as JSON, as a page of tables, and as charts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from . import chart
from .cases import CONNECTIONS, SIZES
from .peers import PEERS
from .results import Results
from .targets import Target, all_targets


def write(results: Results, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(results.as_json(), indent=1) + "\n")
    (directory / "results.md").write_text("\n".join(_page(results)) + "\n")
    for name, text in _charts(results):
        (directory / f"{name}.svg").write_text(text)


def _page(results: Results) -> Iterator[str]:
    yield "# msgd beside its peers"
    yield ""
    yield "Written by `make bench`; how it is measured stands in ../README.md."
    yield ""
    yield from (f"- {name}: {value}" for name, value in results.machine.items())
    yield f"- taken by other processes meanwhile: {results.disturbance()}"
    versions = (
        f"{name} {version or '(not installed)'}" for name, version in results.versions.items()
    )
    yield f"- peers: {', '.join(versions)}"
    yield ""
    yield from _headline(results)
    yield from _targets(all_targets(results))
    yield from _waits(results)
    yield from _growth(results, "connections", "connections", CONNECTIONS)
    yield from _growth(results, "sizes", "bytes of text", SIZES)
    if results.failures:
        yield "## Runs that failed"
        yield ""
        yield from (f"- {failure}" for failure in results.failures)


def _table(*columns: str) -> Iterator[str]:
    yield "| " + " | ".join(columns) + " |"
    yield "| --- |" + " ---: |" * (len(columns) - 1)


def _headline(results: Results) -> Iterator[str]:
    yield "## One connection, 100-byte texts, thousands of messages a second"
    yield ""
    yield from _table("", "acknowledged", "not synced", "msgd does", "synced", "msgd does")
    for name, peer in PEERS.items():
        plain, sync = (results.rate(f"{kind}/{name}") for kind in ("plain", "sync"))
        if plain is None:
            continue
        cells = [
            name,
            "yes" if peer.acknowledges else "no",
            _number(plain / 1000),
            _times(results.ratio("plain/msgd", f"plain/{name}")),
            _number(sync / 1000) if sync else "",
            _times(results.ratio("sync/msgd", f"sync/{name}")),
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _targets(targets: list[Target]) -> Iterator[str]:
    words = {True: "met", False: "**not met**", None: "not measured"}
    yield "## Targets"
    yield ""
    yield from _table("ratio", "target", "measured", "")
    for target in targets:
        bound = f"{'at least' if target.at_least else 'at most'} {target.bound:g}"
        yield f"| {target.title} | {bound} | {_number(target.value)} | {words[target.met]} |"
    yield ""


def _waits(results: Results) -> Iterator[str]:
    yield "## A client that waits for each echo, microseconds"
    yield ""
    yield from _table("", "p50", "p99")
    titles = {
        "wait": "alone",
        "wait sync": "alone, synced",
        "fair": "beside 15 that push",
        "fair sync": "beside 15 that push, synced",
    }
    for kind, title in titles.items():
        for peer in ("C limit", "msgd"):
            key = f"{kind}/{peer}"
            p50, p99 = results.p50(key), results.p99(key)
            yield f"| {peer}, {title} | {_number(p50)} | {_number(p99)} |"
    for count in (5000, 10000):
        p50, p99 = (results.value(f"idle/{count}/{name}_us") for name in ("p50", "p99"))
        yield f"| msgd, beside {count:,} idle connections | {_number(p50)} | {_number(p99)} |"
    yield ""


def _growth(results: Results, group: str, title: str, steps: tuple[int, ...]) -> Iterator[str]:
    yield f"## Against {title}: thousands of messages a second, p99 in microseconds"
    yield ""
    names = ("C limit", "msgd", "C limit synced", "msgd synced")
    yield from _table(title, *(f"{name}{what}" for name in names for what in ("", ", p99")))
    for step in steps:
        cells = [f"{step:,}"]
        for kind in (group, f"{group} sync"):
            for peer in ("C limit", "msgd"):
                key = f"{kind}/{peer}/{step}"
                rate = results.rate(key)
                cells += [_number(rate / 1000 if rate else None), _number(results.p99(key))]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _times(value: float | None) -> str:
    return "" if value is None else f"{_number(value)} times"


def _charts(results: Results) -> Iterator[tuple[str, str]]:
    day = results.machine["date"][:10]
    note = f"100-byte texts, one connection, one core; {results.machine['processor']}, {day}"
    yield "peers", chart.bars("Messages a second", note, _bars(results))
    for group, steps, axis in (
        ("connections", CONNECTIONS, "connections"),
        ("sizes", SIZES, "bytes of text in a message"),
    ):
        rate = chart.Panel("Messages a second", axis, _lines(results, group, steps, "rate"))
        wait = chart.Panel(
            "Wait for the echo, p99, milliseconds", axis, _lines(results, group, steps, "p99")
        )
        yield group, chart.lines([rate, wait], f"pipelined, one core; {day}")


def _bars(results: Results) -> list[chart.Bar]:
    return [
        chart.Bar(
            name + ("" if peer.acknowledges else " (no receipt)"),
            plain,
            results.rate(f"sync/{name}"),
            name == "msgd",
        )
        for name, peer in PEERS.items()
        if (plain := results.rate(f"plain/{name}")) is not None
    ]


def _lines(results: Results, group: str, steps: tuple[int, ...], what: str) -> list[chart.Line]:
    lines = []
    for peer in ("C limit", "msgd"):
        for kind, words in (("", ""), (" sync", ", synced")):
            points = []
            for step in steps:
                key = f"{group}{kind}/{peer}/{step}"
                p99 = results.p99(key)
                value = results.rate(key) if what == "rate" else p99 / 1000 if p99 else None
                if value:
                    points.append((float(step), value))
            lines.append(chart.Line(peer + words, points))
    return lines
