"""How cost grows: which matches are the points of which chart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from . import chart
from .matches import BEHIND, CONNECTIONS, DAYS, SIZES
from .pairs import Match

Find = Callable[[str], Match | None]


@dataclass(frozen=True, slots=True)
class Curve:
    """A line: `key` has {} for the step; the figure is divided by `by`."""

    name: str
    key: str
    figure: str
    by: float
    style: int = 2

    def at(self, find: Find, step: int) -> float | None:
        match = find(self.key.format(step))
        return median(match.one_side(self.figure)) / self.by if match and match.pairs else None


@dataclass(frozen=True, slots=True)
class Diagram:
    title: str
    unit: str  # of the table's columns
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Growth:
    """A table, and a picture of diagrams side by side; the first one's lines are the legend."""

    name: str
    title: str
    axis: str
    steps: tuple[int, ...]
    diagrams: tuple[Diagram, ...]

    @property
    def columns(self) -> list[str]:
        return [
            f"{curve.name}, {diagram.unit}" for diagram in self.diagrams for curve in diagram.curves
        ]

    def rows(self, find: Find) -> Iterator[tuple[int, list[float | None]]]:
        curves = [curve for diagram in self.diagrams for curve in diagram.curves]
        for step in self.steps:
            values = [curve.at(find, step) for curve in curves]
            if any(value is not None for value in values):
                yield step, values

    def panels(self, find: Find) -> list[chart.Panel]:
        panels = []
        for diagram in self.diagrams:
            lines = [
                chart.Line(curve.name, self._points(find, curve), curve.style)
                for curve in diagram.curves
            ]
            if any(line.points for line in lines):
                panels.append(chart.Panel(diagram.title, self.axis, lines))
        return panels

    def _points(self, find: Find, curve: Curve) -> list[tuple[float, float]]:
        values = [(float(step), curve.at(find, step)) for step in self.steps]
        return [(step, value) for step, value in values if value]


RATE = "messages a second"
WAIT = "wait for the echo, p99, ms"


def _pushed(keys: dict[str, str]) -> tuple[Diagram, ...]:
    return tuple(
        Diagram(
            title,
            unit,
            tuple(Curve(*one, figure, by, style) for style, one in enumerate(keys.items())),
        )
        for title, unit, figure, by in (
            (RATE, "a second", "rate", 1.0),
            (WAIT, "p99 ms", "p99", 1000.0),
        )
    )


def _beside_limit(group: str) -> tuple[Diagram, ...]:
    return _pushed(
        {
            "C limit": f"{group}/C limit/not synced/{{}}",
            "C limit, synced": f"{group}/C limit/synced/{{}}",
            "msgd": f"{group}/msgd/not synced/{{}}",
            "msgd, synced": f"{group}/msgd/synced/{{}}",
        }
    )


_SESSIONS = {
    "plain": "connections/msgd/not synced/{}",
    "plain, synced": "connections/msgd/synced/{}",
    "a session each": "sessions/not synced/{}",
    "a session each, synced": "sessions/synced/{}",
}
_RESTARTS = (
    Curve("state file lost", "restart/lost/{}", "start", 1.0, 3),
    Curve("with state file", "restart/state/{}", "start", 1.0),
)
_DAYS = (
    Diagram(RATE, "a second", (Curve("msgd", "days/{}", "rate", 1.0),)),
    Diagram(WAIT, "p99 ms", (Curve("msgd", "days/{}", "p99", 1000.0),)),
    Diagram("start, seconds", "start s", (Curve("msgd", "days/{}", "start", 1.0),)),
)

GROWTHS = (
    Growth(
        "connections",
        "Connections that all send",
        "connections",
        CONNECTIONS,
        _beside_limit("connections"),
    ),
    Growth("sizes", "Length of a message", "bytes of text", SIZES, _beside_limit("sizes")),
    Growth("sessions", "Sessions that all send", "connections", CONNECTIONS, _pushed(_SESSIONS)),
    Growth("days", "Days in the archive", "day files", DAYS, _DAYS),
    Growth(
        "restarts",
        "Start after kill -9",
        "MiB behind the state file, or in the archive",
        BEHIND,
        (Diagram("seconds to listening", "s", _RESTARTS),),
    ),
)
