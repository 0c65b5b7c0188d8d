"""Combinations of two things, of which every second one is quick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def every_other(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    """All pairs, as parameters; as on a chessboard one half is thorough.

    So each value of the one is in a quick test, with every other value of the other.
    """
    return [
        pytest.param(one, other, marks=[] if (row + column) % 2 else pytest.mark.thorough)
        for row, one in enumerate(first)
        for column, other in enumerate(second)
    ]
