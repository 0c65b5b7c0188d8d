"""All runs of a benchmark, and their medians."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median

from .generator import Run

Figure = Callable[[Run], float]


def rate_of(run: Run) -> float:
    """Messages a second."""
    return run.messages / run.seconds


def divide(value: float | None, by: float | None) -> float | None:
    return value / by if value is not None and by else None


@dataclass(slots=True)
class Results:
    machine: dict[str, str]
    versions: dict[str, str | None]  # of the peers; None: not installed
    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    others: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # cores
    failures: list[str] = field(default_factory=list)

    def rate(self, key: str) -> float | None:
        """Messages a second; None where the case gave no run."""
        return self._median([rate_of(run) for run in self.runs.get(key, ())])

    def p50(self, key: str) -> float | None:
        """Microseconds."""
        return self._median([run.p50_us for run in self.runs.get(key, ())])

    def p99(self, key: str) -> float | None:
        """Microseconds."""
        return self._median([run.p99_us for run in self.runs.get(key, ())])

    def value(self, key: str) -> float | None:
        return self._median(self.values.get(key, []))

    def ratio(self, key: str, to: str, figure: Figure = rate_of) -> float | None:
        """The figure of one case in terms of another's, measured beside it in the same round."""
        pairs = zip(self.runs.get(key, ()), self.runs.get(to, ()), strict=False)
        ratios = [divide(figure(run), figure(other)) for run, other in pairs]
        return self._median([ratio for ratio in ratios if ratio is not None])

    def disturbance(self) -> str:
        """What others took of the processor while it was measured, in words."""
        shares = sorted(share for shares in self.others.values() for share in shares)
        if not shares:
            return "not measured"
        return f"{median(shares):.2f} of a core in the median run, {shares[-1]:.2f} in the worst"

    def as_json(self) -> dict[str, object]:
        return {
            "machine": self.machine,
            "versions": self.versions,
            "runs": {key: [asdict(run) for run in runs] for key, runs in self.runs.items()},
            "values": dict(self.values),
            "others": dict(self.others),
            "failures": self.failures,
        }

    @staticmethod
    def _median(values: list[float]) -> float | None:
        return median(values) if values else None
