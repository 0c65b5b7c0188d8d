"""The conversation: `msgctl send` at a terminal, line by line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from msgd.client.client import Client, ConnectionLost, Refused
from msgd.ctl.manners import INTERRUPTED, OK, REFUSED, complain
from msgd.ctl.terminating import ask, offer
from msgd.wire.text import escape, typed

_HISTORY_LINES = 1000


class Conversation:
    """One run of it; `run` returns the exit status."""

    def __init__(self, client: Client, quiet: bool) -> None:
        self._client = client
        self._quiet = quiet
        self._status = OK
        self._prompt = _coloured("msgd> ", "1;36", in_prompt=True)

    def run(self) -> int:
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        print(
            f"Connected to {self._client.address}. Each line is a message;"
            " Ctrl-D leaves, terminate stops the server.",
            flush=True,  # input() would overlook that nobody reads it
        )
        with _History(), self._client:
            try:
                while self._turn(input(self._prompt)):
                    pass
            except (EOFError, KeyboardInterrupt):
                print()
        return self._status

    def _turn(self, line: str) -> bool:
        """One line; false when it was the last."""
        if line == "terminate":
            return self._terminate()
        self._send(typed(line))
        return True

    def _send(self, text: bytes) -> None:
        try:
            archived = escape(self._client.send(text).encode("utf-8", "backslashreplace")).decode()
        except Refused as refused:
            self._refused(refused)
        except ConnectionLost as lost:
            raise ConnectionLost(f"{lost}: the last line is not confirmed") from None
        except KeyboardInterrupt:
            self._status = INTERRUPTED
            complain("interrupted: the last line is not confirmed")
            raise
        else:
            if not self._quiet:
                print(_coloured(archived, "32"), flush=True)

    def _terminate(self) -> bool:
        try:
            return not offer(self._client, ask())
        except EOFError:
            print("No password: the server goes on.")
        except Refused as refused:
            self._refused(refused)
        return True

    def _refused(self, refused: Refused) -> None:
        self._status = REFUSED
        complain(f"refused: {refused.reason}")


class _History:
    """Editing and history by readline(3), kept for the next conversation."""

    def __enter__(self) -> None:
        import readline

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
        readline.set_history_length(_HISTORY_LINES)

    def __exit__(self, *error: object) -> None:
        if self._file is None:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.touch(mode=0o600)
            self._readline.write_history_file(self._file)
        except OSError as failure:
            complain(f"the history is not kept: {self._file}: {failure.strerror}")


def _coloured(text: str, code: str, in_prompt: bool = False) -> str:
    """With colour at a terminal, unless NO_COLOR says otherwise (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return text
    begin, end = f"\x1b[{code}m", "\x1b[0m"
    if in_prompt:  # readline has to know what takes no room on the line
        begin, end = f"\x01{begin}\x02", f"\x01{end}\x02"
    return f"{begin}{text}{end}"
