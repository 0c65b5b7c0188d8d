"""Figures that one can trust on a noisy machine: matches, measured in pairs close in time.

A match measures two sides in the order A B B A, again and again. What drifts slower than a pair
takes meets both alike, and what is left shows as the width of the interval: the median of the
ratios of the pairs, and a bootstrap over the pairs. A target is met, or missed, only where the
whole interval says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import Random
from statistics import median

from .stand import Stand

Figures = dict[str, float]
Measure = Callable[[Stand], Figures]

SHARE = 0.95  # of the bootstrap's medians that lie in the interval
RESAMPLES = 1000
NARROW = 0.02  # half of the interval, in terms of its middle: no more is asked
MOST_FAILURES = 2
FEWEST = 6  # pairs: below it an interval says nothing


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio has to be; a `bound` of None is only shown."""

    title: str
    bound: float | None = None
    figure: str = "rate"
    at_least: bool = True


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    middle: float
    high: float

    def verdict(self, target: Target) -> str:
        if target.bound is None:
            return ""
        if self.low < target.bound < self.high:
            return "not decided"
        return "met" if (self.middle >= target.bound) == target.at_least else "**missed**"

    def width(self, bound: float | None) -> float:
        """In terms of what is narrow enough: 1 or less needs no more pairs.

        Far from its bound a ratio needs not to be known to the last digit.
        """
        enough = NARROW * abs(self.middle)
        if bound is not None:
            enough = max(enough, abs(self.middle - bound) / 4)
        half = (self.high - self.low) / 2
        return half / enough if half else 0.0


def interval(values: list[float]) -> Interval:
    """The median with its bootstrap interval; the same values always give the same one."""
    choose = Random(len(values))
    medians = sorted(median(choose.choices(values, k=len(values))) for _ in range(RESAMPLES))
    rest = round((1 - SHARE) / 2 * RESAMPLES)
    return Interval(medians[rest], median(values), medians[-1 - rest])


@dataclass(slots=True)
class Match:
    """Two sides, or one alone (`other` is None), whose figures are then their own ratios."""

    key: str
    one: Measure
    other: Measure | None = None
    targets: tuple[Target, ...] = ()
    most: int = 24  # pairs
    pairs: list[tuple[Figures, Figures]] = field(default_factory=list)
    others: list[float] = field(default_factory=list)  # cores that other processes took meanwhile
    failures: list[str] = field(default_factory=list)
    problem: str = ""  # what it needs is not installed
    need: float = inf  # how much it asks for more pairs: more than 1, or not at all

    def ratios(self, figure: str = "rate") -> list[float]:
        if self.other is None:
            return [one[figure] for one, _ in self.pairs]
        return [one[figure] / other[figure] for one, other in self.pairs]

    def interval(self, figure: str = "rate") -> Interval | None:
        return interval(self.ratios(figure)) if self.pairs else None

    def one_side(self, figure: str = "rate") -> list[float]:
        return [one[figure] for one, _ in self.pairs]

    def other_side(self, figure: str = "rate") -> list[float]:
        return [other[figure] for _, other in self.pairs]

    def look(self) -> None:
        """Sets `need` anew, after each pair."""
        self.need = self._need()

    def _need(self) -> float:
        if self.problem or len(self.failures) >= MOST_FAILURES or len(self.pairs) >= self.most:
            return 0.0
        if len(self.pairs) < min(FEWEST, self.most):
            return inf
        return max((self._width(target) for target in self.targets), default=0.0)

    def _width(self, target: Target) -> float:
        return interval(self.ratios(target.figure)).width(target.bound)
