"""Charts as SVG, written by hand; readable on a light and on a dark page.

The colours come from one style sheet inside the picture: a dark page swaps text and grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.sax.saxutils import escape

STYLE = """
text{font:13px system-ui,sans-serif;fill:#24292f}
.small{font-size:11px}.title{font-weight:600;font-size:15px}.end{text-anchor:end}
.middle{text-anchor:middle}.grid{stroke:#8b949e;stroke-opacity:.35}
.own{fill:#0969da}.own.second{fill-opacity:.55}
.other{fill:#8c959f}.other.second{fill-opacity:.5}
.line{fill:none;stroke-width:2.2}.c0{stroke:#8c959f}.c1{stroke:#8c959f;stroke-dasharray:5 4}
.c2{stroke:#1f7ae0}.c3{stroke:#1f7ae0;stroke-dasharray:5 4}
@media(prefers-color-scheme:dark){text{fill:#d1d7e0}.own{fill:#4493f8}.c2,.c3{stroke:#4493f8}}
"""


@dataclass(frozen=True, slots=True)
class Bar:
    """A server's two rates; the second is the synced one, where there is any."""

    name: str
    first: float
    second: float | None
    own: bool


@dataclass(frozen=True, slots=True)
class Line:
    """`style`: 0 and 1 are grey, 2 and 3 the own colour; 1 and 3 are dashed."""

    name: str
    points: list[tuple[float, float]]
    style: int


@dataclass(frozen=True, slots=True)
class Panel:
    """One diagram; both axes are logarithmic."""

    title: str
    axis: str
    lines: list[Line]


def bars(title: str, note: str, rows: list[Bar]) -> str:
    """Horizontal bars on a linear scale, a row each; the lighter bar is the synced rate."""
    left, width, step = 190, 400, 44
    top = 62
    longest = max((row.first for row in rows), default=1.0)
    body = [_text(16, 26, title, "title"), _text(16, 46, f"{note}; lighter: synced", "small")]
    for index, row in enumerate(rows):
        y = top + index * step
        body.append(_text(left - 10, y + 17, row.name, "end"))
        body += _bar(left, y, width * row.first / longest, row.first, row.own, "")
        if row.second is not None:
            body += _bar(left, y + 17, width * row.second / longest, row.second, row.own, " second")
    return _picture(left + width + 90, top + len(rows) * step + 8, body)


def _bar(x: float, y: float, length: float, value: float, own: bool, extra: str) -> list[str]:
    kind = ("own" if own else "other") + extra
    return [
        f'<rect class="{kind}" x="{x}" y="{y}" width="{max(length, 1):.1f}" height="15" rx="2"/>',
        _text(x + length + 6, y + 12, _short(value), "small"),
    ]


def lines(panels: list[Panel], note: str) -> str:
    """Panels side by side with one legend below."""
    width, height = 420, 300
    body: list[str] = []
    for index, panel in enumerate(panels):
        body += _panel(panel, 62 + index * width, 44, width - 100, height - 100)
    for index, line in enumerate(panels[0].lines):
        x, y = 40 + index * 165, height + 2
        body.append(f'<path class="line c{line.style}" d="M{x} {y - 4}h28"/>')
        body.append(_text(x + 34, y, line.name, ""))
    body.append(_text(len(panels) * width - 12, height + 22, note, "small end"))
    return _picture(len(panels) * width, height + 34, body)


def _panel(panel: Panel, x: float, y: float, width: float, height: float) -> Iterator[str]:
    points = [point for line in panel.lines for point in line.points]
    if not points:
        return
    low_x, high_x = (log10(f(p[0] for p in points)) for f in (min, max))
    low_y = floor(log10(min(p[1] for p in points)))
    high_y = max(ceil(log10(max(p[1] for p in points))), low_y + 1)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = (log10(point[0]) - low_x) / ((high_x - low_x) or 1)
        up = (log10(point[1]) - low_y) / (high_y - low_y)
        return x + across * width, y + height - up * height

    yield _text(x - 46, y - 20, panel.title, "title")
    for power in range(low_y, high_y + 1):
        at = place((points[0][0], 10.0**power))[1]
        yield f'<path class="grid" d="M{x} {at:.1f}h{width}"/>'
        yield _text(x - 6, at + 4, _short(10.0**power), "small end")
    for step in sorted({point[0] for point in points}):
        yield _text(place((step, 10.0**low_y))[0], y + height + 17, f"{step:,.0f}", "small middle")
    yield _text(x + width / 2, y + height + 36, panel.axis, "small middle")
    for line in panel.lines:
        path = "L".join("{:.1f} {:.1f}".format(*place(point)) for point in line.points)
        if path:
            yield f'<path class="line c{line.style}" d="M{path}"/>'


def _text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def _short(value: float) -> str:
    """4.5 M, 120 k, 0.01: at most three digits."""
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _picture(width: float, height: float, body: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}"'
    size = f' width="{width:.0f}" height="{height:.0f}" role="img">'
    return f"{head}{size}\n<style>{STYLE}</style>\n" + "\n".join(body) + "\n</svg>\n"
