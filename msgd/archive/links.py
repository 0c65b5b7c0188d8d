"""`current.log`, a symbolic link to the newest day file: a convenience for readers."""

from __future__ import annotations

import logging
import os
from contextlib import suppress

log = logging.getLogger("msgd")

CURRENT = "current.log"


class CurrentLink:
    """Keeps it pointed; where that fails, the log says so once, and nothing else happens."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, CURRENT)
        self._new = os.path.join(directory, f".{CURRENT}.new")
        self._trouble = ""

    def target(self) -> str:
        """Where it leads to; nowhere if it is no symbolic link."""
        try:
            return os.readlink(self._path)
        except OSError:
            return ""

    def point(self, day: str) -> None:
        """Let it lead to this day's file: at every moment it leads to one of them."""
        name = f"{day}.log"
        if self.target() == name:
            self._trouble = ""
            return
        try:
            trouble = self._replace(name)
        except OSError as error:
            trouble = f"cannot be made: {error.strerror}; the archive goes on without it"
        if trouble and trouble != self._trouble:
            log.warning("%s: %s", self._path, trouble)
        self._trouble = trouble

    def _replace(self, name: str) -> str:
        if os.path.lexists(self._path) and not os.path.islink(self._path):
            return "is not a symbolic link; left as it is"
        with suppress(FileNotFoundError):
            os.unlink(self._new)
        os.symlink(name, self._new)
        os.rename(self._new, self._path)
        return ""
