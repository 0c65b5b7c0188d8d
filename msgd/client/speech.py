"""What a logging handler says on standard error, which may lead anywhere, into logging too."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from time import monotonic
from types import TracebackType

_QUIET_SECONDS = 10.0  # between two lines that say the same
_MOST_REASONS = 100


class Speech:
    """Says the same once in a while only: else each line could be the cause of the next."""

    def __init__(self) -> None:
        self._thread = threading.local()
        self._lock = threading.Lock()  # guards what follows
        self._lost: Counter[str] = Counter()  # by reason; not said yet
        self._said: dict[str, float] = {}

    @property
    def is_under_way(self) -> bool:
        """Whether this very thread is just saying something."""
        return getattr(self._thread, "speaks", False)

    def __enter__(self) -> None:
        self._thread.speaks = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.speaks = False

    def say(self, text: str) -> None:
        with self._lock:
            if self._is_fresh(text):
                return
        self._write(text)

    def lost(self, number: int, reason: str) -> None:
        """So many records are not delivered; those that soon follow are added up."""
        if not number:
            return
        with self._lock:
            self._lost[reason] += number
            if self._is_fresh(reason):
                return
            number = self._lost.pop(reason)
        self._write_lost(number, reason)

    def rest(self) -> None:
        """Say what has been added up."""
        with self._lock:
            lost, self._lost = self._lost, Counter()
            self._said.clear()
        for reason, number in lost.items():
            self._write_lost(number, reason)

    def _is_fresh(self, text: str) -> bool:
        """Whether it was said a short while ago; else it is now."""
        now = monotonic()
        if now - self._said.get(text, -_QUIET_SECONDS) < _QUIET_SECONDS:
            return True
        if len(self._said) >= _MOST_REASONS:
            self._said.clear()
        self._said[text] = now
        return False

    def _write_lost(self, number: int, reason: str) -> None:
        self._write(f"{number} log record{'s' * (number > 1)} not delivered: {reason}")

    def _write(self, text: str) -> None:
        """Whatever happens here, the records go on."""
        with self:
            try:
                if sys.stderr is not None:
                    print(f"msgd.handler: {text}", file=sys.stderr, flush=True)
            except Exception:
                return
