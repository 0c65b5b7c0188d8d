"""Figures for a monitoring system: OpenMetrics text, in a file that is replaced by rename.

    registry = Registry()
    archived = registry.counter("msgd_messages", "Messages archived.")
    archived.value += 400                      # what the loop does: one addition
    seconds = registry.histogram("msgd_commit_seconds", "…", bounds=SECONDS, unit="seconds")
    seconds.observe(0.0004)
    registry.write("/var/lib/prometheus/node-exporter/msgd.prom")

A figure costs next to nothing while it is counted: a counter and a gauge are one attribute, a
histogram is a bisection and two additions. All formatting happens in `write`.
"""

from __future__ import annotations

import logging
import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

log = logging.getLogger("msgd")

# Bounds for times from a tenth of a millisecond to ten seconds.
SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_MODE = 0o644  # a collector of another user reads it

Labels = Mapping[str, str]


class Counter:
    """Only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def samples(self, name: str, labels: str) -> Iterator[str]:
        yield f"{name}_total{labels} {_number(self.value)}"


class Gauge:
    """Goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def samples(self, name: str, labels: str) -> Iterator[str]:
        yield f"{name}{labels} {_number(self.value)}"


class Histogram:
    """For each bound, how many observations were not above it."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def samples(self, name: str, labels: str) -> Iterator[str]:
        below = 0
        for bound, count in zip([*self._bounds, None], self._counts, strict=True):
            below += count
            text = "+Inf" if bound is None else _number(float(bound))
            bucket = f'le="{text}"'
            yield f"{name}_bucket{_joined(labels, bucket)} {below}"
        yield f"{name}_sum{labels} {_number(self._sum)}"
        yield f"{name}_count{labels} {below}"


Metric = Counter | Gauge | Histogram


class _Family:
    """All figures of one name, which differ in their labels."""

    def __init__(self, name: str, kind: type[Metric], help: str, unit: str) -> None:
        if unit and not name.endswith(f"_{unit}"):
            raise ValueError(f"{name}: must end with its unit, {unit}")
        self.name, self.kind, self._help, self._unit = name, kind, help, unit
        self.metrics: dict[str, Metric] = {}

    def lines(self) -> Iterator[str]:
        yield f"# TYPE {self.name} {self.kind.__name__.lower()}"
        if self._unit:
            yield f"# UNIT {self.name} {self._unit}"
        yield f"# HELP {self.name} {_escaped(self._help)}"
        for labels, metric in self.metrics.items():
            yield from metric.samples(self.name, labels)


class Registry:
    """The figures of one program. A name and labels that are there already give the same figure."""

    def __init__(self) -> None:
        self._families: dict[str, _Family] = {}
        self._failed = ""

    def counter(
        self, name: str, help: str, unit: str = "", labels: Labels | None = None
    ) -> Counter:
        """The name is without ``_total``; it ends with the unit, where there is one."""
        metric = self._add(name, help, unit, labels, Counter())
        assert isinstance(metric, Counter)
        return metric

    def gauge(self, name: str, help: str, unit: str = "", labels: Labels | None = None) -> Gauge:
        metric = self._add(name, help, unit, labels, Gauge())
        assert isinstance(metric, Gauge)
        return metric

    def histogram(
        self,
        name: str,
        help: str,
        unit: str = "",
        labels: Labels | None = None,
        bounds: Sequence[float] = SECONDS,
    ) -> Histogram:
        metric = self._add(name, help, unit, labels, Histogram(bounds))
        assert isinstance(metric, Histogram)
        return metric

    def _add(self, name: str, help: str, unit: str, labels: Labels | None, new: Metric) -> Metric:
        family = self._families.setdefault(name, _Family(name, type(new), help, unit))
        if family.kind is not type(new):
            raise ValueError(f"{name}: is a {family.kind.__name__.lower()}")
        return family.metrics.setdefault(_shown(labels), new)

    def text(self) -> str:
        """OpenMetrics 1.0, which readers of Prometheus' older text format take as well."""
        lines = [line for family in self._families.values() for line in family.lines()]
        return "\n".join([*lines, "# EOF"]) + "\n"

    def write(self, path: str) -> None:
        """Replace the file. Never raises: what goes wrong is one line of the log, until it works.

        Nothing is synced: after a power cut the figures begin anew anyway.
        """
        new = f"{path}.new"
        try:
            with suppress(FileNotFoundError):
                os.unlink(new)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open(new, flags, _MODE)
            try:
                os.fchmod(fd, _MODE)  # whatever the umask
                os.write(fd, self.text().encode())
            finally:
                os.close(fd)
            os.rename(new, path)
        except OSError as error:
            words = error.strerror or str(error)
            if words != self._failed:
                log.error("metrics_file: %s: %s; figures are not written until then", path, words)
            self._failed = words
            return
        self._failed = ""


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.9g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _shown(labels: Labels | None) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _joined(labels: str, more: str) -> str:
    return f"{labels[:-1]},{more}}}" if labels else f"{{{more}}}"
