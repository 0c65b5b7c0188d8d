"""Line editing and its history by readline(3), kept for the next conversation."""

from __future__ import annotations

from pathlib import Path

from msgd.ctl.streams import complain

_LINES = 1000


class History:
    """While it is entered, input() edits lines, and remembers them, where it can."""

    def __init__(self) -> None:
        self._file: Path | None = None

    def __enter__(self) -> None:
        try:
            import readline
        except ImportError:  # Python was built without it
            return
        from msgd.config.options import state_directory

        self._readline = readline
        # In the locale C it would take the bytes of UTF-8 for keys pressed together with Meta.
        for setting in ("input-meta on", "output-meta on", "convert-meta off"):
            readline.parse_and_bind(f"set {setting}")
        directory = state_directory("msgctl")
        self._file = Path(directory, "history") if directory else None
        try:
            if self._file:
                readline.read_history_file(self._file)
        except OSError:
            readline.clear_history()
        readline.set_history_length(_LINES)
        self._known = readline.get_current_history_length()

    def __exit__(self, *error: object) -> None:
        """Add what was typed here: another conversation may have added its own meanwhile."""
        if self._file is None:
            return
        typed = self._readline.get_current_history_length() - self._known
        if typed <= 0:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.touch(mode=0o600)
            self._readline.append_history_file(typed, self._file)
        except OSError as failure:
            complain(f"the history is not kept: {self._file}: {failure.strerror}")
