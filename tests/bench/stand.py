"""What every measure needs to know: where the programs are, where archives lie, how much to do."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from .counting import fresh_directory
from .tools import Tools


@dataclass(frozen=True, slots=True)
class Stand:
    tools: Tools
    place: Path
    scale: float  # share of the usual work; 1 but for a quick look

    @property
    def load(self) -> Path:
        return self.tools.built / "load"

    def fresh(self) -> AbstractContextManager[Path]:
        return fresh_directory(self.place)

    def scaled(self, number: int, least: int = 1) -> int:
        return max(int(number * self.scale), least)
