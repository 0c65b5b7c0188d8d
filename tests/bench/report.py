"""The results as JSON, as a page of tables, and as charts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from . import chart
from .growth import GROWTHS, Growth
from .pairs import Match, Target
from .peers import PEERS

UNITS = {"rate": "k/s", "lines": "k/s", "logged": "k/s", "p50": "us", "p99": "us"}
SYNCS = ("not synced", "synced")


@dataclass(slots=True)
class Results:
    machine: dict[str, str]
    versions: dict[str, str | None]  # of the peers; None: not installed
    matches: list[Match]

    def find(self, key: str) -> Match | None:
        return next((match for match in self.matches if match.key == key), None)

    @property
    def failures(self) -> list[str]:
        return [f"{match.key}: {words}" for match in self.matches for words in match.failures]

    def disturbance(self) -> str:
        """What others took of the processor while it was measured, in words."""
        shares = sorted(share for match in self.matches for share in match.others)
        if not shares:
            return "not measured"
        return f"{median(shares):.2f} of a core in the median run, {shares[-1]:.2f} in the worst"

    def as_json(self) -> dict[str, object]:
        pairs = {match.key: match.pairs for match in self.matches if match.pairs}
        return {"machine": self.machine, "versions": self.versions, "pairs": pairs}


def write(results: Results, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(results.as_json()) + "\n")
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
    installed = (f"{name} {version}" for name, version in results.versions.items() if version)
    yield f"- servers: {', '.join(installed)}"
    yield ""
    yield from _headline(results)
    with_bound = [(match, target) for match in results.matches for target in match.targets]
    yield from _ratios("Targets", [pair for pair in with_bound if pair[1].bound is not None])
    yield from _ratios("Other ratios", [pair for pair in with_bound if pair[1].bound is None])
    for growth in GROWTHS:
        yield from _growth(results, growth)
    left_out = [f"{match.key}: {match.problem}" for match in results.matches if match.problem]
    yield from _list("Not measured", left_out)
    yield from _list("Runs that failed", results.failures)


def _list(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield from (f"## {title}", "", *(f"- {line}" for line in lines), "")


def _table(*columns: str) -> Iterator[str]:
    yield "| " + " | ".join(columns) + " |"
    yield "| --- |" + " ---: |" * (len(columns) - 1)


def _headline(results: Results) -> Iterator[str]:
    """How many times the rate of each server msgd had in the pairs, and that rate."""
    yield "## One connection, 100-byte texts, thousands of messages a second"
    yield ""
    yield from _table("", "acknowledged", *(w for s in SYNCS for w in (s, "msgd does")))
    for name, cells in _headline_rows(results):
        shown = []
        for cell in cells:
            shown += [_number(cell[0] / 1000), f"{_number(cell[1])} times"] if cell else ["", ""]
        acknowledged = "yes" if PEERS[name].acknowledges else "no"
        yield f"| {name} | {acknowledged} | {' | '.join(shown)} |"
    yield ""


Cell = tuple[float, float] | None  # messages a second, times


def _headline_rows(results: Results) -> Iterator[tuple[str, list[Cell]]]:
    found = {name: [results.find(f"{_folder(name)}/{words}") for words in SYNCS] for name in PEERS}
    usual = [[row[at] for name, row in found.items() if not PEERS[name].tls] for at in (0, 1)]
    own = [_own([match for match in matches if match is not None]) for matches in usual]
    if any(own):
        yield "msgd", [(rate, 1.0) if rate else None for rate in own]
    for name, row in found.items():
        if not PEERS[name].tls and any(match is not None and match.pairs for match in row):
            yield name, [_cell(match, rate) for match, rate in zip(row, own, strict=True)]


def _folder(name: str) -> str:
    return f"{name}/1" if name in ("C limit", "prototype") else f"peers/{name}"


def _own(matches: list[Match]) -> float | None:
    """Of msgd, over all that it was measured beside."""
    rates = [rate for match in matches for rate in match.one_side()]
    return median(rates) if rates else None


def _cell(match: Match | None, own: float | None) -> Cell:
    """What a server does, by its ratio: so all rates stand to each other as the pairs do."""
    if match is None or not match.pairs or own is None:
        return None
    times = median(match.ratios())
    return own / times, times


def _ratios(title: str, rows: list[tuple[Match, Target]]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    last = "" if title != "Targets" else "|  |  "
    yield from (f"| ratio | measured | 95 % interval | pairs | one | other {last}|",)
    yield "| --- | ---: | ---: | ---: | ---: | ---: |" + (" ---: | --- |" if last else "")
    for match, target in rows:
        yield _row(match, target)
    yield ""


def _row(match: Match, target: Target) -> str:
    found = match.interval(target.figure)
    cells = [target.title]
    if found is None:
        cells += ["not measured", "", "", "", ""]
    else:
        cells += [_number(found.middle), f"{_number(found.low)} to {_number(found.high)}"]
        cells += [str(len(match.pairs)), *_sides(match, target.figure)]
    if target.bound is not None:
        cells.append(f"at {'least' if target.at_least else 'most'} {target.bound:g}")
        cells.append(found.verdict(target) if found else "")
    return f"| {' | '.join(cells)} |"


def _sides(match: Match, figure: str) -> list[str]:
    if match.other is None:
        return ["", ""]
    unit = UNITS.get(figure, figure)
    by = 1000 if unit == "k/s" else 1
    sides = match.one_side(figure), match.other_side(figure)
    return [f"{_number(median(side) / by)} {unit}" for side in sides]


def _growth(results: Results, growth: Growth) -> Iterator[str]:
    rows = list(growth.rows(results.find))
    if not rows:
        return
    yield f"## {growth.title}"
    yield ""
    yield from _table(growth.axis, *growth.columns)
    for step, values in rows:
        yield f"| {step:,} | {' | '.join(_number(value) for value in values)} |"
    yield ""


def _number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _charts(results: Results) -> Iterator[tuple[str, str]]:
    day = results.machine["date"][:10]
    note = f"100-byte texts, one connection, one core; {results.machine['processor']}, {day}"
    bars = [
        chart.Bar(
            name + ("" if PEERS[name].acknowledges else " (no receipt)"),
            plain[0],
            synced[0] if synced else None,
            name == "msgd",
        )
        for name, (plain, synced) in _headline_rows(results)
        if plain is not None
    ]
    if bars:
        yield "peers", chart.bars("Messages a second", note, bars)
    for growth in GROWTHS:
        panels = growth.panels(results.find)
        if panels:
            yield growth.name, chart.lines(panels, f"one core; {day}")
