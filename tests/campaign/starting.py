"""Real daemons for the long runs, one after the other."""

from __future__ import annotations

from pathlib import Path

from tests.lab.daemon import Daemon


class Starter:
    """As the fixture `start`; only the last daemon is kept, so that thousands may come and go."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._last: Daemon | None = None

    def __call__(self, config: str = "", *options: str, **more: object) -> Daemon:
        self._end()
        folder = more.pop("folder", self._folder / "run")
        assert isinstance(folder, Path)
        folder.mkdir(exist_ok=True)
        self._last = Daemon(folder, config, *options, **more)  # type: ignore[arg-type]
        return self._last

    def _end(self) -> None:
        if self._last is not None:
            self._last.kill()
            assert "Traceback" not in self._last.log, self._last.log

    def __enter__(self) -> Starter:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()
